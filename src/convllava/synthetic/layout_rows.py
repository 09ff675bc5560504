"""Rows that all layouts share: titles, labeled rows, articles and their prices."""

import random
from collections.abc import Callable
from dataclasses import dataclass

from . import names
from .typesetting import Cell, Fact, Row

_MAX_ARTICLES = 14


@dataclass(frozen=True)
class LayoutContext:
    """The input of a layout.

    Attributes:
        split: Split of the words.
        rows: Number of plain rows that fit.
        case: Function that sets the case of article names.
    """

    split: str
    rows: int
    case: Callable[[str], str] = str.capitalize


Layout = Callable[[random.Random, LayoutContext], list[Row]]

Money = Callable[[int], str]
"""Function that writes a sum given in cents."""

CASES = (str.capitalize, str.capitalize, str.title, str.upper, str.lower)
"""Cases of article names, the most common twice."""

SELLER = Fact(
    "the name of the shop",
    ("Who is it from?", "Which shop is it from?", "Which company is it?", "Who sells this?"),
)
PHONE = Fact("the phone number", ("Which number can one call?", "What is the telephone number?"))
TOTAL = Fact("the total", ("How much is it in all?", "What is the total amount?", "How much is to be paid?"))


def title_row(rng: random.Random, heading: str, fact: Fact | None) -> Row:
    """Return the title of a page."""
    shown = heading.upper() if rng.random() < 0.3 else heading
    align = rng.choice(("center", "center", "left"))
    return Row((Cell(shown, fact),), align, scale=rng.choice((1.0, 1.2, 1.4)), bold=rng.random() < 0.8)


def divider(rng: random.Random) -> Row:
    """Return a rule or a gap between two blocks."""
    return Row(rule=rng.random() < 0.5)


def money_writer(rng: random.Random) -> Money:
    """Choose the format of sums given in cents."""
    pattern = rng.choice(("{:.2f}", "{:.2f}", "{:.2f}", "${:.2f}", "£{:.2f}", "€{:.2f}", "{:.2f} €"))
    return lambda cents: pattern.format(cents / 100)


def prices(rng: random.Random, room: int) -> list[int]:
    """Draw prices in cents for at least one article and at most ``room``."""
    count = how_many(rng, min(_MAX_ARTICLES, room))
    return [rng.choice((rng.randint(50, 999), rng.randint(50, 9999), 10 * rng.randint(5, 400))) for _ in range(count)]


def how_many(rng: random.Random, maximum: int) -> int:
    """Draw a number from 1 to ``maximum``, large ones more often, so that pages are well filled."""
    return max(rng.randint(1, max(1, maximum)), rng.randint(1, max(1, maximum)))


def articles(rng: random.Random, context: LayoutContext, costs: list[int]) -> list[tuple[str, int]]:
    """Return a unique article name for each price in cents."""
    found: dict[str, int] = {}
    for price in costs:
        while (name := names.article_name(rng, context.split)) in found:
            pass
        found[name] = price
    return list(found.items())


def article_row(context: LayoutContext, name: str, price: str) -> Row:
    """Return the row of an article, with its price at the right."""
    return Row((Cell(context.case(name)), Cell(price, price_of(name))), "spread")


def price_of(name: str) -> Fact:
    """Return the questions about the price of an article."""
    return Fact(f"the price of the {name}", (f"How much is the {name}?", f"What does the {name} cost?"))
