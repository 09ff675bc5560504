"""Checks of the options of a generator, which come from a recipe or the command line."""

from collections.abc import Collection, Iterable, Sequence
from typing import Any

from ..support import did_you_mean

Size = tuple[int, int]
"""(height, width) in pixels."""

MAX_PIXELS = 1 << 26
"""Maximum height times width of a drawn image; drawing takes some 50 bytes a pixel."""

Range = tuple[float, float]
"""The smallest and the largest value."""


def check_name(what: str, name: object, known: Iterable[str]) -> None:
    """Raise ``ValueError`` unless ``name`` is known; the message gives the nearest known name."""
    names = list(known)
    if name in names:
        return
    hint = did_you_mean(name, names, cutoff=0.4) or ";"
    raise ValueError(f"unknown {what} {name!r}{hint} known: {', '.join(names)}")


def check_sizes(sizes: Sequence[Sequence[int]], smallest: int) -> tuple[Size, ...]:
    """Return the sizes as tuples; raise ``ValueError`` unless each is [height, width] of enough pixels."""
    if not sizes:
        raise ValueError("sizes is empty: give at least one [height, width]")
    return tuple(_check_size(size, smallest) for size in sizes)


def check_range(what: str, value: Sequence[float], lowest: float, highest: float) -> Range:
    """Return a (smallest, largest) pair; raise ``ValueError`` unless both are in order and within the limits."""
    if not isinstance(value, Sequence) or len(value) != 2 or not all(isinstance(v, int | float) for v in value):
        raise ValueError(f"{what} must be a pair [smallest, largest], got {value!r}")
    low, high = value
    if not lowest <= low <= high <= highest:
        raise ValueError(f"{what} must rise within {lowest}..{highest}, got {low}..{high}")
    return low, high


def check_fraction(what: str, value: float) -> None:
    """Raise ``ValueError`` unless the value is a number from 0 to 1."""
    if not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ValueError(f"{what} must be a number from 0 to 1, got {value!r}")


def check_questions(value: int) -> None:
    """Raise ``ValueError`` unless the number of questions about an image is a whole number of at least 1."""
    if not isinstance(value, int) or value < 1:
        raise ValueError(f"questions must be a whole number of at least 1, got {value!r}")


def check_tasks(tasks: Sequence[str], known: Collection[str], what: str = "task") -> tuple[str, ...]:
    """Return the tasks, or what else is listed, as a tuple; ``ValueError`` if none is given or known."""
    if isinstance(tasks, str) or not tasks:
        raise ValueError(f"{what}s must be a list with at least one of: {', '.join(known)}")
    for task in tasks:
        check_name(what, task, known)
    return tuple(tasks)


def _check_size(size: Any, smallest: int) -> Size:
    if not isinstance(size, Sequence) or len(size) != 2 or not all(isinstance(side, int) for side in size):
        raise ValueError(f"a size must be [height, width] in whole pixels, got {size!r}")
    height, width = size
    if min(height, width) < smallest:
        raise ValueError(f"size {height}x{width} is too small: each side needs at least {smallest} pixels")
    if height * width > MAX_PIXELS:
        raise ValueError(f"size {height}x{width} is too large: at most {MAX_PIXELS} pixels are drawn")
    return height, width
