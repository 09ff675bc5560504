"""Requests, answers and the events in between."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from ..geometry import Box
from ..image_options import IMAGE_OPTIONS, ImageOptions
from ..model import Message, images_of
from ..support import is_encodable

DEFAULT_NEW_TOKENS = 512
"""Maximum new tokens if a request does not set them; fewer where the context ends sooner."""

MAX_TEMPERATURE = 100.0
"""Maximum temperature, at which all tokens are about equally likely."""


class ContextOverflowError(ValueError):
    """A prompt, or prompt and answer together, do not fit into the language model's context."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """A dialogue that the model continues.

    Args:
        messages: Dialogue whose last turn is the user's. Its image parts hold their images (see
            `convllava.model.images_of`) or stand for `images`, in order.
        images: Images by path, URL or loaded.
        image_options: Size at which the images are shown; by default the checkpoint's.
        max_new_tokens: Maximum length of the answer; None takes `DEFAULT_NEW_TOKENS`, or fewer where the context ends.
        temperature: 0 always takes the most likely token; above it, tokens are sampled.
        top_p: Sample among the most likely tokens that together have this probability.
        seed: Makes sampling repeatable, independent of the other requests of the batch.
        stop: Texts before which the answer ends.
        repetition_penalty: Factor that makes tokens of the prompt and the answer less likely; None takes the
            checkpoint's, 1 none.
        box_image: Index of the image that boxes in the answer are about; None takes the one that the question names
            ("the second image", "image 2"), else the last.
        cache_salt: Image features, keys and values are shared only by requests of equal salt.
        reuse_dialogue_only: Whether keys and values are reused only from the dialogue that this one continues, not
            from any with the same beginning.

    Raises:
        ValueError: A value is out of range, or the last message is not the user's.
    """

    messages: Sequence[Message]
    images: Sequence[Any] = ()
    image_options: ImageOptions = field(default_factory=ImageOptions)
    max_new_tokens: int | None = None
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    stop: Sequence[str] = ()
    repetition_penalty: float | None = None
    box_image: int | None = None
    cache_salt: str = ""
    reuse_dialogue_only: bool = False

    def __post_init__(self) -> None:
        if not self.messages or self.messages[-1].get("role") != "user":
            raise ValueError("there is nothing to answer: the last message must be the user's")
        if self.max_new_tokens is not None and self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens must be at least 1, got {self.max_new_tokens}")
        if not 0 <= self.temperature <= MAX_TEMPERATURE:
            raise ValueError(
                f"temperature must be from 0 (the most likely token) to {MAX_TEMPERATURE:g}, got {self.temperature}"
            )
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be above 0 and at most 1, got {self.top_p}")
        if isinstance(self.stop, str) or not all(self.stop):
            raise ValueError(f"stop must be a list of texts, none of them empty, got {self.stop!r:.200}")
        if self.repetition_penalty is not None and not 0.1 <= self.repetition_penalty <= 10:
            raise ValueError(f"repetition_penalty must be from 0.1 to 10, got {self.repetition_penalty}")
        if self.box_image is not None and self.box_image < 0:
            raise ValueError(f"box_image must be the index of an image, at least 0, got {self.box_image}")
        if self.seed is not None and not -(2**63) <= self.seed < 2**64:
            raise ValueError(f"seed must fit 64 bits, got {self.seed}")

    @classmethod
    def of_question(cls, question: str, images: Sequence[Any] = (), **options: Any) -> "Request":
        """Return a request of one question about images, which come before it.

        Args:
            question: Text of the question.
            images: Images by path, URL or loaded.
            options: Further fields of the request; image options may be given by their names.

        Raises:
            ValueError: The question is empty, or an option is out of range.
        """
        given = {name: options.pop(name) for name in IMAGE_OPTIONS if name in options}
        merged = options.pop("image_options", ImageOptions()).merged(ImageOptions(**given))
        messages = [question_message(question, len(images))]
        return cls(messages=messages, images=images, image_options=merged, **options)

    @property
    def sources(self) -> list[Any]:
        """Images in reading order, as given."""
        return list(self.images) or list(images_of(self.messages))


def question_message(question: str, num_images: int = 0) -> Message:
    """Return a user's turn: image parts, then the question.

    Raises:
        ValueError: The question is empty, or has half of a character.
    """
    if not question.strip():
        raise ValueError("the question is empty: say what you want to know")
    if not is_encodable(question):
        raise ValueError(
            f"the question {question!a} has half of a character (a lone surrogate): remove it, or give UTF-8"
        )
    images: list[Message] = [{"type": "image"}] * num_images
    return {"role": "user", "content": [*images, {"type": "text", "text": question}]}


def text_of(message: Message) -> str:
    """Return the text of a message, without its images."""
    content = message.get("content") or ""
    if isinstance(content, str):
        return content
    return " ".join(str(part.get("text") or "") for part in content)


@dataclass(frozen=True)
class Timings:
    """Times in seconds.

    Attributes:
        encode_seconds: Vision encoder and projector, for all images that left the queue together.
        first_token_seconds: From submission to the first token.
        total_seconds: From submission to the end of the answer.
        queue_seconds: From submission to the start of the computation.
    """

    encode_seconds: float
    first_token_seconds: float
    total_seconds: float
    queue_seconds: float = 0.0


@dataclass(frozen=True)
class Answer:
    """A finished answer.

    Attributes:
        text: Answer without end token, stop text and the blank that prompt formats put before an answer.
        token_ids: All generated tokens, including the end token.
        finish_reason: "stop" (end token or stop text) or "length" (cut at max_new_tokens).
        boxes: Boxes written in the text, in pixels of the image ``box_image``.
        num_prompt_tokens: Tokens of the prompt, including visual tokens.
        num_image_tokens: Visual tokens of all images.
        image_sizes: (height, width) of each image at the input of the vision encoder.
        grids: (rows, columns) of visual tokens of each image.
        num_cached_tokens: Tokens of the prompt whose keys and values were reused.
        box_image: Index of the image that the boxes are about, in the order of ``image_sizes``; None without images.
    """

    text: str
    token_ids: tuple[int, ...]
    finish_reason: Literal["stop", "length"]
    boxes: tuple[Box, ...]
    num_prompt_tokens: int
    num_image_tokens: int
    image_sizes: tuple[tuple[int, int], ...]
    grids: tuple[tuple[int, int], ...]
    timings: Timings
    num_cached_tokens: int = 0
    box_image: int | None = None


@dataclass(frozen=True)
class TextDelta:
    """The next piece of an answer; all pieces together are its text."""

    request_id: int
    text: str


@dataclass(frozen=True)
class Finished:
    """The last event of a request."""

    request_id: int
    answer: Answer


@dataclass(frozen=True)
class Failed:
    """The last event of a request whose computation failed, in place of `Finished`."""

    request_id: int
    error: Exception


Event = TextDelta | Finished | Failed
