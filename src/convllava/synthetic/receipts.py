"""Layout of receipts: a head, articles with prices, and correct sums."""

import random

from . import names, text
from .layout_rows import (
    PHONE,
    SELLER,
    TOTAL,
    LayoutContext,
    Money,
    article_row,
    articles,
    divider,
    money_writer,
    prices,
    title_row,
)
from .typesetting import Cell, Fact, Row

_DATE = Fact("the date", ("When was it issued?", "What day is on it?", "Which date does it show?"))
_TIME = Fact("the time", ("At what time was it issued?", "What time does it show?"))
_ADDRESS = Fact("the street", ("What is the address?", "In which street is it?"))
_NUMBER = Fact("the receipt number", ("What is the number of the receipt?",))
_PAID = Fact("the amount paid", ("How much was paid?",))
_CHANGE = Fact("the change", ("How much change was given?",))


def receipt(rng: random.Random, context: LayoutContext) -> list[Row]:
    """Write a shop's receipt; the fewer rows fit, the fewer optional ones it has."""
    money = money_writer(rng)
    head = [title_row(rng, names.shop(rng, context.split), SELLER), *_head(rng, context)]
    costs = prices(rng, context.rows - len(head) - 5)
    sold = [article_row(context, name, money(price)) for name, price in articles(rng, context, costs)]
    sums = _sums(rng, context, sum(costs), money)
    return [*head, divider(rng), *sold, divider(rng), *sums, *_foot(rng, context)]


def _head(rng: random.Random, context: LayoutContext) -> list[Row]:
    align = rng.choice(("left", "center"))
    street = Cell(names.street(rng, context.split), _ADDRESS)
    phone = Cell(text.phone(rng, context.split), PHONE)
    number = Cell(text.code(rng, context.split), _NUMBER)
    rows = [
        Row((street,), align),
        Row((Cell(rng.choice(("Tel", "Tel:", "Phone:"))), phone), align),
        Row((Cell(rng.choice(("Receipt", "No", "Receipt:"))), number), align),
    ]
    extra = rng.sample(rows, rng.randint(0, min(3, max(0, context.rows - 7))))
    return [*extra, _dated(rng, context, align)]


def _dated(rng: random.Random, context: LayoutContext, align: str) -> Row:
    date = Cell(text.date(rng, context.split), _DATE)
    time = Cell(text.time(rng, context.split), _TIME)
    return rng.choice(
        (
            Row((date,), align),
            Row((Cell("Date:"), date), align),
            Row((date, time), rng.choice((align, "spread"))),
        )
    )


def _foot(rng: random.Random, context: LayoutContext) -> list[Row]:
    if context.rows < 9 or rng.random() < 0.5:
        return []
    thanks = rng.choice(("Thank you!", "Thank you", "See you soon", "Come again", "Have a nice day"))
    return [Row((Cell(thanks),), "center")]


def _sums(rng: random.Random, context: LayoutContext, total: int, money: Money) -> list[Row]:
    rows = []
    if context.rows >= 9 and rng.random() < 0.5:
        tax = round(total * rng.choice((5, 7, 8, 10, 20)) / 100)
        rows += _tax_rows(rng, total, tax, money)
        total += tax
    label = rng.choice(("Total", "TOTAL", "Total:", "Amount due", "Grand total"))
    rows.append(_sum_row(label, money(total), TOTAL, bold=True))
    if context.rows >= 10 and rng.random() < 0.4:
        rows += _cash_rows(rng, total, money)
    return rows


def _tax_rows(rng: random.Random, net: int, tax: int, money: Money) -> list[Row]:
    return [
        _sum_row(rng.choice(("Subtotal", "Sub total", "Net")), money(net), Fact("the subtotal")),
        _sum_row(rng.choice(("Tax", "VAT", "Sales tax")), money(tax), Fact("the tax")),
    ]


def _cash_rows(rng: random.Random, total: int, money: Money) -> list[Row]:
    paid = total + rng.randrange(2000)
    return [
        _sum_row(rng.choice(("Cash", "Paid")), money(paid), _PAID),
        _sum_row("Change", money(paid - total), _CHANGE),
    ]


def _sum_row(label: str, value: str, fact: Fact, bold: bool = False) -> Row:
    return Row((Cell(label), Cell(value, fact)), "spread", bold=bold)
