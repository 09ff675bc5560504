"""Images of one or a few lines of text."""

import math
import random
import string
from dataclasses import dataclass
from typing import NamedTuple

from PIL import Image

from .effects import draw_inks, print_mask, turn, wear
from .example import Example
from .fonts import faces
from .glyphs import PixelBox, draw_text, ink_box, middles, text_width
from .options import Range, Size, check_fraction, check_name, check_range, check_sizes
from .positions import Mark, check_stride, spell_positions
from .text import Writer, any_text

_QUESTIONS = (
    "Read the text.",
    "What does it say?",
    "Transcribe the text.",
    "What is written here?",
    "Write down the text in the picture.",
    "Read this.",
)

_CHARACTERS = string.ascii_letters * 2 + string.digits * 3 + string.punctuation
"""Characters to draw from, letters and digits more often than punctuation."""

_MARGIN = 2
"""Pixels kept free at every edge."""

_MAX_DEGREES = 1.5

_MAX_MISSES = 8
"""Pieces that are too wide before a line is complete."""


class _Row(NamedTuple):
    text: str
    face: str
    font_size: int
    ink: PixelBox
    """Bounding box of the ink when the text is drawn at the origin."""


@dataclass(frozen=True)
class LineKind:
    """Images filled by lines of words, amounts, dates, codes and similar texts.

    Attributes:
        split: ``train`` or ``heldout``.
        sizes: (height, width) of the image, one of which is drawn.
        cap: Range of the font size as a fraction of a line's height.
        rows: Number of lines.
        noise: Strength of all degradations, from 0 (black on white) to 1 (colored, faint, blurred, speckled, rotated).
        content: ``fields``, or ``characters``: letters, digits and punctuation in random order, from which the shapes
            of single characters are learned fastest.
        stride: If above 0, the answer spells each position of so many pixels (see ``positions``).
    """

    split: str
    sizes: tuple[Size, ...] = ((32, 192),)
    cap: Range = (0.5, 0.85)
    rows: int = 1
    noise: float = 0.5
    content: str = "fields"
    stride: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "sizes", check_sizes(self.sizes, smallest=16))
        object.__setattr__(self, "cap", check_range("cap", self.cap, 0.1, 1.0))
        check_fraction("noise", self.noise)
        check_stride(self.stride, self.sizes)
        check_name("content", self.content, _CONTENTS)
        if not isinstance(self.rows, int) or self.rows < 1:
            raise ValueError(f"rows must be a whole number of at least 1, got {self.rows!r}")
        lowest = min(height for height, _ in self.sizes) // self.rows
        if lowest < 12:
            raise ValueError(
                f"{self.rows} rows leave {lowest} pixels each in the smallest size; at least 12 are needed"
            )

    def example(self, rng: random.Random, size: Size) -> Example:
        """Draw one image of ``size`` (height, width) and ask for its text."""
        height, width = size
        face = rng.choice(faces(self.split)).name
        row_height = height // self.rows
        font_size = max(8, round(rng.uniform(*self.cap) * row_height))
        rows = [self._row(rng, face, font_size, row_height, width) for _ in range(self.rows)]
        mask, marks = _draw(rng, rows, size)
        if rng.random() < self.noise:
            mask = turn(mask, _safe_angle(rng, mask))
        image = wear(print_mask(mask, draw_inks(rng, self.noise)), rng, self.noise)
        text = spell_positions(marks, size, self.stride) if self.stride else "\n".join(row.text for row in rows)
        return Example(image, rng.choice(_QUESTIONS), text)

    def _row(self, rng: random.Random, face: str, font_size: int, height: int, width: int) -> _Row:
        room = width - 2 * _MARGIN
        text = self._text(rng, face, font_size, rng.uniform(0.3, 0.97) * width, room)
        # Tall faces overhang their em, so the size gives way until all of the ink is inside.
        while True:
            left, top, right, bottom = ink = ink_box(face, font_size, text)
            if (right - left <= room and bottom - top <= height - _MARGIN) or font_size <= 6:
                return _Row(text, face, font_size, ink)
            font_size -= 1

    def _text(self, rng: random.Random, face: str, font_size: int, target: float, room: float) -> str:
        """Add pieces until the text is ``target`` pixels wide; it never gets wider than ``room``."""
        text, width, misses = "", 0, 0
        while width < target and misses < _MAX_MISSES:
            longer = f"{text}{_CONTENTS[self.content](rng, self.split)}".strip()
            longer_width = text_width(face, font_size, longer)
            if longer != text and longer_width <= room:
                text, width = longer, longer_width
            else:
                misses += 1
        return text or str(rng.randrange(10))


def _field(rng: random.Random, split: str) -> str:
    return f" {any_text(rng, split)}"


def _character(rng: random.Random, split: str) -> str:
    return rng.choice(_CHARACTERS)


_CONTENTS: dict[str, Writer] = {"fields": _field, "characters": _character}
"""Writer of one piece of a line, for each ``content``."""


def _draw(rng: random.Random, rows: list[_Row], size: Size) -> tuple[Image.Image, list[list[Mark]]]:
    """Return the drawing and the marks of each line's characters."""
    height, width = size
    mask = Image.new("L", (width, height))
    row_height = height // len(rows)
    indent = rng.random() ** 2
    marks = []
    for index, row in enumerate(rows):
        left, top, right, bottom = row.ink
        x = _MARGIN + int(indent * (width - 2 * _MARGIN - (right - left)))
        slack = row_height - (bottom - top)
        y = index * row_height + round(slack * rng.uniform(0.25, 0.75))
        draw_text(mask, (x - left, y - top), row.text, row.face, row.font_size)
        places = middles(row.face, row.font_size, row.text, x - left)
        marks.append([Mark(*mark, y + (bottom - top) / 2) for mark in zip(row.text, places, strict=True)])
    return mask, marks


def _safe_angle(rng: random.Random, mask: Image.Image) -> float:
    """Draw an angle in degrees that rotates no ink out of the image."""
    box = mask.getbbox()
    if box is None:
        raise ValueError("a line without ink cannot be rotated: give larger letters")
    slack = min(box[1], mask.height - box[3])
    largest = math.degrees(math.atan2(slack, mask.width / 2))
    return rng.uniform(-1, 1) * min(_MAX_DEGREES, largest)
