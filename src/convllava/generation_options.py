"""Options of generation that are numbers, and their ranges; without torch, so that a wrong one is told at once."""

import math
from typing import Any

MAX_TEMPERATURE = 100.0
"""Maximum temperature, at which all tokens are about equally likely."""

MAX_NGRAM = 1000
"""Maximum length of the token sequences that may be forbidden to occur twice."""

MAX_TOP_LOGPROBS = 20
"""Maximum number of tokens with log probabilities in the place of one, as OpenAI's."""

GENERATION_OPTIONS: dict[str, tuple[type, float, float]] = {
    "max_new_tokens": (int, 1, math.inf),
    "temperature": (float, 0, MAX_TEMPERATURE),
    "top_p": (float, 0, 1),
    "top_k": (int, 0, math.inf),
    "min_p": (float, 0, 1),
    "seed": (int, -(2**63), 2**64 - 1),
    "repetition_penalty": (float, 0.1, 10),
    "no_repeat_ngram_size": (int, 0, MAX_NGRAM),
    "no_repeat_ngram_window": (int, 1, math.inf),
    "top_logprobs": (int, 0, MAX_TOP_LOGPROBS),
}
"""Type, minimum and maximum of each option."""


def check_generation_option(name: str, value: Any) -> None:
    """Check the value of one option.

    Raises:
        ValueError: It is not a number of the right type and range.
    """
    number, low, high = GENERATION_OPTIONS[name]
    is_number = isinstance(value, int if number is int else (int, float)) and not isinstance(value, bool)
    if is_number and low <= value <= high and (name, value) != ("top_p", 0):
        return
    bounds = f"from {_bound(low)} to {_bound(high)}"
    if name == "top_p":
        bounds = "above 0 and at most 1"
    elif high == math.inf:
        bounds = f"at least {_bound(low)}"
    whole = "a whole number " if number is int and not is_number else ""
    raise ValueError(f"{name} must be {whole}{bounds}, got {_shown(value)}")


def _bound(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:g}"


def _shown(value: Any) -> str:
    if isinstance(value, int) and value.bit_length() > 256:  # repr refuses thousands of digits
        return f"an integer of {value.bit_length()} bits"
    return f"{value!r:.100}"
