"""Kinds of printed pages: single lines, dense text, documents and large pages."""

import math
import random
from dataclasses import dataclass, field

from PIL import Image, ImageDraw

from .example import Example
from .options import Range, Size, check_fraction, check_range, check_sizes, check_tasks
from .pages.dialogue import PAGE_TASKS, Talk, ask
from .pages.ground import draw_ground, photo_like
from .pages.layouts import DOCUMENTS, LAYOUTS
from .pages.page import Page
from .pages.sheet import Sheet, draw_sheet
from .pages.warp import Warp, draw_warp, wear
from .positions import Mark, check_stride, spell_positions, steps_needed

_STRIDE = 64

_ATTEMPTS = 40
"""Pages drawn until one has text and leaves room for the text of every position."""


def sizes_of(tokens: tuple[int, int], aspect: float) -> tuple[Size, ...]:
    """Return all sizes (height, width) in multiples of 64 pixels with so many visual tokens, up to 1 : ``aspect``.

    Sizes that are nearly square are repeated.
    """
    least, most = tokens
    grids = ((rows, columns) for rows in range(1, most + 1) for columns in range(1, most // rows + 1))
    found: list[Size] = []
    for rows, columns in grids:
        ratio = max(rows, columns) / min(rows, columns)
        if least <= rows * columns and ratio <= aspect:
            # Extreme shapes are most of all shapes, but few of the images that people have.
            found += [(_STRIDE * rows, _STRIDE * columns)] * (4 if ratio <= 1.6 else 2 if ratio <= 2.5 else 1)
    return tuple(found)


@dataclass(frozen=True)
class PrintedKind:
    """A page of text and a dialogue about it.

    Attributes:
        split: ``train`` or ``heldout``.
        sizes: (height, width) of the image, one of which is drawn.
        font_size: Range of the running text in pixels per em.
        layouts: Keys of ``LAYOUTS``, one of which is drawn.
        tasks: Keys of ``PAGE_TASKS``; ``transcribe`` is the first question of a dialogue, if it is asked.
        questions: Maximum number of questions after the transcript.
        transcript: Share of dialogues that begin with the transcript, if ``tasks`` has it.
        max_transcript: Characters of the longest transcript; of a page with more, a line is asked for instead.
        noise: Strength of all degradations, from 0 (black on white) to 1.
        stride: If above 0, there is one question, whose answer spells each position of so many pixels (see
            ``positions``).
        steps: Predictions that a position has for its text, with ``stride``; a page that needs more is drawn again in
            larger type. By default one for each 128 pixels of area.
    """

    split: str
    sizes: tuple[Size, ...] = sizes_of((4, 48), 5)
    font_size: Range = (14, 48)
    layouts: tuple[str, ...] = DOCUMENTS
    tasks: tuple[str, ...] = tuple(PAGE_TASKS)
    questions: int = 6
    transcript: float = 0.8
    max_transcript: int = 1000
    noise: float = 0.5
    stride: int = 0
    steps: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "sizes", check_sizes(self.sizes, smallest=32))
        object.__setattr__(self, "font_size", check_range("font_size", self.font_size, 10, 96))
        object.__setattr__(self, "layouts", check_tasks(self.layouts, LAYOUTS, what="layout"))
        object.__setattr__(self, "tasks", check_tasks(self.tasks, PAGE_TASKS))
        check_fraction("noise", self.noise)
        check_fraction("transcript", self.transcript)
        check_stride(self.stride, self.sizes)
        for name in ("questions", "max_transcript", "steps"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 0:
                raise ValueError(f"{name} must be a whole number of at least 0, got {value!r}")

    def example(self, rng: random.Random, size: Size) -> Example:
        """Draw a page of ``size`` (height, width) and a dialogue about it."""
        low, high = self.font_size
        for _ in range(_ATTEMPTS):
            warp = draw_warp(rng, size, self.noise)
            sheet, ground = self._compose(rng, warp, (low, high))
            if not sheet.blocks:
                high = max(10.0, 0.75 * sheet.size)
                low = min(low, high)
                continue
            sheet.finish()
            if not self.stride:
                return self._talk(rng, sheet, warp, ground)
            spelled = spell_positions(marks(sheet.page, warp), size, self.stride)
            if steps_needed(spelled) <= (self.steps or self.stride**2 // 128):
                return Example(_finish(sheet, warp, ground, self.noise), "Read.", spelled, {"page": sheet.page})
            low = min(96.0, 1.2 * max(low, sheet.size))
            high = max(low, high)
        raise ValueError(
            f"no text fits {size[0]}x{size[1]} in type of {self.font_size} with {self.steps or self.stride**2 // 128} "
            "characters a position: change sizes, font_size or steps"
        )

    def _compose(self, rng: random.Random, warp: Warp, span: Range) -> tuple[Sheet, Image.Image]:
        font_size = _draw_font_size(rng, warp.source, span)
        sheet = draw_sheet(rng, self.split, warp.source, font_size, self.noise)
        ground = _lay_ground(rng, sheet, warp, self.noise)
        fitting = [
            name for name in self.layouts if LAYOUTS[name].columns <= sheet.columns and LAYOUTS[name].rows <= sheet.rows
        ]
        names = fitting or ["line"]
        name = rng.choices(names, [max(1, LAYOUTS[name].weight) for name in names])[0]
        LAYOUTS[name].compose(sheet)
        return sheet, ground

    def _talk(self, rng: random.Random, sheet: Sheet, warp: Warp, ground: Image.Image) -> Example:
        talk = Talk(rng, self.split, sheet.page, warp)
        length = sum(len(line.text) + 1 for line in sheet.page.lines)
        others = tuple(task for task in self.tasks if task != "transcribe")
        wants = "transcribe" in self.tasks and length <= self.max_transcript
        first = wants and (rng.random() < self.transcript or not others or not self.questions)
        asked = ask(talk, others, self.questions, first)
        if not asked:
            asked = ask(talk, ("line", "check", "field"), 1, False) or ask(talk, (), 0, True)
        image = _finish(sheet, warp, ground, self.noise)
        return Example(image, *asked[0], {"page": sheet.page, "warp": warp}, tuple(asked[1:]))


@dataclass(frozen=True)
class LinesKind(PrintedKind):
    """One line or a few lines of text, which fill their image."""

    sizes: tuple[Size, ...] = ((64, 64), (64, 128), (64, 192), (64, 256), (64, 320), (128, 192), (128, 256), (128, 320))
    font_size: Range = (14, 48)
    layouts: tuple[str, ...] = ("line",)
    tasks: tuple[str, ...] = ("transcribe",)
    questions: int = 0
    transcript: float = 1.0


@dataclass(frozen=True)
class BlocksKind(PrintedKind):
    """Dense paragraphs."""

    sizes: tuple[Size, ...] = sizes_of((4, 24), 4)
    layouts: tuple[str, ...] = ("dense",)
    tasks: tuple[str, ...] = ("transcribe", "line", "check", "locate")
    questions: int = 2
    transcript: float = 1.0


@dataclass(frozen=True)
class PagesKind(PrintedKind):
    """Documents of up to 512 x 1024 pixels."""

    sizes: tuple[Size, ...] = field(default=sizes_of((48, 128), 3))
    layouts: tuple[str, ...] = tuple(name for name in DOCUMENTS if name not in ("sign", "plain", "price_tag", "badge"))


def marks(page: Page, warp: Warp) -> list[list[Mark]]:
    """Return the characters of each line with their centers in the image."""
    found = []
    for line in page.lines:
        row: list[Mark] = []
        for run in line.runs:
            if row:
                row.append(Mark(" ", *warp.point(float(run.x[0]) - 1, run.baseline - 0.35 * run.glyphs.size)))
            middle = run.baseline - 0.35 * run.glyphs.size
            centers = run.x + run.glyphs.advance[run.codes] / 2
            row += [Mark(letter, *warp.point(x, middle)) for letter, x in zip(run.text, centers.tolist(), strict=True)]
        found.append(row)
    return found


def _draw_font_size(rng: random.Random, size: Size, span: Range) -> float:
    """Draw a size in pixels per em: small ones are as frequent as large ones, and a line of a few letters fits."""
    height, width = size
    low, high = span[0], min(span[1], height / 1.9, width / 3)
    low = min(low, max(10.0, height / 1.9))
    return math.exp(rng.uniform(math.log(low), math.log(max(low, high))))


def _lay_ground(rng: random.Random, sheet: Sheet, warp: Warp, noise: float) -> Image.Image:
    """Return the empty page; at times a sheet of paper on a table, to which the area of the sheet is narrowed."""
    height, width = warp.source
    down, across = warp.inset
    kind = rng.random()
    if kind > 0.14 * noise * 2 or min(height, width) < 160:
        _narrow(sheet, across, down)
        return draw_ground(rng, sheet.palette, warp.source)
    edge = round(min(height, width) * rng.uniform(0.01, 0.07))
    _narrow(sheet, across + edge, down + edge)
    ground = photo_like(rng, warp.source)
    paper = draw_ground(rng, sheet.palette, (height - 2 * edge, width - 2 * edge))
    if rng.random() < 0.5:
        shadow = (edge + 3, edge + 3, width - edge + 3, height - edge + 3)
        ImageDraw.Draw(ground).rectangle(shadow, (40, 40, 40))
    ground.paste(paper, (edge, edge))
    return ground


def _narrow(sheet: Sheet, across: int, down: int) -> None:
    sheet.left += across
    sheet.width -= 2 * across
    sheet.top += down
    sheet.room -= 2 * down


def _finish(sheet: Sheet, warp: Warp, ground: Image.Image, noise: float) -> Image.Image:
    image = sheet.page.draw(ground)
    return wear(warp.image(image, sheet.palette.paper), sheet.rng, noise)
