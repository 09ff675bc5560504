"""How images are shown to a model: options of the command line, ``--resolution auto`` and time budgets."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..analysis import Choice
    from ..model import ConvLlavaForConditionalGeneration, ConvLlavaProcessor

AUTO = "auto"

SHARE_FOR_ANSWERS = 4
"""One part in so many of the context is kept for an answer whose length nobody has set."""


@dataclass(frozen=True)
class Wish:
    """What the user said about size; None is nothing.

    Raises:
        ValueError: The resolution is neither a number nor auto.
    """

    image_aspect_ratio: str | None = None
    resolution: str | None = None
    max_visual_tokens: int | None = None
    max_ttft_ms: float | None = None

    def __post_init__(self) -> None:
        if self.resolution not in (None, AUTO) and not str(self.resolution).lstrip("-").isdigit():
            raise ValueError(f"--resolution {self.resolution!r}: give a number of pixels, or auto")

    @property
    def pixels(self) -> int | None:
        """The resolution, if it is a number."""
        return None if self.resolution in (None, AUTO) else int(str(self.resolution))

    @property
    def options(self) -> dict[str, Any]:
        """Image options that were given outright."""
        given = {
            "image_aspect_ratio": self.image_aspect_ratio,
            "resolution": self.pixels,
            "max_visual_tokens": self.max_visual_tokens,
        }
        return {name: value for name, value in given.items() if value is not None}

    def wants_auto(self, config: Any) -> bool:
        """Tell whether sizes are chosen: on demand, and by default where a model was trained on any size."""
        from ..analysis import allows_auto

        if self.resolution is None:
            return self.image_aspect_ratio is None and allows_auto(config)
        return self.resolution == AUTO


@dataclass(frozen=True)
class Showing:
    """Image options of a request, and how they came about."""

    options: dict[str, Any]
    choice: "Choice | None"

    @property
    def remark(self) -> str:
        """What the user should know: images that were made smaller than asked for, or nothing."""
        if self.choice is None or not self.choice.shrunk:
            return ""
        shown = ", ".join(f"{width}x{height}" for height, width in self.choice.shapes)
        return f"shown at {shown} ({self.choice.visual_tokens} visual tokens): {self.choice.reason}"

    def report(self) -> dict[str, Any] | None:
        """Return what ``--json`` prints."""
        return None if self.choice is None else {"options": self.options, "reason": self.choice.reason}


def decide(
    wish: Wish,
    loaded: "tuple[ConvLlavaForConditionalGeneration, ConvLlavaProcessor]",
    images: Sequence[Any],
    question: str,
    *,
    reserved: int | None,
    model_name: str,
) -> Showing:
    """Turn what the user said into image options for these images.

    Args:
        wish: From the command line.
        loaded: Model and processor.
        images: Opened, upright.
        question: Of the user.
        reserved: Tokens to keep for the answer; None keeps a part of the context.
        model_name: For messages.

    Raises:
        ValueError: A time cannot be kept, nobody has calibrated, or an option is wrong.
    """
    from ..analysis import choose

    config = loaded[0].config
    sizes = [(image.height, image.width) for image in images]
    auto = wish.wants_auto(config)
    if not sizes or not (auto or wish.max_ttft_ms is not None):
        return Showing(wish.options, None)
    most = _most_tokens(wish, loaded, sizes, question, auto=auto, reserved=reserved, model_name=model_name)
    if not auto:
        return Showing(wish.options | {"max_visual_tokens": most}, None)
    choice = choose(sizes, config, image_aspect_ratio=wish.image_aspect_ratio, max_visual_tokens=most)
    return Showing(choice.options, choice)


def _most_tokens(
    wish: Wish,
    loaded: "tuple[ConvLlavaForConditionalGeneration, ConvLlavaProcessor]",
    sizes: Sequence[tuple[int, int]],
    question: str,
    *,
    auto: bool,
    reserved: int | None,
    model_name: str,
) -> int:
    """Return the least of all limits on one image."""
    from ..analysis import context_of, tokens_in_context

    model, processor = loaded
    text_tokens = _text_tokens(processor, question, len(sizes))
    limits = [] if wish.max_visual_tokens is None else [wish.max_visual_tokens]
    if auto:
        kept = context_of(model.config) // SHARE_FOR_ANSWERS if reserved is None else reserved
        limits.append(tokens_in_context(model.config, text_tokens=text_tokens, reserved=kept, images=len(sizes)))
    if wish.max_ttft_ms is not None:
        limits.append(_tokens_in_time(wish.max_ttft_ms, model, sizes, text_tokens, model_name))
    return min(limits)


def _tokens_in_time(
    milliseconds: float,
    model: "ConvLlavaForConditionalGeneration",
    sizes: Sequence[tuple[int, int]],
    text_tokens: int,
    model_name: str,
) -> int:
    from ..analysis import load_calibration, tokens_in_time
    from .cost import require_calibration

    dtype = str(model.dtype).removeprefix("torch.")
    calibration = require_calibration(load_calibration(model.config, model.device, dtype), model_name)
    return tokens_in_time(
        calibration,
        milliseconds / 1000,
        source_size=max(sizes, key=lambda size: size[0] * size[1]),
        stride=model.config.output_stride,
        text_tokens=text_tokens,
        images=len(sizes),
    )


def _text_tokens(processor: "ConvLlavaProcessor", question: str, images: int) -> int:
    from ..inference import question_message

    prompt = processor.render([question_message(question, images)], add_generation_prompt=True)
    return len(processor.tokenizer(prompt)["input_ids"]) - images  # each stands there as one token
