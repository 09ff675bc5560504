"""Budgets to visual tokens: how much fits into the context, and into a time."""

from collections.abc import Callable

from ..model import ConvLlavaConfig
from .calibration import Calibration


def context_of(config: ConvLlavaConfig) -> int:
    """Return the positions that the language model has."""
    return int(config.get_text_config(decoder=True).max_position_embeddings)


def tokens_in_context(config: ConvLlavaConfig, *, text_tokens: int, reserved: int, images: int = 1) -> int:
    """Return the visual tokens one image may take so that all images, the text and an answer fit.

    Args:
        config: Of the model.
        text_tokens: Of the prompt, images aside.
        reserved: For the answer and what is said later.
        images: That share what is left.

    Returns:
        At least 1: where not even that fits, the prompt itself is too long, and whoever runs it says so.
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
    most: int = 1 << 16,
) -> int:
    """Return the most visual tokens of one image with which the first token comes in time.

    Args:
        calibration: Measured on this device.
        seconds: Time to the first token.
        source_size: (height, width) of the image, which has to be decoded whatever it becomes.
        stride: Pixels per visual token and side.
        text_tokens: Of the prompt, images aside.
        images: As large as this one, in the same request.
        most: Where to stop looking.

    Raises:
        ValueError: One token is already too slow; the message has both times.
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
    return _last(lambda tokens: estimate(tokens) <= seconds, most)


def _last(holds: Callable[[int], bool], most: int) -> int:
    """Return the largest number up to ``most`` for which a condition holds that holds at 1 and is lost once."""
    low, high = 1, most + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low
