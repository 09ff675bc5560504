"""Detection of answers that repeat one passage on and on."""

from collections.abc import Callable, Sequence

import numpy as np

MAX_PERIOD = 128
"""Maximum length of a repeated passage in tokens; a longer one needs more tokens than most contexts hold."""

REPEATS, MIN_TOKENS = 24, 128
"""A passage with letters is a loop from so many repeats and tokens on; a table with 23 equal rows is none."""

SYMBOL_REPEATS, MIN_SYMBOL_TOKENS = 64, 384
"""The same for a passage of digits, punctuation and blanks, of which dotted lines and tables of zeros are made: a page
is about 150 characters wide, and the ends of its lines count as part of the passage."""


class LoopDetector:
    """Finds out whether the end of an answer is one passage of at most `MAX_PERIOD` tokens, repeated.

    Takes the same few microseconds for each token, so that a whole answer takes linear time.

    Args:
        has_letters: Whether a passage of token ids reads as text with letters.
    """

    def __init__(self, has_letters: Callable[[Sequence[int]], bool]) -> None:
        self._has_letters = has_letters
        self._latest = np.full(2 * MAX_PERIOD, -1, dtype=np.int64)  # a ring, written twice
        self._count = 0
        # at [period - 1]: how many of the latest tokens in a row equal the one a period before
        self._matches = np.zeros(MAX_PERIOD, dtype=np.int64)

    def push(self, token: int) -> bool:
        """Take the next token of an answer and return whether the answer is in a loop."""
        place = self._count % MAX_PERIOD
        before = self._latest[place : place + MAX_PERIOD][::-1]  # [period - 1]: token so many places back
        self._matches = (self._matches + 1) * (before == token)
        self._latest[place] = self._latest[place + MAX_PERIOD] = token
        self._count += 1
        long_enough = self._matches >= _NEEDED
        if not long_enough.any():
            return False
        if (self._matches >= _SYMBOLS_NEEDED).any():
            return True
        # of several periods the shortest: passages of the others are made of the same tokens
        end = self._count % MAX_PERIOD + MAX_PERIOD
        passage = self._latest[end - 1 - int(long_enough.argmax()) : end]
        return self._has_letters(passage.tolist())


def _needed(repeats: int, tokens: int) -> np.ndarray:
    """Return for each period the number of tokens that equal the one a period before."""
    periods = np.arange(1, MAX_PERIOD + 1)
    return np.maximum((repeats - 1) * periods, tokens - periods)


_NEEDED, _SYMBOLS_NEEDED = _needed(REPEATS, MIN_TOKENS), _needed(SYMBOL_REPEATS, MIN_SYMBOL_TOKENS)
