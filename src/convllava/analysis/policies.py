"""Ways to show an image to a model, what each costs, and which to take.

A policy is a set of image options. The rule of choice is the paper's Table 7: a model trained on padded squares
answers slightly worse on nearly square images shown in their own shape (SEED 70.2 against 68.9) and clearly better
on pages (DocVQA 59.0 against 65.0), because padding wastes pixels on elongated ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ..constants import RESOLUTIONS
from ..image_options import ImageOptions
from ..model import ConvLlavaConfig, ConvLlavaVisionConfig, num_image_tokens, resized_shape
from .budget import SHARE_FOR_ANSWERS, context_of, tokens_in_context

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
class SizeChoice:
    """Size at which the images of one request are shown.

    Attributes:
        options: Image options that differ from the model's training; empty where none does.
        shapes: (height, width) at which each image is shown.
        visual_tokens: Visual tokens of all images together.
        shrunk: Whether a token limit made the images smaller.
        enlarged: Whether an image was smaller than those of the model's training and is shown larger.
        reason: Explanation in words.
    """

    options: ImageOptions
    shapes: tuple[tuple[int, int], ...]
    visual_tokens: int
    shrunk: bool
    enlarged: bool
    reason: str


def allows_auto(config: ConvLlavaConfig) -> bool:
    """Return whether a model was trained on images of any size, so that a chosen size is as in training.

    Released checkpoints were trained at one resolution and keep it unless another is asked for.
    """
    return config.image_aspect_ratio == "native" and config.resolution is None


def choose_size(
    sizes: Sequence[tuple[int, int]],
    config: ConvLlavaConfig,
    options: ImageOptions = ImageOptions(),  # noqa: B008, immutable
    *,
    text_tokens: int | None = None,
    reserved: int | None = None,
    token_limit: int | None = None,
) -> SizeChoice:
    """Choose the size at which the images of one request are shown, the one rule of ``ask``, ``chat`` and the server.

    Images stay within the visual tokens of the model's training, where the checkpoint says how many they were: larger
    ones are shrunk, smaller ones enlarged.

    Args:
        sizes: (height, width) of each image, upright.
        config: Configuration of the model.
        options: Options that are set already: the aspect ratio is kept, and ``max_visual_tokens`` is the limit in
            place of that of the training.
        text_tokens: Tokens of the prompt without images; where given, images are shrunk until all fit the context.
        reserved: Tokens of the context kept for the answer and later turns; by default a quarter of it.
        token_limit: Further limit on the visual tokens of one image, such as that of a time budget.

    Raises:
        ValueError: There is no image, or the options contradict each other.
    """
    if not sizes:
        raise ValueError("there is no image to choose a size for")
    trained_fewest, most = config.visual_token_range or (1, None)
    fewest = options.min_visual_tokens or trained_fewest
    limits = [limit for limit in (options.max_visual_tokens or most, token_limit) if limit is not None]
    if text_tokens is not None:
        kept = context_of(config) // SHARE_FOR_ANSWERS if reserved is None else reserved
        limits.append(tokens_in_context(config, text_tokens=text_tokens, reserved=kept, images=len(sizes)))
    chosen, reason = _by_shape(sizes, config, options.image_aspect_ratio)
    own = _tokens_by_shape(sizes, config, chosen)
    if own is not None and min(own) < (target := min([fewest, *limits])):
        chosen = chosen.merged(ImageOptions(min_visual_tokens=target))
        of_training = ", the fewest in its training" if target == trained_fewest else ""
        reason += f"; enlarged from {min(own)} to about {target} tokens{of_training}"
        own = _tokens_by_shape(sizes, config, chosen)
    if limits and (own is None or max(own) > min(limits)):
        budget = min(limits)
        chosen = chosen.merged(ImageOptions(max_visual_tokens=budget))
        of_training = ", the most in its training" if budget == most else ""
        reason += f"; shrunk {'' if own is None else f'from {max(own)} '}to at most {budget} tokens{of_training}"
    shapes = tuple(resized_shape(*size, **image_options(config, chosen.given())) for size in sizes)
    return SizeChoice(
        options=chosen,
        shapes=shapes,
        visual_tokens=sum(tokens_of(shape, config) for shape in shapes),
        shrunk=chosen.max_visual_tokens is not None,
        enlarged=chosen.min_visual_tokens is not None,
        reason=reason,
    )


def _tokens_by_shape(
    sizes: Sequence[tuple[int, int]], config: ConvLlavaConfig, options: ImageOptions
) -> list[int] | None:
    """Return the visual tokens of each image without a limit; None if one would have more pixels than are allowed."""
    try:
        shapes = [resized_shape(*size, **image_options(config, options.given())) for size in sizes]
    except ValueError:  # any other error occurs with a limit too
        return None
    return [tokens_of(shape, config) for shape in shapes]


def _by_shape(
    sizes: Sequence[tuple[int, int]], config: ConvLlavaConfig, aspect: str | None
) -> tuple[ImageOptions, str]:
    """Return the options for the shapes of these images, and the reason in words."""
    if aspect is not None and aspect != config.image_aspect_ratio:
        resolution = config.resolution or _covering_side(sizes, config.output_stride)
        return ImageOptions(aspect, resolution), f"{aspect}, as asked"
    if not isinstance(config.vision_config, ConvLlavaVisionConfig):
        return ImageOptions(), f"the vision encoder takes one shape only ({describe(config)})"
    if config.image_aspect_ratio == "native":
        return ImageOptions(), f"the model was trained on any shape ({describe(config)})"
    elongated = next((size for size in sizes if is_elongated(*size)), None)
    if aspect is not None or elongated is None:
        why = "as asked" if aspect is not None else "nearly square: the trained square is best (paper, Table 7)"
        return ImageOptions(), f"{describe(config)}; {why}"
    height, width = elongated
    waste = 1 - min(elongated) / max(elongated)
    reason = f"{width}x{height} is elongated: a square would waste {waste:.0%} of its tokens (paper, Table 7)"
    return ImageOptions("native"), f"native, short side {config.resolution}; {reason}"


def _covering_side(sizes: Sequence[tuple[int, int]], stride: int) -> int:
    """Return the smallest side of whole cells that shows the largest image at its own size."""
    return -(-max(max(size) for size in sizes) // stride) * stride
