"""Documents: questions about a field, about all text, or about the box of a field."""

import random
from collections.abc import Callable
from dataclasses import dataclass

from ..geometry import box_to_square, format_box
from .effects import draw_inks, print_mask, wear
from .example import Asked, Example
from .fonts import faces
from .layout_rows import CASES, LayoutContext
from .layouts import LAYOUTS, NANO_LAYOUTS
from .options import Range, Size, check_fraction, check_questions, check_range, check_sizes, check_tasks
from .positions import check_stride, spell_positions
from .typesetting import Cell, Fact, Page, Row, Type, rows_that_fit, typeset

_ATTEMPTS = 40

_SMALLEST_SIDE = 96

_TRANSCRIBE = (
    "Transcribe the page.",
    "Read all the text.",
    "Write down everything that is written.",
    "Transcribe all text, line by line.",
)
_ASK = ("What is {}?", "What is {}?", "Tell me {}.", "Read {}.", "Give {}.")
_LOCATE = ("Where is {}?", "Give the box of {}.", "Locate {}.", "Find {}.", "Where does the page show {}?")


@dataclass(frozen=True)
class DocumentKind:
    """One page and questions about it.

    Attributes:
        split: ``train`` or ``heldout``.
        sizes: (height, width) of the image, one of which is drawn.
        tasks: Kinds of questions: ``field`` (the text of a field), ``transcribe`` (all lines, cells joined by a space)
            and ``locate`` (the box of a field on the padded square).
        layouts: Keys of ``LAYOUTS``, one of which is drawn.
        font_size: Range in pixels per em.
        noise: Strength of all degradations, from 0 (black on white) to 1.
        questions: Number of questions about a page.
        stride: If above 0, there is one question, whose answer spells each position of so many pixels (see
            ``positions``).
    """

    split: str
    sizes: tuple[Size, ...] = ((256, 256), (256, 320), (384, 256), (256, 512))
    tasks: tuple[str, ...] = ("field", "transcribe", "locate")
    layouts: tuple[str, ...] = NANO_LAYOUTS
    font_size: Range = (14, 28)
    noise: float = 0.5
    questions: int = 1
    stride: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "sizes", check_sizes(self.sizes, smallest=_SMALLEST_SIDE))
        object.__setattr__(self, "tasks", check_tasks(self.tasks, DOCUMENT_TASKS))
        object.__setattr__(self, "layouts", check_tasks(self.layouts, LAYOUTS, what="layout"))
        check_fraction("noise", self.noise)
        check_questions(self.questions)
        check_stride(self.stride, self.sizes)
        largest, what = (
            min(min(size) for size in self.sizes) // 6,
            "font_size (at most a sixth of the shortest side)",
        )
        object.__setattr__(self, "font_size", check_range(what, self.font_size, 6, largest))

    def example(self, rng: random.Random, size: Size) -> Example:
        """Draw a page of ``size`` (height, width) and ask about it."""
        ask = DOCUMENT_TASKS[rng.choice(self.tasks)]
        page = self._page(rng, size)
        question, answer = ask(rng, page, size)
        image = wear(print_mask(page.mask, draw_inks(rng, self.noise)), rng, self.noise)
        if self.stride:
            return Example(image, question, spell_positions(page.marks, size, self.stride), {"page": page})
        askers = [DOCUMENT_TASKS[rng.choice(self.tasks)] for _ in range(self.questions - 1)]
        return Example(image, question, answer, {"page": page}, tuple(ask(rng, page, size) for ask in askers))

    def _page(self, rng: random.Random, size: Size) -> Page:
        """Write pages in smaller and smaller type until one fits."""
        layout = LAYOUTS[rng.choice(self.layouts)]
        face = rng.choice([face for face in faces(self.split) if not face.bold])
        low, high = self.font_size
        for _ in range(_ATTEMPTS):
            font_size = rng.uniform(low, high)
            high = max(low, 0.95 * high)
            type_ = Type(face, round(font_size), _margin(rng, font_size), rng.uniform(0.3, 0.5))
            rows = layout(rng, LayoutContext(self.split, rows_that_fit(type_, size[0]), rng.choice(CASES)))
            page = typeset(rows, size, type_, drop=rng.random() ** 2)
            if page is not None and page.fields:
                return page
        return _number_plate(rng, size, Type(face, round(low), 2))


def ask_field(rng: random.Random, page: Page, size: Size) -> Asked:
    """Ask for the text of a field."""
    field = rng.choice(page.fields)
    generic = rng.choice(_ASK).format(field.fact.phrase)
    question = rng.choice(field.fact.questions) if field.fact.questions and rng.random() < 0.5 else generic
    return question, field.text


def ask_transcript(rng: random.Random, page: Page, size: Size) -> Asked:
    """Ask for every line."""
    return rng.choice(_TRANSCRIBE), "\n".join(page.lines)


def ask_box(rng: random.Random, page: Page, size: Size) -> Asked:
    """Ask for the box of a field."""
    height, width = size
    field = rng.choice(page.fields)
    return rng.choice(_LOCATE).format(field.fact.phrase), format_box(box_to_square(field.box, width, height))


DOCUMENT_TASKS: dict[str, Callable[[random.Random, Page, Size], Asked]] = {
    "field": ask_field,
    "transcribe": ask_transcript,
    "locate": ask_box,
}
"""Every task by its name in the option ``tasks``."""


def _margin(rng: random.Random, font_size: float) -> int:
    return max(4, round(font_size * rng.uniform(0.3, 1.0)))


def _number_plate(rng: random.Random, size: Size, type_: Type) -> Page:
    """Return a page with a number so short that it always fits."""
    row = Row((Cell(str(rng.randint(10, 999)), Fact("the number", ("Which number is it?",))),), "center")
    page = typeset([row], size, type_, drop=0.5)
    if page is None:
        raise ValueError(f"three digits of {type_.font_size} pixels do not fit {size}: make the page larger")
    return page
