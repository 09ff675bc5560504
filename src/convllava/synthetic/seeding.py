"""Random streams and splits that are the same on every machine and in every process."""

import random
from collections.abc import Sequence
from hashlib import blake2b
from typing import TypeVar

T = TypeVar("T")

SPLITS = ("train", "heldout")

_HELDOUT_SHARE = 5
"""One word in five belongs to the held-out split."""


def stable_hash(*parts: object) -> int:
    """Return a 64-bit hash of the parts' text; unlike ``hash()`` it does not change between processes."""
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big")


def stream(*parts: object) -> random.Random:
    """Return a generator of random numbers that depends on the parts alone."""
    return random.Random(stable_hash(*parts))


def split_of(word: str) -> str:
    """Return the split that a word belongs to; case does not matter."""
    return "heldout" if stable_hash("split", word.lower()) % _HELDOUT_SHARE == 0 else "train"


def only(split: str, words: Sequence[str]) -> tuple[str, ...]:
    """Return the words that belong to a split, in order."""
    return tuple(word for word in words if split_of(word) == split)


def shuffled(rng: random.Random, items: Sequence[T]) -> list[T]:
    """Return the items in random order; the argument is unchanged."""
    return rng.sample(items, len(items))
