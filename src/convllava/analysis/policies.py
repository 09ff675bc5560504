"""Ways to show an image to a model, what each costs, and which to take.

A policy is a set of image options. The rule of choice is the paper's Table 7: a model trained on padded squares
answers slightly worse on nearly square images shown in their own shape (SEED 70.2 against 68.9) and clearly better
on pages (DocVQA 59.0 against 65.0), because padding wastes pixels on elongated ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ..model import ConvLlavaConfig, ConvLlavaVisionConfig, num_image_tokens, resized_shape
from ..model.presets import RESOLUTIONS

ELONGATED = 1.25
"""Longer to shorter side from which an image counts as elongated. The paper names no bound; from here on a padded
square spends a fifth of its tokens or more on padding."""

BUDGETS = (64, 144, 256, 576)
"""Visual tokens: the paper's 144, 256 and 576, and one below."""


@dataclass(frozen=True)
class Policy:
    """A named set of image options (see the image processor); what is absent is as the model was trained."""

    name: str
    options: dict[str, Any] = field(default_factory=dict)

    def shape(self, height: int, width: int, config: ConvLlavaConfig) -> tuple[int, int]:
        """Return the (height, width) at which an image of this size is shown."""
        return resized_shape(height, width, **image_options(config, self.options))


def image_options(config: ConvLlavaConfig, options: dict[str, Any]) -> dict[str, Any]:
    """Return all that `resized_shape` needs: what the model was trained with, replaced by what is given."""
    trained = {
        "image_aspect_ratio": config.image_aspect_ratio,
        "resolution": config.resolution,
        "max_visual_tokens": None,
        "output_stride": config.output_stride,
    }
    return trained | options


def tokens_of(shape: tuple[int, int], config: ConvLlavaConfig) -> int:
    """Return the visual tokens of a shown shape."""
    return num_image_tokens(*shape, config.output_stride)


def policies(
    config: ConvLlavaConfig, resolutions: Sequence[int] = RESOLUTIONS, budgets: Sequence[int] = BUDGETS
) -> list[Policy]:
    """Return the policies to compare: as trained, padded, native, and native within budgets."""
    found = [Policy(f"as trained ({describe(config)})")]
    for resolution in resolutions:
        found.append(Policy(f"pad {resolution}", {"image_aspect_ratio": "pad", "resolution": resolution}))
    for resolution in resolutions:
        found.append(Policy(f"native {resolution}", {"image_aspect_ratio": "native", "resolution": resolution}))
    own = {"image_aspect_ratio": "native", "resolution": None}
    found.append(Policy("native, own size", own))
    found += [Policy(f"native, {budget} tokens", own | {"max_visual_tokens": budget}) for budget in budgets]
    return found


def describe(config: ConvLlavaConfig) -> str:
    """Say in words how a model was trained to see."""
    size = "own size" if config.resolution is None else str(config.resolution)
    return f"{config.image_aspect_ratio}, {size}"


def is_elongated(height: int, width: int) -> bool:
    """Tell whether padding would waste a fifth or more of the tokens."""
    return max(height, width) >= ELONGATED * min(height, width)


@dataclass(frozen=True)
class Choice:
    """What to do with the images of one request.

    Attributes:
        options: Image options that differ from how the model was trained; empty where nothing does.
        shapes: (height, width) at which each image is shown.
        visual_tokens: Of all of them.
        shrunk: A budget made them smaller than they would have been.
        reason: In words.
    """

    options: dict[str, Any]
    shapes: tuple[tuple[int, int], ...]
    visual_tokens: int
    shrunk: bool
    reason: str


def allows_auto(config: ConvLlavaConfig) -> bool:
    """Tell whether a model was trained on images of any size, so that choosing one changes nothing it knows.

    Released checkpoints were trained at one resolution and keep it unless somebody asks.
    """
    return config.image_aspect_ratio == "native" and config.resolution is None


def choose(
    sizes: Sequence[tuple[int, int]],
    config: ConvLlavaConfig,
    *,
    image_aspect_ratio: str | None = None,
    max_visual_tokens: int | None = None,
) -> Choice:
    """Choose how to show the images of one request.

    Args:
        sizes: (height, width) of each image, upright.
        config: Of the model.
        image_aspect_ratio: Only this one.
        max_visual_tokens: Of one image, from whatever budget; they are then as large as fits at their own shape.

    Raises:
        ValueError: There is no image, or the options contradict each other.
    """
    if not sizes:
        raise ValueError("there is no image to choose a size for")
    options, reason = _by_shape(sizes, config, image_aspect_ratio)
    if max_visual_tokens is not None:
        options, reason = _within(max_visual_tokens, sizes, config, options, reason)
    shrunk = "max_visual_tokens" in options
    shapes = tuple(resized_shape(*size, **image_options(config, options)) for size in sizes)
    return Choice(options, shapes, sum(tokens_of(shape, config) for shape in shapes), shrunk, reason)


def _within(
    budget: int, sizes: Sequence[tuple[int, int]], config: ConvLlavaConfig, options: dict[str, Any], reason: str
) -> tuple[dict[str, Any], str]:
    """Add the budget to the options where it is needed, and say so."""
    limited = options | {"max_visual_tokens": budget}
    try:
        free = [resized_shape(*size, **image_options(config, options)) for size in sizes]
    except ValueError:  # too many pixels to be made at all; whatever else is wrong is also wrong within the budget
        return limited, f"{reason}; shrunk to at most {budget} tokens"
    wanted = max(tokens_of(shape, config) for shape in free)
    if wanted <= budget:
        return options, reason
    return limited, f"{reason}; shrunk from {wanted} to at most {budget} tokens"


def _by_shape(
    sizes: Sequence[tuple[int, int]], config: ConvLlavaConfig, aspect: str | None
) -> tuple[dict[str, Any], str]:
    if aspect is not None and aspect != config.image_aspect_ratio:
        resolution = config.resolution or _covering_side(sizes, config.output_stride)
        return {"image_aspect_ratio": aspect, "resolution": resolution}, f"{aspect}, as asked"
    if not isinstance(config.vision_config, ConvLlavaVisionConfig):
        return {}, f"the vision encoder takes one shape only ({describe(config)})"
    if config.image_aspect_ratio == "native":
        return {}, f"the model was trained on any shape ({describe(config)})"
    elongated = next((size for size in sizes if is_elongated(*size)), None)
    if aspect is not None or elongated is None:
        why = "as asked" if aspect is not None else "nearly square: the trained square is best (paper, Table 7)"
        return {}, f"{describe(config)}; {why}"
    height, width = elongated
    waste = 1 - min(elongated) / max(elongated)
    reason = f"{width}x{height} is elongated: a square would waste {waste:.0%} of its tokens (paper, Table 7)"
    return {"image_aspect_ratio": "native"}, f"native, short side {config.resolution}; {reason}"


def _covering_side(sizes: Sequence[tuple[int, int]], stride: int) -> int:
    """Return the smallest side of whole cells that shows the largest image at its own size."""
    return -(-max(max(size) for size in sizes) // stride) * stride
