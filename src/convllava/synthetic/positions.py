"""What stands in each cell of an image's grid.

The densest lesson there is for an encoder with cells of that size: each learns to spell what it covers.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from .options import Size

POSITION_END = "\t"
"""Between the texts of two cells; the cells follow each other row by row, as an encoder puts them out."""

LINE_END = "\n"
"""Between two rows of marks that share a cell."""


class Mark(NamedTuple):
    """A character or a item, and the middle of its place in pixels."""

    text: str
    x: float
    y: float


def position_of(mark: Mark, size: Size, cell: int) -> tuple[int, int]:
    """Return (row, column) of the cell of ``cell`` x ``cell`` pixels that a mark's middle lies in."""
    height, width = size
    row, column = int(mark.y // cell), int(mark.x // cell)
    return min(max(row, 0), height // cell - 1), min(max(column, 0), width // cell - 1)


def spell_positions(rows: Iterable[Sequence[Mark]], size: Size, cell: int) -> str:
    """Return the texts of all cells of an image of ``size`` (height, width), most of them empty or short.

    Two rows in one cell, 64 pixels wide, and nothing in the next::

        "Tot\\nMil\\t"
    """
    height, width = size
    texts = {(row, column): "" for row in range(height // cell) for column in range(width // cell)}
    for marks in rows:
        begun: set[tuple[int, int]] = set()
        for mark in marks:
            place = position_of(mark, size, cell)
            if place not in begun and texts[place]:
                texts[place] += LINE_END
            begun.add(place)
            texts[place] += mark.text
    return POSITION_END.join(texts.values())


def check_stride(cell: int, sizes: Iterable[Size]) -> None:
    """Raise ``ValueError`` unless ``cell`` is 0 (no cells are spelled) or divides all sides."""
    if not isinstance(cell, int) or cell < 0:
        raise ValueError(f"cell must be a whole number of pixels, got {cell!r}")
    for height, width in sizes:
        if cell and (height % cell or width % cell):
            raise ValueError(f"size {height}x{width} is no multiple of cell {cell}; change one of them")
