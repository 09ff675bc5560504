"""A sheet to compose on: faces, sizes and colors of one page, and the room that is left."""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import NamedTuple

from ..fonts import Face, bold_sibling, faces
from ..options import Size
from ..seeding import stable_hash
from . import values
from .blocks import Block, Gap, Row, Stack, text_row
from .facts import Fact
from .glyphs import PLAIN, Style, glyph_set, nearest_size
from .ground import Palette, draw_palette
from .page import Color, Lettering, Page, lettering

SMOOTH = Style(smooth=True)

_VARIANTS = (
    Style(slant=0.2),
    Style(slant=0.2, smooth=True),
    Style(width=0.84),
    Style(width=0.92, weight=0.02, smooth=True),
    Style(width=1.12),
)
"""Styles made by transformation; each face has one of them, so that glyph sets are few."""

_BOLD = Style(weight=0.035, smooth=True)
"""Style of headings in faces without a bold cut."""

_COMMON = tuple(
    f"{name}-regular"
    for name in ("dejavu-sans", "arimo", "tinos", "cousine", "dejavu-sans-mono", "dejavu-serif", "open-sans", "inter")
)
"""Faces that programs and printers use by default; they are drawn more often."""


def draw_face(rng: random.Random, split: str) -> Face:
    """Draw a face that is not bold; in training four in ten are of the common ones."""
    common, regular = _faces(split)
    return rng.choice(common if common and rng.random() < 0.4 else regular)


@lru_cache
def _faces(split: str) -> tuple[tuple[Face, ...], tuple[Face, ...]]:
    """Return the common faces and all faces that are not bold."""
    regular = tuple(face for face in faces(split) if not face.bold)
    return tuple(face for face in regular if face.name in _COMMON), regular


def draw_style(rng: random.Random, face: Face) -> Style:
    """Draw the style of running text: mostly that of the face itself."""
    kind = rng.random()
    if kind < 0.6:
        return PLAIN
    return SMOOTH if kind < 0.8 else _VARIANTS[stable_hash(face.name) % len(_VARIANTS)]


class Look(NamedTuple):
    """Lettering that is made when a layout uses it: its glyphs may have to be rendered first.

    Attributes:
        face: Name of the face.
        style: Style of the face.
        size: Pixels per em.
        ink: Color.
        leading: Height of a line in ems.
        spacing: Pixels added after each character.
    """

    face: str
    style: Style
    size: int
    ink: Color
    leading: float
    spacing: float = 0.0

    def lettering(self) -> Lettering:
        """Return the lettering."""
        return lettering(glyph_set(self.face, self.style, self.size), self.ink, self.leading, self.spacing)


@dataclass
class Sheet:
    """The area that a layout fills, and the looks of its text.

    Attributes:
        rng: The source of randomness.
        split: Split of all words.
        page: The page.
        palette: Colors.
        text: Lettering of running text.
        looks: Looks of ``bold`` (emphasized text), ``title`` (headings) and ``small`` (notes).
        left: Left end of the area in pixels.
        top: Top of the area.
        width: Width of the area.
        room: Height that is left.
        margin: Pixels between the area and the edges of the paper.
        case: Writes names in the document's case.
        money: Writes amounts in the document's format.
        day: Writes days in the document's format.
        blocks: Blocks added so far.
    """

    rng: random.Random
    split: str
    page: Page
    palette: Palette
    text: Lettering
    looks: Mapping[str, Look]
    left: int
    top: int
    width: int
    room: int
    margin: int
    case: Callable[[str], str]
    money: values.MoneyWriter
    day: values.DateWriter
    blocks: list[Block] = field(default_factory=list)

    @cached_property
    def bold(self) -> Lettering:
        """Lettering of emphasized text."""
        return self.looks["bold"].lettering()

    @cached_property
    def title(self) -> Lettering:
        """Lettering of headings."""
        return self.looks["title"].lettering()

    @cached_property
    def small(self) -> Lettering:
        """Lettering of notes."""
        return self.looks["small"].lettering()

    @property
    def size(self) -> int:
        """Pixels per em of running text."""
        return self.text.size

    @property
    def columns(self) -> float:
        """Width of the area in ems."""
        return self.width / self.size

    @property
    def rows(self) -> int:
        """Lines of running text that still fit."""
        return self.room // self.text.height

    def count(self, most: int, rows: int | None = None) -> int:
        """Draw a number of lines or entries from 1 to ``most``: often as many as ``rows`` lines of room hold."""
        room = max(1, min(most, self.rows if rows is None else rows))
        return room if self.rng.random() < 0.5 else self.rng.randint(1, room)

    def add(self, *blocks: Block) -> bool:
        """Add blocks below each other if there is room for all of them."""
        height = sum(block.height for block in blocks)
        if height > self.room:
            return False
        self.room -= height
        self.blocks += blocks
        return True

    def line(
        self,
        text: str,
        fact: Fact | None = None,
        letters: Lettering | None = None,
        align: str = "left",
        width: float | None = None,
    ) -> Row:
        """Return one line of text as wide as the area."""
        return text_row(text, letters or self.text, self.width if width is None else width, align, fact)

    def gap(self, ems: float = 0.5) -> Gap:
        """Return empty room."""
        return Gap(round(ems * self.size))

    def finish(self) -> Page:
        """Place all blocks; the room that is left goes below, around or between them."""
        rng, top, spread = self.rng, float(self.top), 0.0
        kind = rng.random()
        if kind < 0.3:
            top += self.room / 2
        elif kind < 0.4:
            top += rng.random() * self.room
        elif kind < 0.55 and len(self.blocks) > 1:
            spread = min(self.room / (len(self.blocks) - 1), 1.2 * self.size)
        Stack(self.blocks, spread).place(self.page, self.left, top, self.width)
        return self.page


def draw_sheet(rng: random.Random, split: str, size: Size, font_size: float, noise: float) -> Sheet:
    """Draw the looks of a page of ``size`` (height, width) with running text of about ``font_size`` pixels per em."""
    height, width = size
    face = draw_face(rng, split)
    style = draw_style(rng, face)
    body = nearest_size(font_size)
    palette = draw_palette(rng, noise)
    leading = rng.choice((1.1, 1.15, 1.2, 1.25, 1.3, 1.4, 1.5, 1.7))
    spacing = rng.choice((0, 0, 0, 0, 0, 0, 0.02, 0.05)) * body
    text = Look(face.name, style, body, palette.ink, leading, spacing)
    head_face = face if rng.random() < 0.75 else draw_face(rng, split)
    heavy = bold_sibling(head_face)
    head_style = PLAIN if heavy is not head_face or rng.random() < 0.2 else _BOLD
    head_ink = palette.accent if rng.random() < 0.3 else palette.ink
    scale = rng.choice((1.0, 1.2, 1.4, 1.6, 2.0)) if width > 12 * body else rng.choice((1.0, 1.2))
    looks = {
        "bold": Look(heavy.name, head_style, body, palette.ink, leading),
        "title": Look(heavy.name, head_style, nearest_size(scale * body), head_ink, 1.2),
        "small": Look(face.name, style, nearest_size(0.85 * body), palette.faint, leading),
    }
    if rng.random() < 0.5:
        looks["small"] = text
    margin = max(2, round(body * rng.choice((0.25, 0.5, 0.8, 1.2))))
    margin = min(margin, width // 12, height // 8)
    return Sheet(
        rng=rng,
        split=split,
        page=Page(size),
        palette=palette,
        text=text.lettering(),
        looks=looks,
        left=margin + 2,
        top=margin,
        width=width - 2 * margin - 4,
        room=height - 2 * margin,
        margin=margin,
        case=values.word_case(rng),
        money=values.money_writer(rng),
        day=values.day_format(rng),
    )
