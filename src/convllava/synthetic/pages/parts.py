"""Parts of documents: headings, labels with values, articles with prices, tables, prose and lists."""

import random
from collections.abc import Sequence
from typing import NamedTuple

from .. import names
from . import prose, values
from .blocks import Block, Cell, Columns, Panel, Row, Rule, Stack, Table, TableLook, paragraph, shorten, text_row
from .facts import COLUMN, COUNT, ITEM_AT, LABELED, PRICE, QUANTITY, TITLE, Fact
from .page import Lettering
from .sheet import Sheet

ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")


class Pair(NamedTuple):
    """A label, its value and the fact that the value answers."""

    label: str
    value: str
    fact: Fact


def heading(sheet: Sheet, text: str, fact: Fact | None = None, align: str | None = None) -> Block:
    """Return a heading; at times light on a dark bar."""
    rng = sheet.rng
    side = align or rng.choice(("left", "center", "center"))
    fact = fact or Fact(TITLE, sheet.page.name)
    if rng.random() < 0.18:
        letters = sheet.title.in_ink(sheet.palette.on_accent)
        padding = max(2, sheet.size // 4)
        row = text_row(text, letters, sheet.width - 2 * padding, side, fact)
        return Panel(row, padding, sheet.palette.accent)
    return text_row(text, sheet.title, sheet.width, side, fact)


def divider(sheet: Sheet) -> Block:
    """Return a rule or a gap."""
    kind = sheet.rng.random()
    if kind < 0.35:
        return sheet.gap(0.4)
    look = sheet.rng.choice(("solid", "solid", "dashed", "double"))
    return Rule(max(5, sheet.size // 2), sheet.palette.line, max(1, sheet.size // 16), look)


def pair(rng: random.Random, label: str, value: str, fact: Fact | None = None) -> Pair:
    """Return a label and its value; without a fact, questions name the label."""
    subject = label.lower() if rng.random() < 0.7 else label
    return Pair(label, value, fact or Fact(LABELED, subject))


def some_pairs(sheet: Sheet, count: int) -> list[Pair]:
    """Return labels and values of many kinds, no label twice."""
    found: dict[str, Pair] = {}
    for _ in range(3 * count):
        label, value = values.labeled_value(sheet.rng, sheet.split)
        if len(found) < count and label not in found:
            found[label] = pair(sheet.rng, label, value)
    return list(found.values())


def key_values(sheet: Sheet, pairs: Sequence[Pair], width: float | None = None, look: str | None = None) -> Stack:
    """Return labels with their values: beside (at once, at a tab stop or at the right edge) or below them."""
    rng = sheet.rng
    width = sheet.width if width is None else width
    looks = ("beside", "beside", "tab", "tab", "spread", "above") if width > 12 * sheet.size else ("beside", "above")
    look = look or rng.choice(looks)
    mark = rng.choice((":", ":", ":", "", " :")) if look != "above" else rng.choice(("", ":"))
    letters = sheet.bold if rng.random() < 0.4 else sheet.text
    upper = rng.random() < 0.15
    labels = [(item.label.upper() if upper else item.label) + mark for item in pairs]
    stop = min(max(map(letters.width, labels), default=0) + sheet.size, 0.6 * width)
    rows: list[Block] = []
    for item, label in zip(pairs, labels, strict=True):
        rows += _pair_rows(sheet, item, shorten(label, letters, 0.6 * width), (letters, look, stop, width))
    return Stack(rows)


def _pair_rows(sheet: Sheet, item: Pair, label: str, looks: tuple[Lettering, str, float, float]) -> list[Block]:
    letters, look, stop, width = looks
    end = letters.width(label)
    if look == "above":
        rows: list[Block] = [
            text_row(label, letters, width),
            text_row(item.value, sheet.text, width, "left", item.fact),
        ]
        return [*rows, sheet.gap(0.25)]
    left = {"beside": end + sheet.text.width(" "), "tab": max(stop, end + 4), "spread": end + 0.7 * sheet.size}[look]
    value = shorten(item.value, sheet.text, width - left)
    align = "right" if look == "spread" else "left"
    if left + sheet.text.width(value) > width:
        return [text_row(label, letters, width), text_row(item.value, sheet.text, width, "left", item.fact)]
    cells = (Cell(label, letters, 0, end), Cell(value, sheet.text, left, width, align, item.fact))
    return [Row(cells)]


class Article(NamedTuple):
    """Goods of a receipt, an invoice or a list: name, quantity, price of one and of all in cents."""

    name: str
    quantity: int
    unit: int
    price: int


def articles(sheet: Sheet, count: int) -> list[Article]:
    """Draw articles with different names."""
    rng = sheet.rng
    found: dict[str, Article] = {}
    for _ in range(4 * count):
        name = sheet.case(values.article(rng, sheet.split))
        if len(found) < count and name.lower() not in found:
            quantity = rng.choice((1, 1, 1, 2, 2, 3, 4, 5, rng.randint(6, 24)))
            unit = values.price(rng)
            found[name.lower()] = Article(name, quantity, unit, quantity * unit)
    return list(found.values())


def price_rows(sheet: Sheet, items: Sequence[Article], quantities: str = "none") -> list[Row]:
    """Return a line for each article with its price at the right; ``quantities`` may be ``none`` or ``first``."""
    rng, letters = sheet.rng, sheet.text
    leader = sheet.palette.line if rng.random() < 0.15 and quantities == "none" else None
    gap, start = 0.7 * sheet.size, 0.0
    # Simple programs write all prices from one place on instead of up to one.
    widest = max((letters.width(sheet.money(item.price)) for item in items), default=0)
    stop = sheet.width - widest if rng.random() < 0.2 else None
    counts = [f"{item.quantity}{rng.choice(('', 'x', ' x'))}" for item in items]
    if quantities == "first":
        start = max(map(letters.width, counts)) + gap
    rows = []
    for index, (item, count) in enumerate(zip(items, counts, strict=True)):
        amount = sheet.money(item.price)
        end = sheet.width - letters.width(amount) if stop is None else stop
        name = shorten(item.name, letters, end - gap - start)
        subject = name if rng.random() < 0.6 else name.lower()
        cells = [
            Cell(name, letters, start, end - gap, "left", _place_fact(rng, index, len(items))),
            Cell(amount, letters, end, sheet.width, "right" if stop is None else "left", Fact(PRICE, subject)),
        ]
        if quantities == "first":
            cells.insert(0, Cell(count, letters, 0, start, "left"))
        rows.append(Row(tuple(cells), leader))
    return rows


def _place_fact(rng: random.Random, index: int, count: int) -> Fact | None:
    """Return that an article is the first, second (...) or last one."""
    if index >= len(ORDINALS) or rng.random() < 0.6:
        return None
    order = "last" if index == count - 1 and rng.random() < 0.6 else ORDINALS[index]
    return Fact(ITEM_AT, f"{order} {rng.choice(('item', 'item', 'article', 'product'))}")


class Column(NamedTuple):
    """A column of a table: its name, its texts and how they are aligned."""

    name: str
    texts: list[str]
    align: str


def table(sheet: Sheet, columns: Sequence[Column], subject: str, row_names: bool = True) -> Table | None:
    """Return a table; columns that do not fit the width are left out, None if fewer than two are left.

    Args:
        sheet: The sheet.
        columns: Columns of equally many texts; the first names the rows.
        subject: Plural noun for the rows in questions, such as "items".
        row_names: Whether the first column names the rows, so that questions can.
    """
    rng, letters = sheet.rng, sheet.text
    padding = rng.uniform(0.3, 0.8) * sheet.size
    chosen = list(columns)
    while len(chosen) > 1:
        widths = [max(sheet.bold.width(c.name), *map(letters.width, c.texts)) + 2 * padding for c in chosen]
        if sum(widths) <= sheet.width:
            break
        chosen.pop(-2 if len(chosen) > 2 else -1)
    if len(chosen) < 2:
        return None
    full = rng.random() < 0.75
    extra = (sheet.width - sum(widths)) * (1 if full else rng.uniform(0, 0.3))
    shares = [extra * (0.5 if index == 0 else 0.5 / (len(chosen) - 1)) for index in range(len(chosen))]
    borders = [0.0]
    for width, share in zip(widths, shares, strict=True):
        borders.append(borders[-1] + width + share)
    borders[-1] = min(borders[-1], sheet.width)
    has_head = rng.random() < 0.85
    look = _table_look(sheet)
    rows = [_head_row(sheet, chosen, borders, padding, look)] if has_head else []
    rows += [
        _table_row(sheet, chosen, index, (borders, padding, row_names, has_head))
        for index in range(len(chosen[0].texts))
    ]
    sheet.page.facts.append((Fact(COUNT, subject), str(len(chosen[0].texts))))
    return Table(tuple(rows), tuple(borders), look, has_head)


def _table_look(sheet: Sheet) -> TableLook:
    rng, palette = sheet.rng, sheet.palette
    head = rng.choice((None, None, palette.accent, palette.tint))
    return TableLook(
        rng.choice(("none", "head", "head", "rows", "grid", "grid", "box")),
        palette.line,
        rng.randint(1, max(2, sheet.size // 4)),
        head,
        palette.tint if rng.random() < 0.2 else None,
        max(1, sheet.size // 18),
    )


def _head_row(sheet: Sheet, columns: Sequence[Column], borders: list[float], padding: float, look: TableLook) -> Row:
    letters = sheet.bold
    if look.head == sheet.palette.accent and look.head is not None:
        letters = letters.in_ink(sheet.palette.on_accent)
    ends = zip(columns, borders, borders[1:], strict=False)
    return Row(tuple(Cell(c.name, letters, left + padding, right - padding, c.align) for c, left, right in ends))


def _table_row(
    sheet: Sheet, columns: Sequence[Column], index: int, looks: tuple[list[float], float, bool, bool]
) -> Row:
    borders, padding, row_names, has_head = looks
    count = len(columns[0].texts)
    cells = []
    for number, (column, left, right) in enumerate(zip(columns, borders, borders[1:], strict=False)):
        fact = _cell_fact(sheet, columns, (number, index, count), row_names and has_head)
        cells.append(Cell(column.texts[index], sheet.text, left + padding, right - padding, column.align, fact))
    return Row(tuple(cells))


def _cell_fact(sheet: Sheet, columns: Sequence[Column], place: tuple[int, int, int], named: bool) -> Fact | None:
    rng = sheet.rng
    number, index, count = place
    column, row_name = columns[number], columns[0].texts[index]
    order = "last" if index == count - 1 and rng.random() < 0.5 else ORDINALS[index] if index < len(ORDINALS) else None
    name = column.name.lower() if column.name and rng.random() < 0.6 else column.name
    if number == 0 or not named or columns[0].texts.count(row_name) > 1:
        if order is None or not column.name:
            return None
        where = rng.choice((f"{order} {name} in the table", f"{name} in the {order} row", f"{order} {name}"))
        return Fact(ITEM_AT, where)
    if column.name in ("Price", "Unit price", "Cost") and rng.random() < 0.6:
        return Fact(PRICE, row_name)
    if column.name in ("Qty", "Quantity", "Pcs") and rng.random() < 0.6:
        return Fact(QUANTITY, row_name)
    subjects = (f"{name} of {row_name}", f"{name} for {row_name}", f"{name} of the {row_name}", f"{row_name}'s {name}")
    return Fact(COLUMN, rng.choice(subjects))


def prose_block(sheet: Sheet, width: float, max_lines: int, align: str | None = None) -> Stack:
    """Return a paragraph of sentences of at most ``max_lines`` lines."""
    rng = sheet.rng
    align = align or rng.choice(("left", "left", "justify", "justify", "center", "right"))
    letters = sheet.text
    characters = max_lines * width / (0.45 * sheet.size)
    indent = rng.choice((0, 0, 0, 1.5)) * sheet.size if align in ("left", "justify") else 0
    text = prose.sentences(rng, sheet.split, round(characters * rng.uniform(0.6, 1.05)))
    return paragraph(text, letters, width, align, max_lines, indent if width > 10 * sheet.size else 0)


def bullets(sheet: Sheet, count: int) -> Stack:
    """Return a list with marks or numbers."""
    rng = sheet.rng
    mark = rng.choice(("-", "-", "*", "{}.", "{}.", "{})", "[ ]", "[x]", "+", ">"))
    rows: list[Block] = []
    for index in range(count):
        start = f"{mark.format(index + 1)} "
        phrase = shorten(prose.phrase(rng, sheet.split), sheet.text, sheet.width - sheet.text.width(start))
        rows.append(sheet.line(start + phrase))
    return Stack(rows)


def two_columns(sheet: Sheet, blocks: Sequence[Block], widths: Sequence[float], gap: float) -> Columns:
    """Return blocks next to each other."""
    left, placed = 0.0, []
    for block, width in zip(blocks, widths, strict=True):
        placed.append((block, left, width))
        left += width + gap
    return Columns(tuple(placed), sheet.palette.line if sheet.rng.random() < 0.2 else None)


def person(sheet: Sheet) -> str:
    """Write the name of a person, at times with a title."""
    name = names.person(sheet.rng, sheet.split)
    return f"{sheet.rng.choice(('Mr.', 'Ms.', 'Dr.', 'Mrs.'))} {name}" if sheet.rng.random() < 0.1 else name
