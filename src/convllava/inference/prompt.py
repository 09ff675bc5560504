"""A request made ready for the model: images opened and resized, text tokenized, context checked."""

import hashlib
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..model import ConvLlavaProcessor, check_context, num_image_tokens
from .images import open_images
from .request import DEFAULT_NEW_TOKENS, ContextOverflowError, Request


@dataclass(frozen=True, eq=False)
class Prompt:
    """What the model reads for one request.

    Attributes:
        input_ids: (T,) int64, an image's token once per visual token.
        is_image: (T,) bool, where that token stands.
        images: (3, H_i, W_i) each, as the vision encoder reads them.
        image_digests: Of each image's shape and pixels; equal for equal images only.
        tokens_per_image: Visual tokens of each.
        image_size: (width, height) of the first image as it was given, upright.
        max_new_tokens: Longest answer that is wanted and fits.
    """

    input_ids: Tensor
    is_image: Tensor
    images: tuple[Tensor, ...]
    image_digests: tuple[bytes, ...]
    tokens_per_image: tuple[int, ...]
    image_size: tuple[int, int] | None
    max_new_tokens: int

    @property
    def image_sizes(self) -> tuple[tuple[int, int], ...]:
        """(height, width) of each image as the vision encoder sees it."""
        return tuple((image.shape[1], image.shape[2]) for image in self.images)


def prepare(request: Request, processor: ConvLlavaProcessor, context: int) -> Prompt:
    """Open and process what a request holds.

    Args:
        request: To be answered.
        processor: Of the model.
        context: Positions that the language model has.

    Raises:
        ContextOverflowError: The context is too small.
        ValueError: An image cannot be opened, or placeholders do not match.
    """
    images = open_images(request.sources, lazily=processor.image_processor.preprocessing == "fast")
    image_size = images[0].size if images else None  # now: one that is decoded smaller becomes smaller
    data = _process(request, images, processor)
    input_ids = data["input_ids"][0]
    shown = _cropped(data["pixel_values"], data["image_sizes"]) if images else ()
    stride = processor.image_processor.output_stride
    return Prompt(
        input_ids=input_ids,
        is_image=input_ids == processor.image_token_id,
        images=shown,
        image_digests=tuple(map(digest, shown)),
        tokens_per_image=tuple(num_image_tokens(image.shape[1], image.shape[2], stride) for image in shown),
        image_size=image_size,
        max_new_tokens=new_tokens(len(input_ids), request.max_new_tokens, context),
    )


def _cropped(pixel_values: Tensor, image_sizes: Tensor) -> tuple[Tensor, ...]:
    """Return each image (3, H, W) without the padding to its neighbors."""
    return tuple(
        pixels[:, :height, :width] for pixels, (height, width) in zip(pixel_values, image_sizes.tolist(), strict=True)
    )


def digest(image: Tensor) -> bytes:
    """Return a cryptographic digest of an image (3, H, W): nobody can make another image that has it."""
    hashed = hashlib.sha256(repr(tuple(image.shape)).encode())
    hashed.update(image.contiguous().numpy().data)
    return hashed.digest()


def new_tokens(num_prompt_tokens: int, wanted: int | None, context: int) -> int:
    """Return how long an answer may get.

    Raises:
        ContextOverflowError: The context is full, or too small for as many as are wanted; the message has the
            numbers.
    """
    try:
        check_context(num_prompt_tokens + 1, context)  # an answer has at least one token
    except ValueError as error:
        raise ContextOverflowError(str(error)) from None
    room = context - num_prompt_tokens
    if wanted is None:
        return min(DEFAULT_NEW_TOKENS, room)
    if wanted > room:
        raise ContextOverflowError(
            f"the prompt has {num_prompt_tokens} tokens and max_new_tokens is {wanted}, together "
            f"{num_prompt_tokens + wanted}, but the context holds {context}: set max_new_tokens to {room} or "
            "less, or lower resolution or max_visual_tokens"
        )
    return wanted


def _process(request: Request, images: list[Any], processor: ConvLlavaProcessor) -> dict[str, torch.Tensor]:
    options = {"images": [images], "return_tensors": "pt", **request.image_options.given()}
    data: dict[str, torch.Tensor] = processor.apply_chat_template(
        [list(request.messages)],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        processor_kwargs=options,
    )
    return data
