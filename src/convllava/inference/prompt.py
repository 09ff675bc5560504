"""A request made ready for the model: pictures opened and resized, text tokenised, context checked."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..model import ConvLlavaProcessor, check_context
from .images import open_images
from .request import DEFAULT_NEW_TOKENS, Request


@dataclass(frozen=True)
class Prompt:
    """What the model reads for one request.

    Attributes:
        input_ids: (T,) int64, a picture's token once per visual token.
        pixel_values: (N, 3, Hmax, Wmax), or None without pictures.
        image_sizes: (height, width) of each picture as the vision encoder sees it.
        picture_size: (width, height) of the first picture as it was given, upright.
        max_new_tokens: Longest answer that is wanted and fits.
    """

    input_ids: Tensor
    pixel_values: Tensor | None
    image_sizes: tuple[tuple[int, int], ...]
    picture_size: tuple[int, int] | None
    max_new_tokens: int


def prepare(request: Request, processor: ConvLlavaProcessor, context: int) -> Prompt:
    """Open and process what a request holds.

    Args:
        request: To be answered.
        processor: Of the model.
        context: Positions that the language model has.

    Raises:
        ValueError: A picture cannot be opened, placeholders do not match, or the context is too small.
    """
    pictures = open_images(request.sources)
    data = _process(request, pictures, processor)
    input_ids = data["input_ids"][0]
    sizes = data["image_sizes"].tolist() if pictures else []
    return Prompt(
        input_ids=input_ids,
        pixel_values=data["pixel_values"] if pictures else None,
        image_sizes=tuple((int(height), int(width)) for height, width in sizes),
        picture_size=pictures[0].size if pictures else None,
        max_new_tokens=new_tokens(len(input_ids), request.max_new_tokens, context),
    )


def new_tokens(num_prompt_tokens: int, wanted: int | None, context: int) -> int:
    """Return how long an answer may get.

    Raises:
        ValueError: The context is full, or too small for as many as are wanted; the message has the numbers.
    """
    check_context(num_prompt_tokens + 1, context)  # an answer has at least one token
    room = context - num_prompt_tokens
    if wanted is None:
        return min(DEFAULT_NEW_TOKENS, room)
    if wanted > room:
        raise ValueError(
            f"the prompt has {num_prompt_tokens} tokens and max_new_tokens is {wanted}, together "
            f"{num_prompt_tokens + wanted}, but the context holds {context}: set max_new_tokens to {room} or "
            "less, or lower resolution or max_visual_tokens"
        )
    return wanted


def _process(request: Request, pictures: list[Any], processor: ConvLlavaProcessor) -> dict[str, torch.Tensor]:
    options = {"images": [pictures], "return_tensors": "pt", **request.image_options}
    data: dict[str, torch.Tensor] = processor.apply_chat_template(
        [list(request.messages)],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        processor_kwargs=options,
    )
    return data
