"""The text at each position of an encoder's feature map, as a training target for the encoder.

Each position is trained to spell the part of the image that it covers.
"""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

from .options import Size

POSITION_END = "\t"
"""Separator of the texts of two positions, in row-major order."""

LINE_END = "\n"
"""Separator of two lines of marks at one position."""


class Mark(NamedTuple):
    """A character or the name of an object, and its center in pixels."""

    text: str
    x: float
    y: float


def position_of(mark: Mark, size: Size, stride: int) -> tuple[int, int]:
    """Return (row, column) of the position of ``stride`` x ``stride`` pixels that holds a mark's center."""
    height, width = size
    row, column = int(mark.y // stride), int(mark.x // stride)
    return min(max(row, 0), height // stride - 1), min(max(column, 0), width // stride - 1)


def spell_positions(lines: Iterable[Sequence[Mark]], size: Size, stride: int) -> str:
    """Return the texts of all positions of an image of ``size`` (height, width), most of them empty or short.

    Two lines at one position, 64 pixels wide, and nothing at the next::

        "Tot\\nMil\\t"
    """
    height, width = size
    texts = {(row, column): "" for row in range(height // stride) for column in range(width // stride)}
    for marks in lines:
        begun: set[tuple[int, int]] = set()
        for mark in marks:
            position = position_of(mark, size, stride)
            if position not in begun and texts[position]:
                texts[position] += LINE_END
            begun.add(position)
            texts[position] += mark.text
    return POSITION_END.join(texts.values())


def steps_needed(spelled: str) -> int:
    """Return the CTC predictions that the longest text of a position needs: one a character, one between equal ones."""
    texts = spelled.split(POSITION_END)
    return max(len(text) + sum(a == b for a, b in pairwise(text)) for text in texts)


def check_stride(stride: int, sizes: Iterable[Size]) -> None:
    """Raise ``ValueError`` unless ``stride`` is 0 (positions are not spelled) or divides all sides."""
    if not isinstance(stride, int) or stride < 0:
        raise ValueError(f"stride must be a whole number of pixels, got {stride!r}")
    for height, width in sizes:
        if stride and (height % stride or width % stride):
            raise ValueError(f"size {height}x{width} is not a multiple of stride {stride}; change one of them")
