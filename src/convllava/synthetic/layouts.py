"""Layouts of documents: price lists, tables, forms, labels and signs, and the table of all layouts.

Words of the layout (Total, Date, Name, Open) are in both splits; all variable text belongs to one.
"""

import random

from . import names, text
from .correspondence import business_card, invoice, letter
from .layout_rows import (
    PHONE,
    SELLER,
    TOTAL,
    Layout,
    LayoutContext,
    article_row,
    articles,
    divider,
    how_many,
    money_writer,
    price_of,
    prices,
    title_row,
)
from .receipts import receipt
from .typesetting import Cell, Fact, Row
from .words import any_word

_TITLE = Fact("the title", ("What is the title?", "What is the heading?"))
_PRODUCT = Fact("the name of the product", ("What is the product?", "Which product is it?"))
_HEADLINE = Fact("the headline", ("What is the headline?", "What stands at the top?", "What do the large letters say?"))
_HOURS = Fact("the opening hours", ("When is it open?", "From when to when is it open?"))
_DISCOUNT = Fact("the discount", ("By how much are prices cut?", "How large is the discount?"))


def price_list(rng: random.Random, context: LayoutContext) -> list[Row]:
    """Write a menu or a price list: a title and articles with prices."""
    money = money_writer(rng)
    heading = rng.choice(("Menu", "Price list", "Today", "Prices", names.shop(rng, context.split)))
    sold = articles(rng, context, prices(rng, context.rows - 2))
    rows = [article_row(context, name, money(price)) for name, price in sold]
    return [title_row(rng, heading, _TITLE), divider(rng), *rows]


def table(rng: random.Random, context: LayoutContext) -> list[Row]:
    """Write a table of articles, quantities and prices beneath a heading."""
    columns = rng.choice((("Item", "Qty", "Price"), ("Article", "Pcs", "Cost"), ("Name", "No", "EUR")))
    costs = prices(rng, context.rows - 4)
    rows = [_table_row(rng, context, name, price) for name, price in articles(rng, context, costs)]
    head = Row(tuple(Cell(column) for column in columns), "spread", bold=True)
    foot = Row((Cell("Total"), Cell(f"{sum(costs) / 100:.2f}", TOTAL)), "spread", bold=True)
    return [
        title_row(rng, names.shop(rng, context.split), SELLER),
        head,
        Row(rule=True),
        *rows,
        Row(rule=True),
        foot,
    ]


def form(rng: random.Random, context: LayoutContext) -> list[Row]:
    """Write a filled-in form: labels and values."""
    heading = rng.choice(("Form", "Registration", "Application", "Contact", "Member card", "Order", "Visitor"))
    align, mark = rng.choice((("left", ":"), ("left", ":"), ("tab", ""), ("tab", ":"), ("spread", "")))
    chosen = rng.sample(list(_FORM_VALUES), how_many(rng, min(len(_FORM_VALUES), context.rows - 2)))
    rows = [_labeled_row(label, mark, _FORM_VALUES[label](rng, context.split), align) for label in chosen]
    return [title_row(rng, heading, _TITLE), divider(rng), *rows]


def label(rng: random.Random, context: LayoutContext) -> list[Row]:
    """Write the label of a product or a parcel."""
    if rng.random() < 0.5:
        return [title_row(rng, "Parcel", None), *_some_values(rng, context, _PARCEL_VALUES)]
    name = context.case(names.article_name(rng, context.split))
    return [title_row(rng, name, _PRODUCT), *_some_values(rng, context, _PRODUCT_VALUES)]


def sign(rng: random.Random, context: LayoutContext) -> list[Row]:
    """Write a sign: a headline in large letters, at times hours, a telephone or a discount."""
    words = " ".join(any_word(rng, context.split) for _ in range(rng.choice((1, 1, 2))))
    scale = rng.choice((1.4, 1.7, 2.0))
    headline = Row((Cell(context.case(words), _HEADLINE),), "center", scale=scale, bold=True)
    extras = (_opening_row, _sale_row, _phone_row, _saying_row)
    chosen = rng.sample(extras, rng.randint(1, min(3, max(1, context.rows - 3))))
    return [headline, *(extra(rng, context) for extra in chosen)]


LAYOUTS: dict[str, Layout] = {
    "receipt": receipt,
    "price_list": price_list,
    "table": table,
    "form": form,
    "label": label,
    "sign": sign,
    "invoice": invoice,
    "letter": letter,
    "business_card": business_card,
}
"""Every layout by name."""

NANO_LAYOUTS = ("receipt", "price_list", "table", "form", "label", "sign")
"""Default layouts: those of the bundled model's training data and benchmarks, whose samples must not change."""


def _table_row(rng: random.Random, context: LayoutContext, name: str, price: int) -> Row:
    asked = Fact(f"the quantity of the {name}", (f"How many of the {name} are listed?",))
    cells = (
        Cell(context.case(name)),
        Cell(str(rng.randint(1, 60)), asked),
        Cell(f"{price / 100:.2f}", price_of(name)),
    )
    return Row(cells, "spread")


def _labeled_row(label: str, mark: str, value: str, align: str) -> Row:
    phrase, *questions = _ASKED_BY_LABEL.get(label, (f"the {label.lower()}",))
    return Row((Cell(label + mark), Cell(value, Fact(phrase, tuple(questions)))), align)


def _some_values(rng: random.Random, context: LayoutContext, values: dict[str, text.Writer]) -> list[Row]:
    chosen = set(rng.sample(list(values), how_many(rng, min(len(values), context.rows - 2))))
    return [_labeled_row(name, ":", values[name](rng, context.split), "left") for name in values if name in chosen]


def _opening_row(rng: random.Random, context: LayoutContext) -> Row:
    opens = f"{rng.randint(6, 11)}:{rng.choice(('00', '30'))}"
    closes = f"{rng.randint(14, 22)}:{rng.choice(('00', '30'))}"
    return Row((Cell("Open"), Cell(f"{opens} - {closes}", _HOURS)), "center")


def _sale_row(rng: random.Random, context: LayoutContext) -> Row:
    return Row((Cell("Sale"), Cell(f"-{5 * rng.randint(1, 16)}%", _DISCOUNT)), "center")


def _phone_row(rng: random.Random, context: LayoutContext) -> Row:
    return Row((Cell("Call"), Cell(text.phone(rng, context.split), PHONE)), "center")


def _saying_row(rng: random.Random, context: LayoutContext) -> Row:
    return Row((Cell(" ".join(any_word(rng, context.split) for _ in range(rng.choice((1, 2))))),), "center")


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
