"""Parsing rules and metrics that several benchmarks share: pure functions that do not need torch.

They follow the evaluation code that published figures come from, bit for bit; reference vectors test them.
"""

import re
from collections.abc import Sequence
from typing import Literal

import numpy as np

from ..geometry import Box, square_padding
from ..metrics import anls, character_error_rate, edit_distance, exact_match

__all__ = [
    "PROFILES",
    "UNKNOWN",
    "Profile",
    "anls",
    "box_iou",
    "character_error_rate",
    "check_profile",
    "edit_distance",
    "exact_match",
    "extract_yes_no",
    "grounding_hit",
    "parse_box",
    "strip_marks",
]

Profile = Literal["paper", "current"]
"""``paper``: VLMEvalKit of April 2024, which the paper's authors ran. ``current``: VLMEvalKit of August 2026."""

PROFILES: tuple[Profile, ...] = ("paper", "current")

UNKNOWN = "Unknown"
"""Result for an answer that is neither yes nor no."""

_MARKS = ';/[]"{}()=+\\_->' + "<@`,?!"
_THOUSANDS = re.compile(r"\d,\d")
_PERIOD_BEFORE_NO_DIGIT = re.compile(r"\.(?!\d)")
_PERIOD_BETWEEN_NO_DIGITS = re.compile(r"(?<!\d)\.(?!\d)")
_MAX_PERIODS = 32
"""Number of periods that VLMEvalKit removes: it passes ``re.UNICODE`` (32) where ``re.sub`` expects a count."""

# The first bracketed text with three commas on one line. Whether its members are numbers is checked afterwards: as in
# the reference, a bracket without numbers hides a valid one behind it.
_FIRST_BRACKET = re.compile(r"\[+(.*?),(.*?),(.*?),(.*?)\]")

_MIN_SUM_OF_THOUSANDTHS = 4
"""Sum of the four numbers from which on they are read as thousandths; four fractions add up to less."""


def check_profile(profile: str) -> None:
    """Check the name of a profile.

    Raises:
        ValueError: The profile is unknown.
    """
    if profile not in PROFILES:
        raise ValueError(f"profile must be one of {', '.join(PROFILES)}, got {profile!r}")


def strip_marks(text: str, *, profile: Profile = "paper") -> str:
    """Remove punctuation or replace it with blanks, then remove periods (VQA evaluation).

    Args:
        text: An answer.
        profile: ``paper`` removes a period unless a digit follows; ``current`` also keeps it behind a digit.
    """
    has_thousands = _THOUSANDS.search(text) is not None
    stripped = text
    for mark in _MARKS:
        removed = has_thousands or mark + " " in text or " " + mark in text
        stripped = stripped.replace(mark, "" if removed else " ")
    period = _PERIOD_BEFORE_NO_DIGIT if profile == "paper" else _PERIOD_BETWEEN_NO_DIGITS
    return period.sub("", stripped, count=_MAX_PERIODS)


def extract_yes_no(prediction: str, *, profile: Profile = "paper") -> str:
    """Return "Yes" or "No" if exactly one of the two words is in an answer, else "Unknown".

    Raises:
        ValueError: The profile is unknown.
    """
    check_profile(profile)
    words = set(strip_marks(prediction.lower(), profile=profile).split())
    if ("yes" in words) == ("no" in words):
        return UNKNOWN
    return "Yes" if "yes" in words else "No"


def parse_box(text: str) -> Box | None:
    """Return the four numbers of the first ``[a, b, c, d]`` in an answer, unscaled, or None."""
    found = _FIRST_BRACKET.search(text)
    if not found:
        return None
    try:
        x0, y0, x1, y1 = map(float, found.groups())
    except ValueError:
        return None
    return x0, y0, x1, y1


def box_iou(a: Sequence[float] | np.ndarray, b: Sequence[float] | np.ndarray) -> float:
    """Return the intersection over union of two boxes (x0, y0, x1, y1), as the paper's grounding script computes it.

    It is computed in float32, which decides at an overlap of exactly one half. An area is width times height, also
    where these are negative: a box with its corners in the wrong order gives a value below any threshold, or NaN. Two
    boxes without area give NaN.
    """
    first, second = np.array(a, dtype=np.float32), np.array(b, dtype=np.float32)
    with np.errstate(all="ignore"):
        sides = (np.minimum(first[2:], second[2:]) - np.maximum(first[:2], second[:2])).clip(min=0)
        overlap = sides[0] * sides[1]
        return float(overlap / (_area(first) + _area(second) - overlap))


def grounding_hit(text: str, true_box: Sequence[float], width: int, height: int, *, threshold: float = 0.5) -> bool:
    """Return whether the first box in an answer overlaps the true one.

    Args:
        text: An answer with a box in fractions of the padded square, or in thousandths of it.
        true_box: The true box (x0, y0, x1, y1) in pixels of the ``width`` x ``height`` image.
        width: Width of the image in pixels.
        height: Height of the image in pixels.
        threshold: Smallest intersection over union of a hit.
    """
    box = parse_box(text)
    return box is not None and box_iou(_box_in_pixels(box, width, height), true_box) >= threshold


def _box_in_pixels(box: Box, width: int, height: int) -> np.ndarray:
    side, left, top = square_padding(width, height)
    with np.errstate(all="ignore"):
        numbers = np.array(box, dtype=np.float32)
        if numbers.sum() >= _MIN_SUM_OF_THOUSANDTHS:
            numbers = numbers / np.float32(1000)
        pixels: np.ndarray = numbers * np.float32(side) - np.array([left, top, left, top], dtype=np.float32)
    return pixels


def _area(box: np.ndarray) -> np.float32:
    width, height = box[2:] - box[:2]
    return np.float32(width * height)
