"""Preparation of a request for the model: images are opened and resized, text is tokenized, the context checked."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from ..model import ConvLlavaProcessor, check_context, num_image_tokens
from .boxes import image_of_boxes
from .images import open_images
from .request import DEFAULT_NEW_TOKENS, ContextOverflowError, Request, text_of


@dataclass(frozen=True, eq=False)
class Prompt:
    """Input of the model for one request.

    Attributes:
        input_ids: Token ids (T,) int64, with the image token once per visual token.
        is_image: Whether each token is an image token, (T,) bool.
        images: Pixels (3, H_i, W_i) of each image, resized and normalized.
        image_digests: Digest of the salt and each image's shape and pixels; equal for equal images only.
        tokens_per_image: Visual tokens of each image.
        original_sizes: (height, width) of each image as given, upright.
        box_image: Index of the image that boxes in the answer are about; None without images.
        max_new_tokens: Maximum length of the answer that is requested and fits the context.
        cache_salt, reuse_dialogue_only: Limits of reuse, as the request has them.
    """

    input_ids: Tensor
    is_image: Tensor
    images: tuple[Tensor, ...]
    image_digests: tuple[bytes, ...]
    tokens_per_image: tuple[int, ...]
    original_sizes: tuple[tuple[int, int], ...]
    box_image: int | None
    max_new_tokens: int
    cache_salt: str = ""
    reuse_dialogue_only: bool = False

    @property
    def image_sizes(self) -> tuple[tuple[int, int], ...]:
        """(height, width) of each image at the input of the vision encoder."""
        return tuple((image.shape[1], image.shape[2]) for image in self.images)


def prepare(request: Request, processor: ConvLlavaProcessor, context: int) -> Prompt:
    """Return the prompt of a request.

    Args:
        request: The request.
        processor: Processor of the model.
        context: Context length of the language model in tokens.

    Raises:
        ContextOverflowError: Prompt and answer do not fit the context.
        ValueError: An image cannot be opened, or placeholders and images disagree.
    """
    opened = open_images(request.sources, lazily=processor.image_processor.preprocessing == "fast")
    original_sizes = [(image.height, image.width) for image in opened]  # before a JPEG is decoded at a smaller size
    images = processor.image_processor.prepare_each(opened, **request.image_options.given())
    return prompt_of(request, images, original_sizes, processor, context)


def prompt_of(
    request: Request,
    images: Sequence[Tensor],
    original_sizes: Sequence[tuple[int, int]],
    processor: ConvLlavaProcessor,
    context: int,
) -> Prompt:
    """Return the prompt of a request whose images are prepared.

    Args:
        request: The request.
        images: Pixels (3, H_i, W_i) of each image, resized and normalized.
        original_sizes: (height, width) of each image as given, upright.
        processor: Processor of the model.
        context: Context length of the language model in tokens.

    Raises:
        ContextOverflowError: Prompt and answer do not fit the context.
        ValueError: Placeholders and images disagree, or the request's ``box_image`` is none of them.
    """
    input_ids = processor.encode_messages(request.messages, [(image.shape[1], image.shape[2]) for image in images])
    stride = processor.image_processor.output_stride
    return Prompt(
        input_ids=input_ids,
        is_image=input_ids == processor.image_token_id,
        images=tuple(images),
        image_digests=tuple(digest(image, request.cache_salt) for image in images),
        tokens_per_image=tuple(num_image_tokens(image.shape[1], image.shape[2], stride) for image in images),
        original_sizes=tuple(original_sizes),
        box_image=_box_image(request, len(images)),
        max_new_tokens=new_tokens(len(input_ids), request.max_new_tokens, context),
        cache_salt=request.cache_salt,
        reuse_dialogue_only=request.reuse_dialogue_only,
    )


def _box_image(request: Request, num_images: int) -> int | None:
    if request.box_image is None:
        return image_of_boxes(text_of(request.messages[-1]), num_images)
    if request.box_image >= num_images:
        raise ValueError(f"box_image is {request.box_image}, but the request has {num_images} images, counted from 0")
    return request.box_image


def digest(image: Tensor, salt: str = "") -> bytes:
    """Return a cryptographic digest of an image (3, H, W), so that a different image cannot be made to match it."""
    hashed = hashlib.sha256(repr((salt, *image.shape)).encode())
    hashed.update(image.contiguous().numpy().data)
    return hashed.digest()


def new_tokens(num_prompt_tokens: int, wanted: int | None, context: int) -> int:
    """Return the maximum length of an answer in tokens.

    Raises:
        ContextOverflowError: The context is full, or too small for the wanted length; the message has the numbers.
    """
    try:
        check_context(num_prompt_tokens + 1, context)  # an answer has at least one token
    except ValueError as error:
        raise ContextOverflowError(str(error)) from None
    left = context - num_prompt_tokens
    if wanted is None:
        return min(DEFAULT_NEW_TOKENS, left)
    if wanted > left:
        raise ContextOverflowError(
            f"the prompt has {num_prompt_tokens} tokens and max_new_tokens is {wanted}, together "
            f"{num_prompt_tokens + wanted}, but the context holds {context}: set max_new_tokens to {left} or "
            "less, or lower resolution or max_visual_tokens"
        )
    return wanted
