"""The table of layouts and the room that each needs."""

from collections.abc import Callable
from typing import NamedTuple

from . import lines, notices, papers, shopping
from .sheet import Sheet


class Layout(NamedTuple):
    """A layout: its composer, the least width in ems, the least number of lines, its frequency."""

    compose: Callable[[Sheet], None]
    columns: float
    rows: int
    weight: int


LAYOUTS: dict[str, Layout] = {
    "receipt": Layout(shopping.receipt, 10, 5, 12),
    "invoice": Layout(shopping.invoice, 13, 8, 9),
    "price_list": Layout(shopping.price_list, 9, 3, 5),
    "price_tag": Layout(shopping.price_tag, 5, 2, 3),
    "list": Layout(shopping.shopping_list, 6, 3, 4),
    "form": Layout(papers.form, 9, 2, 7),
    "letter": Layout(papers.letter, 10, 6, 4),
    "article": Layout(papers.article, 8, 3, 5),
    "table": Layout(papers.data_table, 11, 3, 10),
    "ticket": Layout(papers.ticket, 9, 3, 4),
    "badge": Layout(papers.badge, 8, 2, 4),
    "mixed": Layout(papers.mixed, 9, 3, 10),
    "plain": Layout(papers.plain_lines, 4, 1, 6),
    "sign": Layout(notices.sign, 4, 1, 6),
    "notice": Layout(notices.notice, 9, 4, 4),
    "parcel": Layout(notices.parcel, 9, 2, 3),
    "screen": Layout(notices.screen, 12, 5, 5),
    "note": Layout(notices.note, 7, 2, 4),
    "line": Layout(lines.fields, 1, 1, 0),
    "characters": Layout(lines.characters, 1, 1, 0),
    "dense": Layout(lines.dense, 3, 1, 0),
}
"""Every layout by name; those of weight 0 are not documents."""

DOCUMENTS = tuple(name for name, layout in LAYOUTS.items() if layout.weight)
