"""Budgets of context length and of time, as visual tokens per image."""

from collections.abc import Callable

from ..model import ConvLlavaConfig
from .calibration import Calibration

SHARE_FOR_ANSWERS = 4
"""Divisor of the context length: the part of it kept for an answer whose length is not set."""


def context_of(config: ConvLlavaConfig) -> int:
    """Return the context length of the language model, in tokens."""
    return int(config.get_text_config(decoder=True).max_position_embeddings)


def tokens_in_context(config: ConvLlavaConfig, *, text_tokens: int, reserved: int, images: int = 1) -> int:
    """Return the visual tokens per image with which all images, the text and an answer fit the context.

    Args:
        config: Configuration of the model.
        text_tokens: Text tokens of the prompt.
        reserved: Tokens kept for the answer and later turns.
        images: Number of images in the prompt.

    Returns:
        At least 1: where not even that fits, the prompt itself is too long, and generation raises the error.
    """
    return max(1, (context_of(config) - text_tokens - reserved) // images)


def tokens_in_time(
    calibration: Calibration,
    seconds: float,
    *,
    source_size: tuple[int, int],
    stride: int,
    text_tokens: int,
    images: int = 1,
    upper_bound: int = 1 << 16,
) -> int:
    """Return the maximum visual tokens per image with which the first token comes in time.

    Args:
        calibration: Calibration of the model on this device.
        seconds: Allowed time to the first token.
        source_size: (height, width) of the image file, which is decoded at any target size.
        stride: Pixels per visual token and side.
        text_tokens: Text tokens of the prompt.
        images: Number of images of this size in the request.
        upper_bound: Largest number of visual tokens that is considered.

    Raises:
        ValueError: A single visual token already takes too long; the message has both times.
    """

    def estimate(tokens: int) -> float:
        shown = (stride, stride * tokens)
        return calibration.first_token_seconds(
            source_size, shown, visual_tokens=tokens, text_tokens=text_tokens, images=images
        )

    if estimate(1) > seconds:
        raise ValueError(
            f"a first token in {seconds * 1000:.0f} ms cannot be reached: with one visual token it is estimated at "
            f"{estimate(1) * 1000:.0f} ms here ({calibration.device}, {calibration.dtype}); allow more time or scale "
            "the image down"
        )
    return _largest(lambda tokens: estimate(tokens) <= seconds, upper_bound)


def _largest(holds: Callable[[int], bool], upper_bound: int) -> int:
    """Return the largest number up to ``upper_bound`` for which a monotone condition holds; it must hold at 1."""
    low, high = 1, upper_bound + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low
