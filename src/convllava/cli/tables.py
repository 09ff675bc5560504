"""Tables on a terminal: where the width is too small, columns are left out by importance, and a line names them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

GAP = 2
"""Blanks between two columns."""

NARROWEST = 16
"""Characters of a line of words below which a column is left out rather than wrapped further."""


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        name: Header; it may be wrapped at blanks.
        words: Whether its cells are words, which are aligned to the left and may wrap; numbers are never cut.
        rank: Order in which columns are left out, the highest first; those of rank 0 always stay.
    """

    name: str
    words: bool = False
    rank: int = 0


def print_table(
    console: "Console", title: str, columns: Sequence[Column], rows: "Sequence[Sequence[str | Text]]"
) -> None:
    """Print a table within the width of the console.

    Args:
        console: The console.
        title: Title of the table.
        columns: The columns.
        rows: The cells of each row, as many as there are columns.
    """
    from rich.table import Table
    from rich.text import Text

    shown = fitting(columns, rows, console.width)
    table = Table(title=Text(title), title_justify="left", box=None, pad_edge=False, header_style="bold")
    for index in shown:
        column = columns[index]
        justify = "left" if column.words else "right"
        table.add_column(column.name, justify=justify, no_wrap=not column.words, overflow="fold")  # type: ignore[arg-type]
        table.columns[-1].header = Text(column.name, no_wrap=False)
    for row in rows:
        table.add_row(*(Text(cell) if isinstance(cell, str) else cell for cell in (row[index] for index in shown)))
    console.print(table)
    if left_out := [column.name for index, column in enumerate(columns) if index not in shown]:
        console.print(f"(too narrow for: {', '.join(left_out)}; a wider terminal or --json shows them)")


def fitting(columns: Sequence[Column], rows: "Sequence[Sequence[str | Text]]", width: int) -> list[int]:
    """Return the indices of the columns that fit a width, those of the lowest ranks."""
    least = [_least_width(column, [str(row[index]) for row in rows]) for index, column in enumerate(columns)]
    shown = list(range(len(columns)))
    while sum(least[index] + GAP for index in shown) - GAP > width:
        dropped = max(shown, key=lambda index: (columns[index].rank, index))
        if columns[dropped].rank == 0:
            break
        shown.remove(dropped)
    return shown


def _least_width(column: Column, cells: Sequence[str]) -> int:
    """Return the width below which a column is cut, or has to wrap too often."""
    longest = max((len(line) for cell in cells for line in cell.splitlines()), default=0)
    word = max((len(word) for word in column.name.split()), default=0)
    return max(min(longest, NARROWEST) if column.words else longest, word)
