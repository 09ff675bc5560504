"""Boxes and the virtual padded square: pure functions on numbers.

A box is ``(x0, y0, x1, y1)``. In pixels it refers to the original image. In text it is written with two
decimals on the *virtual padded square*: the image centered in a square as wide as its longer side, whatever the
aspect policy the model was given (the convention of the LLaVA-1.5 grounding data).
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

Box = tuple[float, float, float, float]

_NUMBER = r"\s*(\d+(?:\.\d+)?|\.\d+)\s*"
_BOX_IN_TEXT = re.compile(r"\[" + ",".join([_NUMBER] * 4) + r"\]")


class SquarePadding(NamedTuple):
    """Position of an image on its padded square, in pixels."""

    side: int
    left: int
    top: int


def square_padding(width: int, height: int) -> SquarePadding:
    """Return the side of the padded square and the integer offsets of the image on it."""
    if width < 1 or height < 1:
        raise ValueError(f"an image has at least one pixel a side, got {width}x{height}")
    side = max(width, height)
    return SquarePadding(side, (side - width) // 2, (side - height) // 2)


def box_to_square(box: Sequence[float], width: int, height: int) -> Box:
    """Map a box from pixels of a ``width`` x ``height`` image to fractions of its padded square."""
    x0, y0, x1, y1 = box
    side, left, top = square_padding(width, height)
    return ((x0 + left) / side, (y0 + top) / side, (x1 + left) / side, (y1 + top) / side)


def box_from_square(box: Sequence[float], width: int, height: int) -> Box:
    """Map a box from fractions of the padded square back to pixels of the image; not clipped to it."""
    x0, y0, x1, y1 = box
    side, left, top = square_padding(width, height)
    return (x0 * side - left, y0 * side - top, x1 * side - left, y1 * side - top)


def clip_box(box: Sequence[float], width: int, height: int) -> Box:
    """Cut a pixel box at the image's edges."""
    x0, y0, x1, y1 = box
    return (
        min(max(x0, 0.0), width),
        min(max(y0, 0.0), height),
        min(max(x1, 0.0), width),
        min(max(y1, 0.0), height),
    )


def box_iou(a: Sequence[float], b: Sequence[float]) -> float:
    """Intersection over union of two boxes in the same coordinates; 0.0 when both are empty."""
    overlap_width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    overlap_height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    overlap = overlap_width * overlap_height
    union = _area(a) + _area(b) - overlap
    return overlap / union if union > 0 else 0.0


def format_box(box: Sequence[float]) -> str:
    """Write a box of fractions as it stands in prompts and answers: ``[0.12, 0.34, 0.56, 0.78]``."""
    return "[" + ", ".join(f"{value:.2f}" for value in box) + "]"


def find_boxes(text: str) -> list[Box]:
    """Return every ``[x0, y0, x1, y1]`` written in ``text``, in order, as fractions."""
    return [(float(x0), float(y0), float(x1), float(y1)) for x0, y0, x1, y1 in _BOX_IN_TEXT.findall(text)]


def _area(box: Sequence[float]) -> float:
    return max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1])
