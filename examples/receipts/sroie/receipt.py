"""A receipt with its annotation, and the reading order of its text."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

FIELDS = ("company", "date", "address", "total")
"""The key fields that SROIE annotates."""

PixelBox = tuple[int, int, int, int]
"""(x0, y0, x1, y1) in pixels."""

_LETTERS_AND_DIGITS = re.compile(r"[^0-9A-Z]+")


@dataclass(frozen=True)
class TextLine:
    """An annotated piece of text: often one column of a line rather than the complete line."""

    box: PixelBox
    text: str


@dataclass(frozen=True)
class Receipt:
    """An image and its annotation.

    Attributes:
        name: File name without its ending, with the part's name as prefix where there is one; unique.
        image: Path of the image.
        size: (height, width) of the image in pixels.
        fields: Values of some of ``FIELDS``; empty ones are left out.
        lines: Pieces of text in the order of the annotation.
        part: ``train`` or ``test`` where the data come split, else None.
        fingerprint: Hash of the image's file.
    """

    name: str
    image: Path
    size: tuple[int, int]
    fields: dict[str, str]
    lines: tuple[TextLine, ...]
    part: str | None = None
    fingerprint: str = ""


Row = tuple[TextLine, ...]
"""Pieces of text on one line, from left to right."""


def reading_rows(lines: Iterable[TextLine]) -> list[Row]:
    """Return the pieces row by row from the top; the order of the annotation does not matter.

    A piece belongs to a row if its center is between the upper and lower edge of the row's first piece.
    """
    rows: list[list[TextLine]] = []
    for line in sorted(lines, key=lambda line: (_center(line), line.box[0])):
        last = rows[-1][0].box if rows else None
        if last is not None and last[1] <= _center(line) <= last[3]:
            rows[-1].append(line)
        else:
            rows.append([line])
    return [tuple(sorted(row, key=lambda line: line.box[0])) for row in rows]


def row_text(row: Row) -> str:
    """Return a row's text: its pieces joined by a space."""
    return " ".join(line.text for line in row)


def enclosing_box(lines: Iterable[TextLine]) -> PixelBox:
    """Return the smallest box around all pieces."""
    x0s, y0s, x1s, y1s = zip(*(line.box for line in lines), strict=True)
    return min(x0s), min(y0s), max(x1s), max(y1s)


def rows_of_field(rows: Sequence[Row], field: str, value: str) -> tuple[int, int] | None:
    """Return the first and last row that show a field's value, or None if no row does.

    Only letters and digits are compared: annotations differ from the print in commas and case. A total in several rows
    is taken from the last row with the word "total", or else from the last row.
    """
    wanted = comparable(value)
    if not wanted:
        return None
    if field == "address":
        return _rows_of_address(rows, wanted)
    holding = [number for number, row in enumerate(rows) if any(wanted in comparable(line.text) for line in row)]
    if not holding:
        return None
    if field != "total":
        return holding[0], holding[0]
    named = [number for number in holding if "TOTAL" in comparable(row_text(rows[number]))]
    chosen = (named or holding)[-1]
    return chosen, chosen


def comparable(text: str) -> str:
    """Return a text's letters and digits, in capitals."""
    return _LETTERS_AND_DIGITS.sub("", text.upper())


def _rows_of_address(rows: Sequence[Row], wanted: str) -> tuple[int, int] | None:
    """Return the longest run of rows that make up the address."""
    best: tuple[int, int] | None = None
    for first in range(len(rows)):
        joined = ""
        for last in range(first, len(rows)):
            joined += comparable(row_text(rows[last]))
            if not joined or joined not in wanted:
                break
            if best is None or last - first > best[1] - best[0]:
                best = first, last
    return best


def _center(line: TextLine) -> float:
    return (line.box[1] + line.box[3]) / 2
