"""Boxes in answers, as the grounding script of the paper's authors reads and compares them.

Everything is computed in float32, as there: at an overlap of exactly one half that decides.
"""

import re
from collections.abc import Sequence

import numpy as np

from ...geometry import Box, square_padding

# The first bracketed text on a line with three commas; how a number is written is judged afterwards, so
# that an earlier bracket without numbers spoils a later good one, as in the reference.
_FIRST_BRACKET = re.compile(r"\[+(.*?),(.*?),(.*?),(.*?)\]")

_SUM_OF_THOUSANDTHS = 4
"""Four fractions add up to less; from here on they are read as thousandths."""


def parse_box(text: str) -> Box | None:
    """Return the four numbers of the first ``[a, b, c, d]`` of an answer as they are written, or None."""
    found = _FIRST_BRACKET.search(text)
    if not found:
        return None
    try:
        x0, y0, x1, y1 = map(float, found.groups())
    except ValueError:
        return None
    return x0, y0, x1, y1


def box_iou(a: Sequence[float] | np.ndarray, b: Sequence[float] | np.ndarray) -> float:
    """Return intersection over union of two boxes (x0, y0, x1, y1) in the same coordinates.

    Areas are width times height, negative ones too: a box with its corners in the wrong order gives a value
    below any threshold, or NaN; two boxes without area give NaN.
    """
    first, second = np.array(a, dtype=np.float32), np.array(b, dtype=np.float32)
    with np.errstate(all="ignore"):
        sides = (np.minimum(first[2:], second[2:]) - np.maximum(first[:2], second[:2])).clip(min=0)
        overlap = sides[0] * sides[1]
        return float(overlap / (_area(first) + _area(second) - overlap))


def grounding_hit(text: str, gt_xyxy: Sequence[float], width: int, height: int, *, threshold: float = 0.5) -> bool:
    """Return whether the first box written in an answer overlaps the true one.

    Args:
        text: An answer with a box in fractions of the padded square, or in thousandths of it.
        gt_xyxy: The true box in pixels of the ``width`` x ``height`` image.
        width: Of the image, in pixels.
        height: Of the image, in pixels.
        threshold: Smallest intersection over union that counts.
    """
    box = parse_box(text)
    return box is not None and box_iou(_in_pixels(box, width, height), gt_xyxy) >= threshold


def _in_pixels(box: Box, width: int, height: int) -> np.ndarray:
    side, left, top = square_padding(width, height)
    with np.errstate(all="ignore"):
        numbers = np.array(box, dtype=np.float32)
        if numbers.sum() >= _SUM_OF_THOUSANDTHS:
            numbers = numbers / np.float32(1000)
        pixels: np.ndarray = numbers * np.float32(side) - np.array([left, top, left, top], dtype=np.float32)
    return pixels


def _area(box: np.ndarray) -> np.float32:
    width, height = box[2:] - box[:2]
    return np.float32(width * height)
