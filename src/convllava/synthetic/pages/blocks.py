"""Blocks that pages are composed of: lines, rows of cells, tables, rules, panels, columns and stacks of blocks.

A block knows its height when it is made, for a width that its maker knows too; ``place`` puts it onto a page. Texts
fit their room because the maker of a block shortens them first (``shorten``).
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from .facts import Fact
from .page import Color, Fill, Lettering, Page, Piece

ALIGNMENTS = {"left": 0.0, "center": 0.5, "right": 1.0}
"""Share of the free room to the left of a text."""


class Block(Protocol):
    """Anything with a height that can be placed on a page."""

    @property
    def height(self) -> int:
        """Height in pixels."""
        ...

    def place(self, page: Page, x: float, y: float, width: float) -> None:
        """Put the block onto a page with its top left at (x, y)."""
        ...


class Cell(NamedTuple):
    """Text within the room from ``left`` to ``right``, pixels from the left end of its row."""

    text: str
    lettering: Lettering
    left: float
    right: float
    align: str = "left"
    fact: Fact | None = None
    stretch: float = 0.0


@dataclass(frozen=True)
class Row:
    """Cells on one baseline, in reading order."""

    cells: tuple[Cell, ...]
    leader: Color | None = None

    @property
    def height(self) -> int:
        """Height of the highest line."""
        return max(cell.lettering.height for cell in self.cells)

    def place(self, page: Page, x: float, y: float, width: float) -> None:
        """Write the cells as one line of the page."""
        pieces = [self._piece(cell, x) for cell in self.cells]
        page.write(pieces, y)
        if self.leader is not None and len(pieces) == 2:
            first, last = (run.glyphs.ink(run.codes, run.x, run.baseline) for run in page.lines[-1].runs)
            size = self.cells[0].lettering.size
            step, dot = max(4, size // 3), max(1, size // 12)
            bottom = page.lines[-1].runs[0].baseline
            for start in range(round(first[2]) + step, round(last[0]) - step, step):
                page.fills.append(Fill((start, bottom - dot, start + dot, bottom), self.leader))

    def _piece(self, cell: Cell, x: float) -> Piece:
        room = cell.right - cell.left
        free = room - cell.lettering.width(cell.text) if cell.align != "left" else 0
        start = x + cell.left + ALIGNMENTS[cell.align] * free
        return Piece(start, cell.text, cell.lettering, cell.fact, cell.stretch)


@dataclass(frozen=True)
class Gap:
    """Empty room."""

    height: int

    def place(self, page: Page, x: float, y: float, width: float) -> None:
        """Do nothing."""


@dataclass(frozen=True)
class Rule:
    """A horizontal line in the middle of its height: solid, dashed or double."""

    height: int
    color: Color
    thickness: int = 1
    look: str = "solid"

    def place(self, page: Page, x: float, y: float, width: float) -> None:
        """Draw the line."""
        middle = round(y + self.height / 2)
        if self.look == "dashed":
            dash = max(3, self.height // 2)
            for start in range(round(x), round(x + width - dash), 2 * dash):
                page.fills.append(Fill((start, middle, start + dash, middle + self.thickness), self.color))
            return
        for shift in (0, 2 * self.thickness + 1) if self.look == "double" else (0,):
            page.fills.append(Fill((x, middle + shift, x + width, middle + shift + self.thickness), self.color))


@dataclass
class Stack:
    """Blocks below each other."""

    blocks: list[Block] = field(default_factory=list)
    spread: float = 0.0

    @property
    def height(self) -> int:
        """Sum of the heights."""
        return sum(block.height for block in self.blocks)

    def place(self, page: Page, x: float, y: float, width: float) -> None:
        """Place the blocks; ``spread`` pixels are added between two of them."""
        for block in self.blocks:
            block.place(page, x, y, width)
            y += block.height + self.spread


@dataclass(frozen=True)
class Panel:
    """A block with a margin, on a filled or outlined rectangle."""

    block: Block
    padding: int
    color: Color | None = None
    outline: Color | None = None
    radius: int = 0
    thickness: int = 1

    @property
    def height(self) -> int:
        """Height of the rectangle."""
        return self.block.height + 2 * self.padding

    def place(self, page: Page, x: float, y: float, width: float) -> None:
        """Draw the rectangle and place the block on it."""
        box = (x, y, x + width, y + self.height)
        page.fills.append(Fill(box, self.color, self.outline, self.radius, self.thickness))
        self.block.place(page, x + self.padding, y + self.padding, width - 2 * self.padding)


@dataclass(frozen=True)
class Columns:
    """Blocks next to each other, read one after the other; each has a left end and a width in pixels.

    With ``joined``, blocks of one line each are read as one line.
    """

    blocks: tuple[tuple[Block, float, float], ...]
    divider: Color | None = None
    joined: bool = False

    @property
    def height(self) -> int:
        """Height of the highest block."""
        return max(block.height for block, _, _ in self.blocks)

    def place(self, page: Page, x: float, y: float, width: float) -> None:
        """Place the blocks, all at the same height."""
        before = len(page.lines)
        for index, (block, left, column) in enumerate(self.blocks):
            block.place(page, x + left, y, column)
            if index and self.divider is not None:
                middle = round(x + (left + self.blocks[index - 1][1] + self.blocks[index - 1][2]) / 2)
                page.fills.append(Fill((middle, y, middle + 1, y + self.height), self.divider))
        if self.joined:
            page.join_lines(before)


class TableLook(NamedTuple):
    """Lines and shades of a table.

    Attributes:
        lines: ``none``, ``head`` (below the head), ``rows`` (between rows), ``grid`` or ``box`` (around the table).
        color: Color of the lines.
        padding: Pixels above and below a row's text.
        head: Color of the head's ground; None for none.
        stripe: Color of every other row's ground; None for none.
        thickness: Width of the lines.
    """

    lines: str
    color: Color
    padding: int
    head: Color | None = None
    stripe: Color | None = None
    thickness: int = 1


@dataclass(frozen=True)
class Table:
    """Rows with common columns, with or without lines.

    Attributes:
        rows: The rows; the first is the head if ``has_head``.
        borders: Left end of every column and the right end of the last, in pixels.
        look: Lines and shades.
        has_head: Whether the first row has the names of the columns.
    """

    rows: tuple[Row, ...]
    borders: tuple[float, ...]
    look: TableLook
    has_head: bool = True

    @property
    def height(self) -> int:
        """Height with all lines."""
        return sum(row.height + 2 * self.look.padding for row in self.rows) + 2 * self.look.thickness

    def place(self, page: Page, x: float, y: float, width: float) -> None:
        """Draw shades and lines, and write the rows."""
        look, top = self.look, y
        left, right = x + self.borders[0], x + self.borders[-1]
        edges = [y]
        for index, row in enumerate(self.rows):
            bottom = y + row.height + 2 * look.padding
            shade = look.head if index == 0 and self.has_head else look.stripe if index % 2 else None
            if shade is not None:
                page.fills.append(Fill((left, y, right, bottom), shade))
            row.place(page, x, y + look.padding, width)
            edges.append(bottom)
            y = bottom
        self._draw_lines(page, x, edges, (left, top, right, y + look.thickness))

    def _draw_lines(self, page: Page, x: float, edges: list[float], box: tuple[float, float, float, float]) -> None:
        look, (left, top, right, bottom) = self.look, box
        inner = {"grid": edges, "rows": edges, "head": edges[1:2], "box": [edges[0], edges[-1]], "none": []}
        for edge in inner[look.lines] if self.has_head or look.lines != "head" else []:
            page.fills.append(Fill((left, edge, right, edge + look.thickness), look.color))
        sides = {"grid": [x + border for border in self.borders], "box": [left, right]}.get(look.lines, [])
        for side in sides:
            side = min(side, right - look.thickness)
            page.fills.append(Fill((side, top, side + look.thickness, bottom), look.color))


def shorten(text: str, lettering: Lettering, room: float) -> str:
    """Return the longest beginning of a text, whole words if possible, that fits ``room`` pixels; never empty."""
    if lettering.width(text) <= room:
        return text
    words = text.split(" ")
    for count in range(len(words) - 1, 0, -1):
        shorter = " ".join(words[:count])
        if lettering.width(shorter) <= room:
            return shorter.rstrip(",&-") or shorter
    shorter = words[0]
    while len(shorter) > 1 and lettering.width(shorter) > room:
        shorter = shorter[:-1]
    return shorter


def text_row(text: str, letters: Lettering, width: float, align: str = "left", fact: Fact | None = None) -> Row:
    """Return one line of text, shortened to ``width`` pixels."""
    return Row((Cell(shorten(text, letters, width), letters, 0, width, align, fact),))


def wrap(text: str, letters: Lettering, width: float) -> list[str]:
    """Break a text between words into lines that fit ``width`` pixels; a longer word is cut."""
    words = [shorten(word, letters, width) for word in text.split(" ")]
    widths = [letters.width(word) for word in words]
    space = letters.width(" ")
    lines, start, used = [], 0, -space
    for index, word_width in enumerate(widths):
        if used + space + word_width > width and index > start:
            lines.append(" ".join(words[start:index]))
            start, used = index, -space
        used += space + word_width
    return [*lines, " ".join(words[start:])]


def paragraph(text: str, letters: Lettering, width: float, align: str, max_lines: int, indent: float = 0) -> Stack:
    """Return a text as lines of ``width`` pixels; ``align`` may be ``justify``."""
    lines = wrap(text, letters, width - indent)[:max_lines]
    rows: list[Block] = []
    for index, line in enumerate(lines):
        spaces = line.count(" ")
        free = width - indent - letters.width(line)
        stretch = 0.0
        if align == "justify" and index < len(lines) - 1 and spaces and free < 0.3 * width:
            stretch = free / spaces
        side = "left" if align == "justify" else align
        rows.append(Row((Cell(line, letters, indent, width, side, None, stretch),)))
    return Stack(rows)


def widths_of(rng: random.Random, columns: Sequence[Sequence[str]], letters: Lettering) -> list[int]:
    """Return the width of each column of texts in pixels."""
    return [max(letters.width(text) for text in column) for column in columns]
