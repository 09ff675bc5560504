"""A progress bar on standard error."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from . import options as opt


class Advance(Protocol):
    """Updates a progress bar: items done, items in total if known, and a note."""

    def __call__(self, done: int, total: int | None, note: str = "") -> None: ...


@contextmanager
def progress_bar(description: str) -> Iterator[Advance]:
    """Show a progress bar with the remaining time on standard error, if that is a terminal."""
    from rich.progress import Progress, TextColumn

    console = opt.console(stderr=True)
    columns = (*Progress.get_default_columns(), TextColumn("{task.fields[note]}"))
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(description, total=None, note="")

        def advance(done: int, total: int | None, note: str = "") -> None:
            bar.update(task, completed=done, total=total, note=note)

        yield advance
