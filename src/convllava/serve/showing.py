"""Sizes of images that nobody has set: as the model was trained to see them, smaller where the context is short."""

from collections.abc import Sequence
from typing import Any

from ..analysis import choose, context_of, tokens_in_context

SHARE_FOR_ANSWERS = 4
"""One part in so many of the context is kept for answers and what is said later."""

TEMPLATE_TOKENS = 64
"""Of the prompt format around what is said, at most."""


def with_chosen_size(
    options: dict[str, Any],
    sizes: Sequence[tuple[int, int]],
    config: Any,
    *,
    usual_budget: int | None,
    text_tokens: int,
    answer_tokens: int | None,
) -> dict[str, Any]:
    """Return the image options of a request, with a budget if its images would leave too little of the context.

    Args:
        options: Those that were set, by the client or its `detail`.
        sizes: (height, width) of each image.
        config: Of the model.
        usual_budget: Visual tokens of one image where a request does not say; the server's own setting.
        text_tokens: Said up to the last image. Not what is said later: an image that changed its size from turn to
            turn would have to be read again.
        answer_tokens: Longest answer, if the client has set one.

    Raises:
        ValueError: The options contradict each other.
    """
    if not sizes or not options.keys().isdisjoint(("image_aspect_ratio", "resolution")):
        return options
    reserved = max(context_of(config) // SHARE_FOR_ANSWERS, answer_tokens or 0)
    most = tokens_in_context(config, text_tokens=text_tokens + TEMPLATE_TOKENS, reserved=reserved, images=len(sizes))
    budget = options.get("max_visual_tokens", usual_budget)
    most = most if budget is None else min(most, budget)
    return options | choose(sizes, config, max_visual_tokens=most).options


def text_before_last_image(messages: Sequence[dict[str, Any]]) -> str:
    """Return what is said up to and with the message that has the last image."""
    with_images = [number for number, message in enumerate(messages) if _has_image(message)]
    until = with_images[-1] + 1 if with_images else 0
    return "\n".join(_text(message) for message in messages[:until])


def _has_image(message: dict[str, Any]) -> bool:
    content = message["content"]
    return not isinstance(content, str) and any(part["type"] == "image" for part in content)


def _text(message: dict[str, Any]) -> str:
    content = message["content"]
    return content if isinstance(content, str) else " ".join(part.get("text", "") for part in content)
