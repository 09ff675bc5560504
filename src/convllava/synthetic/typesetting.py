"""Typesetting of table rows: the place of each cell, whether all fit, and the drawing."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from PIL import Image, ImageDraw

from ..geometry import Box
from .fonts import Face, bold_sibling
from .glyphs import draw_text, ink_box, middles, text_width
from .options import Size
from .positions import Mark

_LEADING = 1.35
"""Height of a row in font sizes."""

_CELL_GAP = 0.7
"""Minimum distance between two spread cells, in font sizes."""


@dataclass(frozen=True)
class Fact:
    """A fact that questions ask for.

    Attributes:
        phrase: A noun phrase for it, such as "the total".
        questions: Questions without that phrase.
    """

    phrase: str
    questions: tuple[str, ...] = ()


@dataclass(frozen=True)
class Cell:
    """Text of a table cell; with a fact, it is the answer to a question."""

    text: str
    fact: Fact | None = None


@dataclass(frozen=True)
class Row:
    """Cells on one line.

    ``align`` is ``left`` or ``center`` (one after another, a space between), ``spread`` (the first at the
    left edge, the others at the right ends of equal columns) or ``tab`` (the second starts at a common stop).
    A row without cells is a gap, or a rule if ``rule`` is set.
    """

    cells: tuple[Cell, ...] = ()
    align: str = "left"
    scale: float = 1.0
    bold: bool = False
    rule: bool = False

    @property
    def text(self) -> str:
        """The cells joined by a space, as in a transcript."""
        return " ".join(cell.text for cell in self.cells)


@dataclass(frozen=True)
class Field:
    """The answer to a question, and the box of its ink in pixels."""

    fact: Fact
    text: str
    box: Box


@dataclass(frozen=True)
class Page:
    """A typeset page.

    Attributes:
        mask: The drawing (mode L, 255 = ink).
        lines: The text of each line, in order.
        fields: The fields that questions ask for.
        marks: The characters of each line with their centers.
    """

    mask: Image.Image
    lines: tuple[str, ...]
    fields: tuple[Field, ...]
    marks: tuple[tuple[Mark, ...], ...] = ()


class Type(NamedTuple):
    """Type of a page: face, font size in pixels per em, margin in pixels, tab stop as a fraction of the width."""

    face: Face
    font_size: int
    margin: int
    tab: float = 0.4


def rows_that_fit(type_: Type, height: int) -> int:
    """Return the number of plain rows that fit a page of that height."""
    return int((height - 2 * type_.margin) / (_LEADING * type_.font_size))


def typeset(rows: Sequence[Row], size: Size, type_: Type, drop: float = 0.0) -> Page | None:
    """Return the rows set on a page of ``size`` (height, width); None if they do not fit.

    ``drop`` is the share of the free space above the first row, from 0 (at the top margin) to 1.
    """
    height, width = size
    free = height - 2 * type_.margin - sum(_row_height(row, type_) for row in rows)
    if free < 0 or not all(_fits(row, width, type_) for row in rows):
        return None
    mask = Image.new("L", (width, height))
    y = type_.margin + drop * free
    fields: list[Field] = []
    marks: list[tuple[Mark, ...]] = []
    for row in rows:
        fields += _draw_row(mask, row, y, type_)
        marks.append(_marks(row, y, width, type_))
        y += _row_height(row, type_)
    return Page(mask, tuple(row.text for row in rows if row.cells), tuple(fields), tuple(filter(None, marks)))


def _row_height(row: Row, type_: Type) -> float:
    return type_.font_size * (_LEADING * row.scale if row.cells else 0.6)


def _face_and_size(row: Row, type_: Type) -> tuple[str, int]:
    face = bold_sibling(type_.face) if row.bold else type_.face
    return face.name, round(type_.font_size * row.scale)


def _spans(row: Row, width: int, type_: Type) -> list[tuple[float, float]]:
    """Return where each cell starts and ends, in pixels from the left margin."""
    face, font_size = _face_and_size(row, type_)
    widths = [text_width(face, font_size, cell.text) for cell in row.cells]
    room, space = width - 2 * type_.margin, text_width(face, font_size, " ")
    starts = _STARTS[row.align](widths, room, space, type_.tab)
    return [(start, start + cell_width) for start, cell_width in zip(starts, widths, strict=True)]


def _fits(row: Row, width: int, type_: Type) -> bool:
    if not row.cells:
        return True
    spans = _spans(row, width, type_)
    gap = _CELL_GAP * type_.font_size * row.scale if row.align == "spread" else 0
    inside = spans[0][0] >= 0 and spans[-1][1] <= width - 2 * type_.margin
    return inside and all(left[1] + gap <= right[0] + 0.01 for left, right in pairwise(spans))


def _start_left(widths: list[int], room: float, space: float, tab: float) -> list[float]:
    return [sum(widths[:index]) + index * space for index in range(len(widths))]


def _start_center(widths: list[int], room: float, space: float, tab: float) -> list[float]:
    starts = _start_left(widths, room, space, tab)
    shift = (room - sum(widths) - space * (len(widths) - 1)) / 2
    return [start + shift for start in starts]


def _start_spread(widths: list[int], room: float, space: float, tab: float) -> list[float]:
    # The first column is as wide as two of the others.
    ends = [room * (index + 2) / (len(widths) + 1) for index in range(len(widths))]
    return [0.0, *(end - width for end, width in zip(ends[1:], widths[1:], strict=True))][: len(widths)]


def _start_tab(widths: list[int], room: float, space: float, tab: float) -> list[float]:
    following = _start_left(widths[1:], room, space, tab)
    return [0.0, *(tab * room + start for start in following)][: len(widths)]


_STARTS = {"left": _start_left, "center": _start_center, "spread": _start_spread, "tab": _start_tab}
"""For each alignment: (widths of the cells, room, width of a space, tab stop) -> where each cell starts."""


def _draw_row(mask: Image.Image, row: Row, y: float, type_: Type) -> list[Field]:
    if row.rule:
        _draw_rule(mask, y + _row_height(row, type_) / 2, type_)
    if not row.cells:
        return []
    face, font_size = _face_and_size(row, type_)
    fields = []
    for cell, (start, _) in zip(row.cells, _spans(row, mask.width, type_), strict=True):
        origin = (round(type_.margin + start), round(y))
        draw_text(mask, origin, cell.text, face, font_size)
        if cell.fact is not None:
            fields.append(Field(cell.fact, cell.text, ink_box(face, font_size, cell.text, origin)))
    return fields


def _marks(row: Row, y: float, width: int, type_: Type) -> tuple[Mark, ...]:
    """Return a row's characters, with a space in the middle of each gap between two cells."""
    face, font_size = _face_and_size(row, type_)
    middle = y + _row_height(row, type_) / 2
    marks: list[Mark] = []
    last_end = 0.0
    for cell, (start, end) in zip(row.cells, _spans(row, width, type_) if row.cells else (), strict=True):
        if marks:
            marks.append(Mark(" ", type_.margin + (last_end + start) / 2, middle))
        places = middles(face, font_size, cell.text, type_.margin + start)
        marks += [Mark(character, x, middle) for character, x in zip(cell.text, places, strict=True)]
        last_end = end
    return tuple(marks)


def _draw_rule(mask: Image.Image, y: float, type_: Type) -> None:
    thickness = max(1, type_.font_size // 14)
    line = (type_.margin, round(y), mask.width - type_.margin, round(y))
    ImageDraw.Draw(mask).line(line, fill=255, width=thickness)
