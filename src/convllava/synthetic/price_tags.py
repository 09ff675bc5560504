"""Price tags: an article, a price with raised cents, the content of a pack and an article number.

They stand for data of one's own: the bundled model was not trained on them. Prices are answered in a notation that is
not printed (``EUR 3.49`` for a large 3 and small raised 49), which only examples can teach.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image

from .effects import Color, Inks, print_mask, wear
from .example import Asked, Example
from .glyphs import draw_text, ink_box, text_width
from .names import goods
from .options import Size, check_fraction, check_sizes
from .seeding import shuffled, split_of
from .words import invented_word

_SMALLEST_SIDE = 128

_FACES = ("public-sans-regular", "fira-sans-regular")
"""Type faces of the shop's tags, in both splits: a shop has one printer."""

_PAPERS: tuple[Color, ...] = ((255, 255, 255), (255, 242, 170), (255, 225, 60), (235, 245, 235), (250, 235, 220))
_INKS: tuple[Color, ...] = ((0, 0, 0), (25, 25, 60), (150, 20, 20), (20, 70, 30))

_TEMPLATES = {
    "train": ("What is {}?", "Give {}.", "Read {}.", "Tell me {}.", "Name {}.", "Which is {}?"),
    "heldout": ("State {}.", "Find {}.", "What does it show as {}?", "Write down {}."),
}
"""Wordings of each split, which share none."""

_FIELDS = {"article": "the article", "price": "the price", "pack": "the content", "number": "the number"}
"""Fields and their nouns in questions."""


@dataclass(frozen=True)
class Tag:
    """The facts of a tag: article, price, pack and number as they are printed."""

    article: str
    euros: int
    cents: int
    pack: str
    number: str

    def answers(self) -> dict[str, str]:
        """Return the answer to the questions about each field."""
        return {
            "article": self.article,
            "price": f"EUR {self.euros}.{self.cents:02}",
            "pack": self.pack,
            "number": self.number,
        }


@dataclass(frozen=True)
class PriceTagKind:
    """One price tag and questions about it.

    Attributes:
        split: ``train`` or ``heldout``, which share no article, price, number or wording.
        sizes: (height, width) of the image, one of which is drawn.
        noise: Strength of all degradations, from 0 to 1.
        questions: Number of questions about a tag, each about another field; at most 4.
    """

    split: str
    sizes: tuple[Size, ...] = ((256, 320),)
    noise: float = 0.3
    questions: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "sizes", check_sizes(self.sizes, smallest=_SMALLEST_SIDE))
        check_fraction("noise", self.noise)
        if not isinstance(self.questions, int) or not 1 <= self.questions <= 4:
            raise ValueError(f"questions must be a whole number from 1 to 4, got {self.questions!r}")

    def example(self, rng: random.Random, size: Size) -> Example:
        """Draw a tag of ``size`` (height, width) and ask about it."""
        tag = draw_tag(rng, self.split)
        image = _print(rng, tag, size, self.noise)
        answers, templates = tag.answers(), _TEMPLATES[self.split]
        first, *more = [
            (rng.choice(templates).format(_FIELDS[field]), answers[field])
            for field in shuffled(rng, list(answers))[: self.questions]
        ]
        rest: tuple[Asked, ...] = tuple(more)
        return Example(image, *first, {"tag": tag}, rest)


def draw_tag(rng: random.Random, split: str) -> Tag:
    """Draw the facts of a tag; article, price and number belong to the split."""
    article = rng.choice(goods(split))
    if rng.random() < 0.2:
        article = f"{invented_word(rng, split)} {article}"
    price = _of_split(split, lambda: f"{rng.choice((rng.randint(0, 9), rng.randint(1, 39)))}.{rng.randint(5, 99):02}")
    euros, _, cents = price.partition(".")
    pack = rng.choice(
        (
            f"{rng.randint(2, 95) * 10} g",
            f"{rng.randint(2, 95) * 10} ml",
            f"{rng.randint(2, 48)} pieces",
            f"{rng.randint(11, 59) / 10:.1f} kg",
        )
    )
    number = _of_split(split, lambda: str(rng.randint(10_000, 99_999)))
    return Tag(article.capitalize(), int(euros), int(cents), pack, number)


def _of_split(split: str, draw: Callable[[], str]) -> str:
    """Draw a text until it belongs to a split."""
    while split_of(text := draw()) != split:
        continue
    return text


def _print(rng: random.Random, tag: Tag, size: Size, noise: float) -> Image.Image:
    """Print a tag: article on top, a large price, pack and number at the bottom."""
    height, width = size
    face, margin = rng.choice(_FACES), width // 24
    small = Image.new("L", (width, height))
    row = min(round(height * 0.16), 40)
    draw_text(small, (margin, height // 24), tag.article, face, _fitting(face, tag.article, width - 2 * margin, row))
    foot = round(row * 0.85)
    label = rng.choice(("No ", "Art. ", "# "))
    foot = min(_fitting(face, tag.pack + "   " + label + tag.number, width - 2 * margin, foot), foot)
    top = height - height // 24 - round(foot * 1.3)
    draw_text(small, (margin, top), tag.pack, face, foot)
    right = width - margin - text_width(face, foot, label + tag.number)
    draw_text(small, (right, top), label + tag.number, face, foot)
    large = Image.new("L", (width, height))
    _write_price(rng, large, tag, face, (height // 24 + round(row * 1.3), top))
    paper, ink = rng.choice(_PAPERS), rng.choice(_INKS)
    image = print_mask(small, Inks(paper, ink))
    image.paste(rng.choice(_INKS), (0, 0), large)
    return wear(image, rng, noise)


def _write_price(rng: random.Random, mask: Image.Image, tag: Tag, face: str, rows: tuple[int, int]) -> None:
    """Write euros large and cents small and raised, with the currency's sign in front, behind or absent."""
    top, bottom = rows
    sign = rng.choice(("", "€"))
    euros, cents = str(tag.euros), f"{tag.cents:02}"
    size = min(round((bottom - top) * 0.6), _fitting(face, sign + euros + "000", mask.width * 3 // 4, 50))
    raised = round(size * 0.6)
    width = text_width(face, raised, sign) + text_width(face, size, euros) + text_width(face, raised, cents) + size // 8
    x = max(4, round((mask.width - width) * rng.uniform(0.2, 0.8)))
    y = top + max(0, (bottom - top - round(size * 1.2)) // 2)
    if sign:
        draw_text(mask, (x, y + size // 10), sign, face, raised)
        x += text_width(face, raised, sign)
    draw_text(mask, (x, y), euros, face, size)
    head = ink_box(face, size, euros)[1] - ink_box(face, raised, cents)[1]
    draw_text(mask, (x + text_width(face, size, euros) + size // 8, y + head), cents, face, raised)


def _fitting(face: str, text: str, width: int, size: int) -> int:
    """Return the largest size up to ``size`` at which a text fits a width."""
    while size > 8 and text_width(face, size, text) > width:
        size -= 1
    return size
