"""Requests, answers and the events in between."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from ..generation_options import GENERATION_OPTIONS, check_generation_option
from ..geometry import Box
from ..image_options import IMAGE_OPTIONS, ImageOptions
from ..model import Message, images_of
from ..support import is_encodable

DEFAULT_NEW_TOKENS = 512
"""Maximum new tokens if a request does not set them; fewer where the context ends sooner."""

FinishReason = Literal["stop", "length", "repetition"]
"""Why an answer ended: an end token or stop text, `max_new_tokens`, or a loop (see `Request.stop_on_repetition`)."""


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
        top_k: Sample among so many most likely tokens; 0 sets no limit.
        min_p: Sample among the tokens that have at least this fraction of the probability of the most likely one.
        seed: Makes sampling repeatable, independent of the other requests of the batch.
        stop: Texts before which the answer ends.
        repetition_penalty: Factor that makes tokens of the prompt and the answer less likely; None takes the
            checkpoint's, 1 none.
        no_repeat_ngram_size: Length of token sequences that never occur twice in prompt and answer together; None takes
            the checkpoint's, 0 allows all.
        no_repeat_ngram_window: Number of latest tokens among which `no_repeat_ngram_size` counts; None counts all.
        stop_on_repetition: Whether an answer that repeats one passage on and on ends with the finish reason
            "repetition", see `loops.LoopDetector`.
        top_logprobs: Number of most likely tokens whose log probabilities come with each token's own; None gives none.
        json_schema: JSON schema that the answer follows, as parsed JSON; needs the extra `json`.
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
    top_k: int = 0
    min_p: float = 0.0
    seed: int | None = None
    stop: Sequence[str] = ()
    repetition_penalty: float | None = None
    no_repeat_ngram_size: int | None = None
    no_repeat_ngram_window: int | None = None
    stop_on_repetition: bool = True
    top_logprobs: int | None = None
    json_schema: dict[str, Any] | None = None
    box_image: int | None = None
    cache_salt: str = ""
    reuse_dialogue_only: bool = False

    def __post_init__(self) -> None:
        if not self.messages or self.messages[-1].get("role") != "user":
            raise ValueError("there is nothing to answer: the last message must be the user's")
        for name in GENERATION_OPTIONS:
            value, default = getattr(self, name), getattr(type(self), name)
            if value is not None or default is not None:
                check_generation_option(name, value)
        if isinstance(self.stop, str) or not all(self.stop):
            raise ValueError(f"stop must be a list of texts, none of them empty, got {self.stop!r:.200}")
        if self.box_image is not None and self.box_image < 0:
            raise ValueError(f"box_image must be the index of an image, at least 0, got {self.box_image}")

    @classmethod
    def of_question(
        cls, question: str, images: Sequence[Any] = (), *, system: str | None = None, **options: Any
    ) -> "Request":
        """Return a request of one question about images, which come before it.

        Args:
            question: Text of the question.
            images: Images by path, URL or loaded.
            system: System message, in place of the prompt format's own; None keeps that one.
            options: Further fields of the request; image options may be given by their names.

        Raises:
            ValueError: The question is empty, or an option is out of range.
        """
        given = {name: options.pop(name) for name in IMAGE_OPTIONS if name in options}
        merged = options.pop("image_options", ImageOptions()).merged(ImageOptions(**given))
        messages = [*system_message(system), question_message(question, len(images))]
        return cls(messages=messages, images=images, image_options=merged, **options)

    @property
    def sources(self) -> list[Any]:
        """Images in reading order, as given."""
        return list(self.images) or list(images_of(self.messages))


def system_message(system: str | None) -> list[Message]:
    """Return the turn that replaces the prompt format's system message, or none.

    Raises:
        ValueError: The text has half of a character.
    """
    if system is None:
        return []
    if not is_encodable(system):
        raise ValueError(f"the system message {system!a:.200} has half of a character (a lone surrogate): remove it")
    return [{"role": "system", "content": system}]


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
class TokenLogprob:
    """The log probability of one token of an answer, as the model has it before any option of decoding.

    Attributes:
        token_id: The token.
        logprob: Its natural logarithm of the probability.
        top: Most likely tokens in its place and their log probabilities, the most likely first.
    """

    token_id: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class Answer:
    """A finished answer.

    Attributes:
        text: Answer without end token, stop text and the blank that prompt formats put before an answer.
        token_ids: All generated tokens, including the end token.
        finish_reason: "stop" (end token or stop text), "length" (cut at max_new_tokens) or "repetition" (cut in a
            loop).
        boxes: Boxes written in the text, in pixels of the image ``box_image``.
        num_prompt_tokens: Tokens of the prompt, including visual tokens.
        num_image_tokens: Visual tokens of all images.
        image_sizes: (height, width) of each image at the input of the vision encoder.
        grids: (rows, columns) of visual tokens of each image.
        num_cached_tokens: Tokens of the prompt whose keys and values were reused.
        box_image: Index of the image that the boxes are about, in the order of ``image_sizes``; None without images.
        logprobs: Log probabilities of the tokens without the end token, if they were asked for.
    """

    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason
    boxes: tuple[Box, ...]
    num_prompt_tokens: int
    num_image_tokens: int
    image_sizes: tuple[tuple[int, int], ...]
    grids: tuple[tuple[int, int], ...]
    timings: Timings
    num_cached_tokens: int = 0
    box_image: int | None = None
    logprobs: tuple[TokenLogprob, ...] | None = None


@dataclass(frozen=True)
class TextDelta:
    """The next piece of an answer; all pieces together are its text.

    Attributes:
        request_id: The request.
        text: The piece; empty only if there are log probabilities of tokens without text.
        logprobs: Log probabilities of the tokens since the last piece, if they were asked for.
    """

    request_id: int
    text: str
    logprobs: tuple[TokenLogprob, ...] = ()


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
