"""The random order in which shards are walked, without end."""

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from ..samples import Sample
from .measuring import measure
from .rows import WINDOW, Rows

KEPT_PERMUTATIONS = 64

KEPT_FACTS = 100_000
"""Sizes and lengths that a walk remembers, samples."""


class Shards(Protocol):
    """What is walked: a ``ShardedDataset``."""

    path: str | Path
    files: list[str]
    rows: Rows

    def __len__(self) -> int: ...

    def sample(self, shard: int, index: int) -> Sample:
        """Return one sample of a shard."""
        ...


class ShardWalk:
    """Samples of a sharded data set in the random order of a seed, pass after pass without end.

    Position ``n`` depends on the seed and the data alone. Asking for positions roughly in order is cheap; a far jump
    in a stream reads what lies between in the shard.
    """

    def __init__(self, dataset: Shards, seed: Sequence[int]) -> None:
        self._dataset = dataset
        self._seed = tuple(seed)
        self._starts = [0]  # of the segments, a shard in a pass each, as far as they are known
        self._permutations: OrderedDict[tuple[int, ...], np.ndarray] = OrderedDict()
        self._facts: OrderedDict[int, tuple[list[tuple[int, int]], int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> Sample:
        return self._dataset.sample(*self.locate(index))

    def image_sizes(self, index: int) -> list[tuple[int, int]]:
        """Return (height, width) of each image; empty for a sample that cannot be used."""
        return self._measured(index)[0]

    def text_length(self, index: int) -> int:
        """Return the characters of a sample's texts; 0 for one that cannot be used."""
        return self._measured(index)[1]

    def locate(self, index: int) -> tuple[int, int]:
        """Return shard and row of a position of the walk."""
        if index < 0:
            raise IndexError(f"position {index} of a walk")
        segment = max(bisect_right(self._starts, index) - 1, 0)
        while True:
            shard = self._shard(segment)
            row = index - self._starts[segment]
            reached = self._dataset.rows.reach(shard, row + 1)
            if reached > row:
                return shard, self._shuffled(segment, shard, row)
            segment += 1
            if segment == len(self._starts):
                self._starts.append(self._starts[-1] + reached)
            self._check_progress(segment)

    def _shard(self, segment: int) -> int:
        """Return the shard of a segment of the walk: one pass has as many segments as there are shards."""
        number, place = divmod(segment, len(self._dataset.files))
        return int(self._permutation(len(self._dataset.files), number)[place])

    def _shuffled(self, segment: int, shard: int, row: int) -> int:
        """Return the row that stands at ``row`` once the windows of a shard are shuffled."""
        start = row // WINDOW * WINDOW
        length = self._dataset.rows.reach(shard, start + WINDOW) - start
        number = segment // len(self._dataset.files)
        return start + int(self._permutation(length, number, shard, start)[row - start])

    def _permutation(self, length: int, *place: int) -> np.ndarray:
        """Return the permutation that belongs to a place of the walk."""
        key = (length, *place)
        if key not in self._permutations:
            rng = np.random.default_rng([*self._seed, len(place), *place])
            self._permutations[key] = rng.permutation(length)
            if len(self._permutations) > KEPT_PERMUTATIONS:
                self._permutations.popitem(last=False)
        return self._permutations[key]

    def _check_progress(self, segment: int) -> None:
        pass_before = segment - len(self._dataset.files)
        if pass_before >= 0 and self._starts[segment] == self._starts[pass_before]:
            raise ValueError(f"{self._dataset.path} holds no records")

    def _measured(self, index: int) -> tuple[list[tuple[int, int]], int]:
        if index not in self._facts:
            self._facts[index] = measure(self, index)
            if len(self._facts) > KEPT_FACTS:
                self._facts.popitem(last=False)
        return self._facts[index]
