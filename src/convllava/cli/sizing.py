"""The size of images on the command line: set options, ``--resolution auto`` and time limits."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..image_options import ImageOptions
from . import options as opt

if TYPE_CHECKING:
    from PIL import Image

    from ..analysis import SizeChoice
    from ..model import ConvLlavaForConditionalGeneration, ConvLlavaProcessor


def choose_options(
    sizing: opt.SizingArguments,
    loaded: "tuple[ConvLlavaForConditionalGeneration, ConvLlavaProcessor]",
    images: "Sequence[Image.Image]",
    question: str,
    *,
    reserved: int | None,
    model_name: str,
) -> "tuple[ImageOptions, SizeChoice | None]":
    """Return the image options for these images, and how a size was chosen if it was.

    Args:
        sizing: Arguments of the command.
        loaded: Model and processor.
        images: Opened images, upright.
        question: Question of the user.
        reserved: Tokens kept for the answer; by default a part of the context.
        model_name: Name of the model in messages.

    Raises:
        ValueError: The time limit cannot be met, the device is not calibrated, or an option is out of range.
    """
    from ..inference.sizing import num_text_tokens, size_for_question

    model, processor = loaded
    sizes = [(image.height, image.width) for image in images]
    auto = sizing.chooses_size(model.config)
    if not sizes or not (auto or sizing.max_ttft_ms is not None):
        return sizing.options, None
    text_tokens = num_text_tokens(processor, question, len(sizes))
    limit = None if sizing.max_ttft_ms is None else _tokens_in_time(sizing, model, sizes, text_tokens, model_name)
    if auto:
        choice = size_for_question(
            model, processor, sizes, question, sizing.options, reserved=reserved, token_limit=limit
        )
        return choice.options, choice
    limits = [number for number in (limit, sizing.max_visual_tokens) if number is not None]
    return sizing.options.merged(ImageOptions(max_visual_tokens=min(limits))), None


def size_remark(choice: "SizeChoice | None") -> str:
    """Return a remark about images that are shown smaller or larger than they are, or an empty string."""
    if choice is None or not (choice.shrunk or choice.enlarged):
        return ""
    shapes = ", ".join(f"{width}x{height}" for height, width in choice.shapes)
    return f"shown at {shapes} ({choice.visual_tokens} visual tokens): {choice.reason}"


def choice_record(choice: "SizeChoice | None") -> dict[str, Any] | None:
    """Return the chosen size as ``--json`` prints it."""
    return None if choice is None else {"options": choice.options.given(), "reason": choice.reason}


def _tokens_in_time(
    sizing: opt.SizingArguments,
    model: "ConvLlavaForConditionalGeneration",
    sizes: Sequence[tuple[int, int]],
    text_tokens: int,
    model_name: str,
) -> int:
    """Return the visual tokens per image with which the first token comes in time."""
    from ..analysis import load_calibration, tokens_in_time
    from ..support import dtype_name
    from .cost import require_calibration

    calibration = load_calibration(model.config, model.device, dtype_name(model.dtype))
    return tokens_in_time(
        require_calibration(calibration, model_name),
        (sizing.max_ttft_ms or 0) / 1000,
        source_size=max(sizes, key=lambda size: size[0] * size[1]),
        stride=model.config.output_stride,
        text_tokens=text_tokens,
        images=len(sizes),
    )
