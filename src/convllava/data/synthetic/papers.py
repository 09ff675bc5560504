"""What stands on receipts, price lists, tables, forms, labels and signs: rows with the facts they hold.

Words of a paper's own language (Total, Date, Name, Open) serve both splits; all that varies belongs to one.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass

from . import names, text
from .typesetting import Cell, Fact, Row
from .words import any_word

_MOST_ARTICLES = 14


@dataclass(frozen=True)
class Brief:
    """What a paper is written for: a split's words, room for so many plain rows, the case of its articles."""

    split: str
    rows: int
    case: Callable[[str], str] = str.capitalize


CASES = (str.capitalize, str.capitalize, str.title, str.upper, str.lower)
"""How a page may write the names of its articles, the commonest twice."""


Paper = Callable[[random.Random, Brief], list[Row]]


def receipt(rng: random.Random, brief: Brief) -> list[Row]:
    """Write a shop's receipt: head, articles with prices, sums that add up."""
    money = _money(rng)
    head = [_title(rng, names.shop(rng, brief.split), _SELLER), *_receipt_head(rng, brief)]
    foot = _receipt_foot(rng, brief)
    prices = _prices(rng, brief.rows - len(head) - 5)
    articles = [_article_row(brief, name, money(price)) for name, price in _articles(rng, brief, prices)]
    return [*head, _divider(rng), *articles, _divider(rng), *_sums(rng, brief, prices, money), *foot]


def price_list(rng: random.Random, brief: Brief) -> list[Row]:
    """Write a menu or a price list: a title and articles with prices."""
    money = _money(rng)
    title = rng.choice(("Menu", "Price list", "Today", "Prices", names.shop(rng, brief.split)))
    fact = Fact("the title", ("What is the title?", "What is the heading?"))
    prices = _prices(rng, brief.rows - 2)
    articles = [_article_row(brief, name, money(price)) for name, price in _articles(rng, brief, prices)]
    return [_title(rng, title, fact), _divider(rng), *articles]


def table(rng: random.Random, brief: Brief) -> list[Row]:
    """Write a table of articles, quantities and prices beneath a heading."""
    head = rng.choice((("Item", "Qty", "Price"), ("Article", "Pcs", "Cost"), ("Name", "No", "EUR")))
    prices = _prices(rng, brief.rows - 4)
    rows = []
    for name, price in _articles(rng, brief, prices):
        quantity = Cell(str(rng.randint(1, 60)), _quantity_of(name))
        rows.append(
            Row((Cell(brief.case(name)), quantity, Cell(f"{price / 100:.2f}", _price_of(name))), "spread")
        )
    title = _title(rng, names.shop(rng, brief.split), _SELLER)
    total = Row((Cell("Total"), Cell(f"{sum(prices) / 100:.2f}", _TOTAL)), "spread", bold=True)
    heading = Row(tuple(Cell(word) for word in head), "spread", bold=True)
    return [title, heading, Row(rule=True), *rows, Row(rule=True), total]


def form(rng: random.Random, brief: Brief) -> list[Row]:
    """Write a filled-in form: labels and values."""
    title = rng.choice(("Form", "Registration", "Application", "Contact", "Member card", "Order", "Visitor"))
    align, colon = rng.choice((("left", ":"), ("left", ":"), ("tab", ""), ("tab", ":"), ("spread", "")))
    chosen = rng.sample(list(_FORM_VALUES), _how_many(rng, min(len(_FORM_VALUES), brief.rows - 2)))
    rows = [_labelled_row(label, colon, _FORM_VALUES[label](rng, brief.split), align) for label in chosen]
    return [_title(rng, title, Fact("the title", ("What is the heading?",))), _divider(rng), *rows]


def label(rng: random.Random, brief: Brief) -> list[Row]:
    """Write the label of a product or a parcel."""
    if rng.random() < 0.5:
        return [_title(rng, "Parcel", None), *_some_values(rng, brief, _PARCEL_VALUES)]
    fact = Fact("the name of the product", ("What is the product?", "Which product is it?"))
    name = brief.case(names.article_name(rng, brief.split))
    return [_title(rng, name, fact), *_some_values(rng, brief, _PRODUCT_VALUES)]


def sign(rng: random.Random, brief: Brief) -> list[Row]:
    """Write a sign: a headline in large letters, at times hours, a telephone or a discount."""
    words = " ".join(any_word(rng, brief.split) for _ in range(rng.choice((1, 1, 2))))
    fact = Fact(
        "the headline", ("What is the headline?", "What stands at the top?", "What do the large letters say?")
    )
    headline = Row((Cell(brief.case(words), fact),), "centre", scale=rng.choice((1.4, 1.7, 2.0)), bold=True)
    extras = (_opening_row, _sale_row, _phone_row, _saying_row)
    chosen = rng.sample(extras, rng.randint(1, min(3, max(1, brief.rows - 3))))
    return [headline, *(extra(rng, brief) for extra in chosen)]


PAPERS: dict[str, Paper] = {
    "receipt": receipt,
    "price_list": price_list,
    "table": table,
    "form": form,
    "label": label,
    "sign": sign,
}
"""Every paper by name."""

_SELLER = Fact(
    "the name of the shop",
    ("Who is it from?", "Which shop is it from?", "Which company is it?", "Who sells this?"),
)
_DATE = Fact("the date", ("When was it issued?", "What day is on it?", "Which date does it show?"))
_TIME = Fact("the time", ("At what time was it issued?", "What time does it show?"))
_PHONE = Fact("the phone number", ("Which number can one call?", "What is the telephone number?"))
_ADDRESS = Fact("the street", ("What is the address?", "In which street is it?"))
_NUMBER = Fact("the receipt number", ("What is the number of the receipt?",))
_TOTAL = Fact("the total", ("How much is it in all?", "What is the total amount?", "How much is to be paid?"))


def _receipt_head(rng: random.Random, brief: Brief) -> list[Row]:
    align = rng.choice(("left", "centre"))
    date = Cell(text.date(rng, brief.split), _DATE)
    rows = [
        Row((Cell(names.street(rng, brief.split), _ADDRESS),), align),
        Row((Cell(rng.choice(("Tel", "Tel:", "Phone:"))), Cell(text.phone(rng, brief.split), _PHONE)), align),
        Row(
            (Cell(rng.choice(("Receipt", "No", "Receipt:"))), Cell(text.code(rng, brief.split), _NUMBER)),
            align,
        ),
    ]
    extra = rng.sample(rows, rng.randint(0, min(3, max(0, brief.rows - 7))))
    dated = rng.choice(
        (
            Row((date,), align),
            Row((Cell("Date:"), date), align),
            Row((date, Cell(text.time(rng, brief.split), _TIME)), rng.choice((align, "spread"))),
        )
    )
    return [*extra, dated]


def _receipt_foot(rng: random.Random, brief: Brief) -> list[Row]:
    if brief.rows < 9 or rng.random() < 0.5:
        return []
    thanks = rng.choice(("Thank you!", "Thank you", "See you soon", "Come again", "Have a nice day"))
    return [Row((Cell(thanks),), "centre")]


def _sums(rng: random.Random, brief: Brief, prices: list[int], money: Callable[[int], str]) -> list[Row]:
    rows, total = [], sum(prices)
    if brief.rows >= 9 and rng.random() < 0.5:
        tax = round(total * rng.choice((5, 7, 8, 10, 20)) / 100)
        rows.append(
            _sum_row(rng.choice(("Subtotal", "Sub total", "Net")), money(total), Fact("the subtotal"))
        )
        rows.append(_sum_row(rng.choice(("Tax", "VAT", "Sales tax")), money(tax), Fact("the tax")))
        total += tax
    label = rng.choice(("Total", "TOTAL", "Total:", "Amount due", "Grand total"))
    rows.append(_sum_row(label, money(total), _TOTAL, bold=True))
    if brief.rows >= 10 and rng.random() < 0.4:
        paid = total + rng.randrange(2000)
        rows.append(
            _sum_row(
                rng.choice(("Cash", "Paid")), money(paid), Fact("the amount paid", ("How much was paid?",))
            )
        )
        rows.append(
            _sum_row("Change", money(paid - total), Fact("the change", ("How much change was given?",)))
        )
    return rows


def _sum_row(label: str, value: str, fact: Fact, bold: bool = False) -> Row:
    return Row((Cell(label), Cell(value, fact)), "spread", bold=bold)


def _articles(rng: random.Random, brief: Brief, prices: list[int]) -> list[tuple[str, int]]:
    """Give each price, in cents, a name of its own."""
    found: dict[str, int] = {}
    for price in prices:
        while (name := names.article_name(rng, brief.split)) in found:
            pass
        found[name] = price
    return list(found.items())


def _prices(rng: random.Random, room: int) -> list[int]:
    count = _how_many(rng, min(_MOST_ARTICLES, room))
    return [
        rng.choice((rng.randint(50, 999), rng.randint(50, 9999), 10 * rng.randint(5, 400)))
        for _ in range(count)
    ]


def _article_row(brief: Brief, name: str, price: str) -> Row:
    return Row((Cell(brief.case(name)), Cell(price, _price_of(name))), "spread")


def _labelled_row(label: str, mark: str, value: str, align: str) -> Row:
    phrase, *questions = _ASKED_BY_LABEL.get(label, (f"the {label.lower()}",))
    return Row((Cell(label + mark), Cell(value, Fact(phrase, tuple(questions)))), align)


def _some_values(rng: random.Random, brief: Brief, values: dict[str, text.Writer]) -> list[Row]:
    chosen = set(rng.sample(list(values), _how_many(rng, min(len(values), brief.rows - 2))))
    return [
        _labelled_row(name, ":", values[name](rng, brief.split), "left") for name in values if name in chosen
    ]


def _how_many(rng: random.Random, most: int) -> int:
    """Draw a number from 1 to ``most``, rather a large one, so that pages are well filled."""
    return max(rng.randint(1, max(1, most)), rng.randint(1, max(1, most)))


def _price_of(name: str) -> Fact:
    return Fact(f"the price of the {name}", (f"How much is the {name}?", f"What does the {name} cost?"))


def _quantity_of(name: str) -> Fact:
    return Fact(f"the quantity of the {name}", (f"How many of the {name} are listed?",))


def _title(rng: random.Random, title: str, fact: Fact | None) -> Row:
    shown = title.upper() if rng.random() < 0.3 else title
    align = rng.choice(("centre", "centre", "left"))
    return Row((Cell(shown, fact),), align, scale=rng.choice((1.0, 1.2, 1.4)), bold=rng.random() < 0.8)


def _divider(rng: random.Random) -> Row:
    return Row(rule=rng.random() < 0.5)


def _money(rng: random.Random) -> Callable[[int], str]:
    """Choose how a page writes sums given in cents."""
    pattern = rng.choice(("{:.2f}", "{:.2f}", "{:.2f}", "${:.2f}", "£{:.2f}", "€{:.2f}", "{:.2f} €"))
    return lambda cents: pattern.format(cents / 100)


def _opening_row(rng: random.Random, brief: Brief) -> Row:
    hours = (
        f"{rng.randint(6, 11)}:{rng.choice(('00', '30'))} - {rng.randint(14, 22)}:{rng.choice(('00', '30'))}"
    )
    fact = Fact("the opening hours", ("When is it open?", "From when to when is it open?"))
    return Row((Cell("Open"), Cell(hours, fact)), "centre")


def _sale_row(rng: random.Random, brief: Brief) -> Row:
    fact = Fact("the discount", ("By how much are prices cut?", "How large is the discount?"))
    return Row((Cell("Sale"), Cell(f"-{5 * rng.randint(1, 16)}%", fact)), "centre")


def _phone_row(rng: random.Random, brief: Brief) -> Row:
    return Row((Cell("Call"), Cell(text.phone(rng, brief.split), _PHONE)), "centre")


def _saying_row(rng: random.Random, brief: Brief) -> Row:
    return Row((Cell(" ".join(any_word(rng, brief.split) for _ in range(rng.choice((1, 2))))),), "centre")


def _years(rng: random.Random, split: str) -> str:
    return str(rng.randint(18, 90))


def _weight(rng: random.Random, split: str) -> str:
    return rng.choice(
        (f"{rng.randint(1, 99) * 10} g", f"{rng.randint(1, 250) / 10:.1f} kg", f"{rng.randint(1, 90)} kg")
    )


_FORM_VALUES: dict[str, text.Writer] = {
    "Name": names.person,
    "City": names.town,
    "Street": names.street,
    "Phone": text.phone,
    "E-mail": text.email,
    "Date": text.date,
    "Age": _years,
    "Number": text.code,
    "Fee": text.amount,
    "Company": names.shop,
}

_PARCEL_VALUES: dict[str, text.Writer] = {
    "From": names.shop,
    "To": names.person,
    "Street": names.street,
    "City": names.town,
    "Weight": _weight,
    "Number": text.code,
}

_PRODUCT_VALUES: dict[str, text.Writer] = {
    "Weight": _weight,
    "Price": text.amount,
    "Best before": text.date,
    "Lot": text.code,
    "Made by": names.shop,
}

_ASKED_BY_LABEL: dict[str, tuple[str, ...]] = {
    "Name": ("the name", "Who filled in the form?"),
    "City": ("the city", "Which city is given?"),
    "Phone": ("the phone number", "Which number can one call?"),
    "E-mail": ("the e-mail address", "Which e-mail address is given?"),
    "Date": ("the date", "Which date does it show?"),
    "Age": ("the age", "How old is the person?"),
    "Fee": ("the fee", "How much is the fee?"),
    "Company": ("the company", "Which company is named?"),
    "From": ("the sender", "Who is it from?", "Who sent it?"),
    "To": ("the recipient", "Who is it for?", "Who shall get it?"),
    "Weight": ("the weight", "How heavy is it?", "How much does it weigh?"),
    "Price": ("the price", "How much is it?", "What does it cost?"),
    "Best before": ("the best-before date", "Until when is it good?"),
    "Lot": ("the lot number", "Which lot is it from?"),
    "Made by": ("the maker", "Who made it?"),
}
"""For a label, the noun phrase of its value and further ways to ask for it."""
