"""Layouts without structure, which fill the page with text to read."""

import string
from collections.abc import Callable

from .. import text
from . import prose, values
from .blocks import Block, Stack, paragraph, shorten, text_row
from .parts import two_columns
from .sheet import Sheet

_CHARACTERS = string.ascii_letters * 2 + string.digits * 3 + string.punctuation + "£€"
"""Characters to draw from, letters and digits more often than punctuation."""


def fields(sheet: Sheet) -> None:
    """Fill some lines with words, amounts, dates, codes and similar texts."""
    _fill(sheet, lambda: _field(sheet))


def characters(sheet: Sheet) -> None:
    """Fill some lines with characters in random order, from which the shapes of letters are learned fastest."""
    rng = sheet.rng
    _fill(sheet, lambda: "".join(rng.choices(_CHARACTERS, k=rng.choice((1, 2, 3, 5, 8)))))


def dense(sheet: Sheet) -> None:
    """Fill the page with paragraphs without large gaps."""
    rng = sheet.rng
    sheet.page.name = rng.choice(("image", "page", "paragraph"))
    align = rng.choice(("left", "left", "justify", "justify", "center", "right"))
    if sheet.columns > 24 and rng.random() < 0.3:
        half = 0.47 * sheet.width
        sides: list[Block] = [_filled(sheet, half, align), _filled(sheet, half, align)]
        sheet.add(two_columns(sheet, sides, (half, half), 0.06 * sheet.width))
        return
    rows = sheet.rows if rng.random() < 0.6 else rng.randint(1, max(1, sheet.rows))
    while rows > 0 and sheet.rows > 0:
        count = min(rows, sheet.rows, rng.randint(2, 12))
        block = _filled(sheet, sheet.width, align, count)
        if not sheet.add(block):
            return
        rows -= len(block.blocks)
        if rng.random() < 0.5:
            sheet.add(sheet.gap(0.4))


def _filled(sheet: Sheet, width: float, align: str, rows: int | None = None) -> Stack:
    rows = sheet.rows if rows is None else rows
    count = round(rows * width / (0.4 * sheet.size))
    body = prose.sentences(sheet.rng, sheet.split, count)
    return paragraph(body, sheet.text, width, align, rows)


def _field(sheet: Sheet) -> str:
    rng, split = sheet.rng, sheet.split
    kind = rng.random()
    if kind < 0.4:
        return text.any_text(rng, split)
    if kind < 0.7:
        return prose.phrase(rng, split)
    writer = rng.choice((values.amount, values.day, values.code, values.decimal, values.phone, values.whole_number))
    return writer(rng, split)


def _fill(sheet: Sheet, write: Callable[[], str]) -> None:
    """Add lines, each filled to a random share of the width."""
    rng = sheet.rng
    align = rng.choice(("left", "left", "left", "center", "right"))
    most = max(1, sheet.rows)
    count = rng.choice((1, most, most, rng.randint(1, most)))
    for _ in range(count):
        target = sheet.width * rng.uniform(0.3, 1.0)
        line = write().strip()
        while sheet.text.width(line) < target:
            longer = f"{line} {write()}".strip()
            if sheet.text.width(longer) > sheet.width:
                break
            line = longer
        if not sheet.add(text_row(shorten(line, sheet.text, sheet.width), sheet.text, sheet.width, align)):
            return
