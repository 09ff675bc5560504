"""A page while it is composed: text, rules and fills with their places; and its drawing."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from ...geometry import Box
from ..options import Size
from .facts import Fact
from .glyphs import GlyphSet

Color = tuple[int, int, int]


class Lettering(NamedTuple):
    """The appearance of a line of text.

    Attributes:
        glyphs: Face, style and size.
        ink: Color.
        height: Height of the line in pixels.
        rise: Pixels from the top of the line to the baseline.
        spacing: Pixels added after each character.
    """

    glyphs: GlyphSet
    ink: Color
    height: int
    rise: int
    spacing: float = 0.0

    @property
    def size(self) -> int:
        """Pixels per em."""
        return self.glyphs.size

    def width(self, text: str) -> int:
        """Return the advance of a text in whole pixels."""
        return round(self.glyphs.width(text) + self.spacing * len(text) + 0.5)

    def in_ink(self, ink: Color) -> "Lettering":
        """Return the same lettering in another color."""
        return Lettering(self.glyphs, ink, self.height, self.rise, self.spacing)


def lettering(glyphs: GlyphSet, ink: Color, leading: float, spacing: float = 0.0) -> Lettering:
    """Return lettering whose lines are ``leading`` ems high, or as high as the ink of the face needs."""
    content = glyphs.ascent + glyphs.descent
    height = max(round(leading * glyphs.size), content + 1)
    return Lettering(glyphs, ink, height, (height - content) // 2 + glyphs.ascent, spacing)


class Piece(NamedTuple):
    """Text at a place of a line.

    Attributes:
        x: Left end in pixels from the left edge of the page.
        text: The text.
        lettering: Its appearance.
        fact: The fact that it answers.
        stretch: Pixels added to every space, in justified text.
    """

    x: float
    text: str
    lettering: Lettering
    fact: Fact | None = None
    stretch: float = 0.0


class Run(NamedTuple):
    """Characters at their places: text, glyphs, codes (n,), origins (n,) in pixels, y of the baseline, color."""

    text: str
    glyphs: GlyphSet
    codes: np.ndarray
    x: np.ndarray
    baseline: int
    ink: Color


class Line(NamedTuple):
    """A line of the transcript: its text, the box of its ink and its runs."""

    text: str
    box: Box
    runs: tuple[Run, ...]


class Field(NamedTuple):
    """The answer to a question, and the box of its ink in pixels."""

    fact: Fact
    text: str
    box: Box


class Fill(NamedTuple):
    """A filled or outlined rectangle, below all text.

    Attributes:
        box: Its edges in pixels.
        color: Color inside; None for an outline alone.
        outline: Color of the edge; None for none.
        radius: Radius of its corners.
        thickness: Width of the outline.
    """

    box: Box
    color: Color | None = None
    outline: Color | None = None
    radius: int = 0
    thickness: int = 1


@dataclass
class Page:
    """Everything that is on a page of ``size`` (height, width).

    Attributes:
        name: Noun for the page in questions, such as "receipt".
        fills: Rectangles in the order of drawing.
        lines: Lines in reading order.
        fields: Answers with their places.
        facts: Facts that have no place, such as counts, with their answers.
        topics: Topics that the page answers; questions about others are answered with "not shown".
        sharp: Whether edges of letters are drawn without gray.
    """

    size: Size
    name: str = "document"
    fills: list[Fill] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)
    fields: list[Field] = field(default_factory=list)
    facts: list[tuple[Fact, str]] = field(default_factory=list)
    topics: set[str] = field(default_factory=set)
    sharp: bool = False

    def write(self, pieces: Sequence[Piece], top: float) -> None:
        """Write one line whose pieces are in reading order; all stand on one baseline.

        Raises:
            ValueError: A letter would be outside of the page.
        """
        baseline = round(top) + max(piece.lettering.rise for piece in pieces)
        runs = [_run(piece, baseline) for piece in pieces]
        boxes = [run.glyphs.ink(run.codes, run.x, baseline) for run in runs]
        box = _union(boxes)
        height, width = self.size
        text = " ".join(piece.text for piece in pieces)
        if box[0] < 0 or box[1] < 0 or box[2] > width or box[3] > height:
            raise ValueError(f"{text!r} at {box} is outside of a page of {height}x{width}")
        self.lines.append(Line(text, box, tuple(runs)))
        for piece, ink in zip(pieces, boxes, strict=True):
            if piece.fact is not None:
                self.fields.append(Field(piece.fact, piece.text, ink))
                self.topics.add(piece.fact.topic.name)

    def join_lines(self, first: int) -> None:
        """Make one line of all lines from number ``first`` on."""
        lines = self.lines[first:]
        if len(lines) > 1:
            runs = tuple(run for line in lines for run in line.runs)
            joined = Line(" ".join(line.text for line in lines), _union([line.box for line in lines]), runs)
            self.lines[first:] = [joined]

    def draw(self, ground: Image.Image) -> Image.Image:
        """Draw the page onto a ground (RGB, of its size) and return it."""
        canvas = ImageDraw.Draw(ground)
        for fill in self.fills:
            _draw_fill(canvas, fill)
        by_ink: dict[Color, list[Run]] = {}
        for line in self.lines:
            for run in line.runs:
                by_ink.setdefault(run.ink, []).append(run)
        for ink, runs in by_ink.items():
            mask, place = self._mask(runs)
            ground.paste(ink, place, mask)
        return ground

    def _mask(self, runs: Sequence[Run]) -> tuple[Image.Image, tuple[int, int]]:
        """Return the ink of some runs (mode L) and its place: rows without ink would only cost time."""
        top = max(0, min(run.baseline - run.glyphs.ascent for run in runs))
        bottom = min(self.size[0], max(run.baseline + run.glyphs.descent for run in runs))
        mask = np.zeros((bottom - top, self.size[1]), dtype=np.uint8)
        by_glyphs: dict[int, list[Run]] = {}
        for run in runs:
            by_glyphs.setdefault(id(run.glyphs), []).append(run)
        for group in by_glyphs.values():
            lengths = [len(run.codes) for run in group]
            baselines = np.repeat([run.baseline - top for run in group], lengths)
            codes, x = (np.concatenate([run[index] for run in group]) for index in (2, 3))
            group[0].glyphs.draw(mask, codes, x, baselines)
        if self.sharp:
            mask = (mask > 110).astype(np.uint8) * 255
        return Image.fromarray(mask), (0, top)


def _run(piece: Piece, baseline: int) -> Run:
    glyphs = piece.lettering.glyphs
    codes = glyphs.codes(piece.text)
    x = piece.x + glyphs.offsets(codes, piece.lettering.spacing)[:-1]
    if piece.stretch:
        spaces = codes == 0
        x += piece.stretch * (np.cumsum(spaces) - spaces)
    return Run(piece.text, glyphs, codes, np.rint(x).astype(np.int64), baseline, piece.lettering.ink)


def _union(boxes: Sequence[Box]) -> Box:
    lefts, tops, rights, bottoms = zip(*boxes, strict=True)
    return min(lefts), min(tops), max(rights), max(bottoms)


def _draw_fill(canvas: ImageDraw.ImageDraw, fill: Fill) -> None:
    if fill.color is None and fill.outline is None:
        return
    x0, y0, x1, y1 = (round(edge) for edge in fill.box)
    box = (x0, y0, max(x0, x1 - 1), max(y0, y1 - 1))
    if fill.radius:
        canvas.rounded_rectangle(box, fill.radius, fill.color, fill.outline, fill.thickness)
    else:
        canvas.rectangle(box, fill.color, fill.outline, fill.thickness)
