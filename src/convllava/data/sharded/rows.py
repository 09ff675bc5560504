"""Rows of shards: stored as Arrow files, or streamed window by window."""

import os
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any, Protocol

import numpy as np

from .light_rows import Row, light_rows

WINDOW = 512
"""Rows that are shuffled together, and read together from a stream."""

KEPT_WINDOWS = 10
"""Windows of a stream that are kept in memory (compressed images): as many as batches are grouped from."""


class Rows(Protocol):
    """Rows of shards, stored or streamed."""

    def row(self, shard: int, index: int) -> Row:
        """Return one row; rows are asked for window by window."""
        ...

    def reach(self, shard: int, count: int) -> int:
        """Return ``count``, or the shard's length if it is shorter; never reads more than is asked for."""
        ...

    def length(self, shard: int) -> int | None:
        """Return the shard's length if it is known, or known without reading all of it."""
        ...


class StoredRows:
    """Rows in ``datasets``' memory-mapped Arrow files; ``dataset`` holds the shards one behind the other."""

    def __init__(self, dataset: Any, lengths: Sequence[int]) -> None:
        self._dataset = dataset.with_format("arrow")  # as stored: no image is decoded
        self._lengths = list(lengths)
        self._starts = [0, *np.cumsum(lengths).tolist()]
        assert self._starts[-1] == len(dataset), (self._starts[-1], len(dataset))

    def row(self, shard: int, index: int) -> Row:
        start = self._starts[shard] + index
        [row] = self._dataset[start : start + 1].to_pylist()
        return row

    def reach(self, shard: int, count: int) -> int:
        return min(count, self._lengths[shard])

    def length(self, shard: int) -> int:
        return self._lengths[shard]

    def without_images(self) -> Iterator[tuple[int, int, Row]]:
        """Yield shard, row number and row, with empty bytes for each image, without reading the images."""
        for shard, (start, length) in enumerate(zip(self._starts, self._lengths, strict=False)):
            for first in range(0, length, WINDOW):
                table = self._dataset[start + first : start + min(first + WINDOW, length)]
                yield from ((shard, first + index, row) for index, row in enumerate(light_rows(table)))


class StreamedRows:
    """Rows read forwards, one window at a time; the last windows are kept.

    Args:
        open_shard: Gives the rows of a shard, from a row on.
        known_length: Gives a shard's length where it can be had without reading the shard, else None.
    """

    def __init__(
        self, open_shard: Callable[[int, int], Iterator[Row]], known_length: Callable[[int], int | None]
    ) -> None:
        self._open_shard = open_shard
        self._known_length = known_length
        self._lengths: dict[int, int | None] = {}
        self._reached: dict[int, int] = {}
        self._windows: OrderedDict[tuple[int, int], list[Row]] = OrderedDict()
        self._stream: tuple[int, int, int, Iterator[Row]] | None = None  # process, shard, next row, rows

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_stream": None, "_windows": OrderedDict()}  # a worker opens streams of its own

    def row(self, shard: int, index: int) -> Row:
        return self._window(shard, index // WINDOW)[index % WINDOW]

    def reach(self, shard: int, count: int) -> int:
        while (length := self.length(shard)) is None and self._reached.get(shard, 0) < count:
            self._window(shard, self._reached.get(shard, 0) // WINDOW)
        return count if length is None else min(count, length)

    def length(self, shard: int) -> int | None:
        if self._lengths.get(shard) is None:
            self._lengths[shard] = self._known_length(shard)
        return self._lengths[shard]

    def _window(self, shard: int, number: int) -> list[Row]:
        key = (shard, number)
        if key not in self._windows:
            self._windows[key] = self._read(shard, number)
            if len(self._windows) > KEPT_WINDOWS:
                self._windows.popitem(last=False)
        self._windows.move_to_end(key)
        return self._windows[key]

    def _read(self, shard: int, number: int) -> list[Row]:
        start = number * WINDOW
        place = (os.getpid(), shard, start)  # a forked worker must not read from its parent's open file
        if self._stream is None or self._stream[:3] != place:
            self._stream = (*place, self._open_shard(shard, start))
        stream = self._stream[3]
        rows = list(islice(stream, WINDOW))
        self._stream = (os.getpid(), shard, start + len(rows), stream)
        self._reached[shard] = max(self._reached.get(shard, 0), start + len(rows))
        if len(rows) < WINDOW:
            self._lengths[shard] = start + len(rows)
        return rows
