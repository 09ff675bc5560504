"""Normalization of a processor's inputs: the forms that transformers allows become one."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from transformers import PreTrainedTokenizerBase
from transformers.utils import PaddingStrategy

from ..constants import IMAGE_TOKEN, Message


def as_dialogues(conversation: Any) -> tuple[list[Any], bool]:
    """Return a list of dialogues, and whether several were given; pipelines wrap each in an object."""
    if hasattr(conversation, "messages"):
        return [conversation.messages], False
    first = conversation[0] if len(conversation) else None
    if isinstance(first, (list, tuple)) or hasattr(first, "messages"):
        return [getattr(dialogue, "messages", dialogue) for dialogue in conversation], True
    return [conversation], False


def images_of(messages: Sequence[Message]) -> Iterator[Any]:
    """Yield the images that are given inside a dialogue, in reading order.

    An image part has its image under "image", "url", "path", "base64" or (OpenAI's form) "image_url", a URL or
    ``{"url": ...}``. The first of these keys that is set counts; a part without any is a placeholder for an image that
    is passed separately.
    """
    for message in messages:
        content = message.get("content")
        for part in content if isinstance(content, list | tuple) else ():
            if part["type"] != "text":
                yield from _image_of(part)


def _image_of(part: Message) -> list[Any]:
    """Return the image of an image part in a list, which is empty if the part has none."""
    given = [part[key] for key in ("image", "url", "path", "base64", "image_url") if part.get(key) is not None]
    return [image["url"] if isinstance(image, Mapping) else image for image in given[:1]]


def flatten_images(images: Any) -> tuple[list[Any], list[int]]:
    """Return the images in one list, and the number of images of each text, or one total for a flat list."""
    if images is None:
        return [], [0]
    if isinstance(images, (list, tuple)) and images and all(isinstance(group, (list, tuple)) for group in images):
        return [image for group in images for image in group], [len(group) for group in images]
    several = isinstance(images, (list, tuple)) or getattr(images, "ndim", 3) == 4  # (N, H, W, C)
    flat = list(images) if several else [images]
    return flat, [len(flat)]


def check_counts(texts: Sequence[str], images: Sequence[int]) -> None:
    """Check that there is one image for each ``<image>``.

    Args:
        texts: Rendered prompts.
        images: Number of images of each text, or one total for all texts.

    Raises:
        ValueError: The numbers of placeholders and images differ.
    """
    placeholders = [text.count(IMAGE_TOKEN) for text in texts]
    if len(images) > 1:
        for number, (wanted, given) in enumerate(zip_longest(placeholders, images, fillvalue=0), start=1):
            _check_count(f"text {number}", wanted, given)
    _check_count("the text", sum(placeholders), sum(images))


def _check_count(where: str, placeholders: int, images: int) -> None:
    if placeholders != images:
        raise ValueError(
            f"{where} has {placeholders} {IMAGE_TOKEN} placeholder{'s' * (placeholders != 1)} but {images} "
            f"image{'s' * (images != 1)} came with it: give one image for each placeholder, in the same order"
        )


def check_context(num_tokens: int, limit: int) -> None:
    """Check that a sequence fits into the language model's context.

    Raises:
        ValueError: It has more tokens than the context.
    """
    if num_tokens > limit:
        raise ValueError(
            f"the prompt has {num_tokens} tokens and the context holds {limit}: lower resolution or "
            "max_visual_tokens, pass fewer images or shorten the text"
        )


@dataclass(frozen=True)
class Padding:
    """Padding of the sequences of one batch to ``length``; longer ones are unchanged."""

    length: int
    side: str

    @classmethod
    def from_options(cls, tokenizer: PreTrainedTokenizerBase, options: Mapping[str, Any], longest: int) -> "Padding":
        """Read transformers' padding options; ``longest`` is the length of the batch's longest sequence."""
        side = options.get("padding_side") or tokenizer.padding_side
        strategy = options.get("padding") or PaddingStrategy.DO_NOT_PAD
        if strategy == PaddingStrategy.DO_NOT_PAD:
            return cls(0, side)
        length = longest
        if strategy == PaddingStrategy.MAX_LENGTH:
            length = max(options.get("max_length") or 0, longest)
        unit = options.get("pad_to_multiple_of") or 1
        return cls(-(-length // unit) * unit, side)

    def __call__(self, sequence: Sequence[Any], filler: Any) -> list[Any]:
        """Return the sequence padded with ``filler``."""
        padding = [filler] * (self.length - len(sequence))
        return [*padding, *sequence] if self.side == "left" else [*sequence, *padding]
