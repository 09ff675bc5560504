"""Memory that was freed, back to the system.

What the model computes with comes and goes in all sizes, and what is kept (features, keys and values) lies in between.
glibc keeps the holes for later, and over hours a server's resident memory grows far beyond what it uses.
"""

import ctypes
import sys
import time
from collections.abc import Callable

SECONDS_BETWEEN = 10.0
"""Giving back takes milliseconds, and a little more until the pages are there again."""


def _malloc_trim() -> Callable[[int], int] | None:
    """Return glibc's function; other C libraries have none."""
    return getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None


class Holes:
    """Gives the unused pages between what is used back to the system, now and then."""

    def __init__(self) -> None:
        self._give_back = _malloc_trim()
        self._next = time.monotonic() + SECONDS_BETWEEN

    def give_back_now_and_then(self) -> None:
        """Give back if the last time is long enough ago."""
        if self._give_back and time.monotonic() >= self._next:
            self._give_back(0)
            self._next = time.monotonic() + SECONDS_BETWEEN
