"""Samples of shards in a random order without end."""

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from ..samples import Sample, measure
from .records import WINDOW, RecordReader

KEPT_PERMUTATIONS = 64

KEPT_SIZES = 100_000
"""Samples whose image sizes and text lengths are remembered."""


class Shards(Protocol):
    """The part of a ``ShardedDataset`` that is shuffled."""

    path: str | Path
    files: list[str]
    reader: RecordReader

    def __len__(self) -> int: ...

    def sample(self, shard: int, index: int) -> Sample:
        """Return one sample of a shard."""
        ...


class ShuffledShards:
    """Samples of a sharded data set in the random order of a seed, pass after pass without end.

    Sample ``n`` depends on the seed and the data alone. Reading roughly in order is cheap; a far jump in a stream reads
    the records in between.
    """

    def __init__(self, dataset: Shards, seed: Sequence[int]) -> None:
        self._dataset = dataset
        self._seed = tuple(seed)
        self._starts = [0]  # first index of each segment (one shard in one pass), as far as they are known
        self._permutations: OrderedDict[tuple[int, ...], np.ndarray] = OrderedDict()
        self._sizes: OrderedDict[int, tuple[list[tuple[int, int]], int]] = OrderedDict()

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
        """Return the shard of a sample and the record's index in it."""
        if index < 0:
            raise IndexError(f"sample {index} of shuffled shards")
        segment = max(bisect_right(self._starts, index) - 1, 0)
        while True:
            shard = self._shard(segment)
            offset = index - self._starts[segment]
            available = self._dataset.reader.available(shard, offset + 1)
            if available > offset:
                return shard, self._shuffle(segment, shard, offset)
            segment += 1
            if segment == len(self._starts):
                self._starts.append(self._starts[-1] + available)
            self._check_progress(segment)

    def _shard(self, segment: int) -> int:
        """Return the shard of a segment: one pass has as many segments as there are shards."""
        number, rank = divmod(segment, len(self._dataset.files))
        return int(self._permutation(len(self._dataset.files), number)[rank])

    def _shuffle(self, segment: int, shard: int, offset: int) -> int:
        """Return the index of the record at ``offset`` once the windows of a shard are shuffled."""
        start = offset // WINDOW * WINDOW
        length = self._dataset.reader.available(shard, start + WINDOW) - start
        number = segment // len(self._dataset.files)
        return start + int(self._permutation(length, number, shard, start)[offset - start])

    def _permutation(self, length: int, *place: int) -> np.ndarray:
        """Return the permutation of (pass) for shards, or of (pass, shard, start) for a window."""
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
        if index not in self._sizes:
            self._sizes[index] = measure(self, index)
            if len(self._sizes) > KEPT_SIZES:
                self._sizes.popitem(last=False)
        return self._sizes[index]
