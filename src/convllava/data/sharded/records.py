"""Access to the records of shards: stored as Arrow files, or streamed window by window."""

import os
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any, Protocol

import numpy as np

from ...support import require

WINDOW = 512
"""Records that are shuffled together, and read together from a stream."""

KEPT_WINDOWS = 10
"""Windows of a stream that are kept in memory (compressed images): as many as batches are grouped from."""

Record = dict[str, Any]

UNREADABLE = "__unreadable__"
"""Key of a record whose text is not UTF-8; its value is the reason, None where it is."""


class RecordReader(Protocol):
    """Records of shards, stored or streamed."""

    def record(self, shard: int, index: int) -> Record:
        """Return one record; a stream reads its whole window."""
        ...

    def available(self, shard: int, count: int) -> int:
        """Return ``count``, or the shard's length if it is shorter, without reading beyond that."""
        ...

    def length(self, shard: int) -> int | None:
        """Return the shard's length; None if only reading all of it would tell."""
        ...


class StoredRecords:
    """Records in ``datasets``' memory-mapped Arrow files.

    Args:
        dataset: A ``datasets.Dataset`` that holds the shards one after another.
        lengths: Records of each shard.
    """

    def __init__(self, dataset: Any, lengths: Sequence[int]) -> None:
        self._dataset = dataset.with_format("arrow")  # the stored bytes: no image is decoded
        self._lengths = list(lengths)
        self._starts = [0, *np.cumsum(lengths).tolist()]
        if self._starts[-1] != len(dataset):
            raise ValueError(
                f"the cache of 'datasets' holds {len(dataset)} records, the shards {self._starts[-1]}: remove the "
                "cache (HF_DATASETS_CACHE), or use 'streaming: true'"
            )

    def record(self, shard: int, index: int) -> Record:
        start = self._starts[shard] + index
        [record] = records_of(self._dataset[start : start + 1])
        return record

    def available(self, shard: int, count: int) -> int:
        return min(count, self._lengths[shard])

    def length(self, shard: int) -> int:
        return self._lengths[shard]

    def without_images(self) -> Iterator[tuple[int, int, Record]]:
        """Yield shard, index and record, with empty bytes in place of each image, without reading the images."""
        for shard, (start, length) in enumerate(zip(self._starts, self._lengths, strict=False)):
            for first in range(0, length, WINDOW):
                table = self._dataset[start + first : start + min(first + WINDOW, length)]
                yield from ((shard, first + index, record) for index, record in enumerate(_without_bytes(table)))


class StreamedRecords:
    """Records read forwards, one window at a time; the last windows are kept.

    Args:
        open_shard: Returns an iterator over a shard's records from an index on.
        known_length: Returns a shard's length, or None if only reading the shard would tell.
    """

    def __init__(
        self, open_shard: Callable[[int, int], Iterator[Record]], known_length: Callable[[int], int | None]
    ) -> None:
        self._open_shard = open_shard
        self._known_length = known_length
        self._lengths: dict[int, int | None] = {}
        self._read: dict[int, int] = {}
        self._windows: OrderedDict[tuple[int, int], list[Record]] = OrderedDict()
        self._stream: tuple[int, int, int, Iterator[Record]] | None = None  # process, shard, next index, records

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_stream": None, "_windows": OrderedDict()}  # each worker opens its streams itself

    def record(self, shard: int, index: int) -> Record:
        return self._window(shard, index // WINDOW)[index % WINDOW]

    def available(self, shard: int, count: int) -> int:
        while (length := self.length(shard)) is None and self._read.get(shard, 0) < count:
            self._window(shard, self._read.get(shard, 0) // WINDOW)
        return count if length is None else min(count, length)

    def length(self, shard: int) -> int | None:
        if self._lengths.get(shard) is None:
            self._lengths[shard] = self._known_length(shard)
        return self._lengths[shard]

    def _window(self, shard: int, number: int) -> list[Record]:
        key = (shard, number)
        if key not in self._windows:
            self._windows[key] = self._read_window(shard, number)
            if len(self._windows) > KEPT_WINDOWS:
                self._windows.popitem(last=False)
        self._windows.move_to_end(key)
        return self._windows[key]

    def _read_window(self, shard: int, number: int) -> list[Record]:
        start = number * WINDOW
        position = (os.getpid(), shard, start)  # a forked worker must not read from its parent's open file
        if self._stream is None or self._stream[:3] != position:
            self._stream = (*position, self._open_shard(shard, start))
        stream = self._stream[3]
        records = list(islice(stream, WINDOW))
        self._stream = (os.getpid(), shard, start + len(records), stream)
        self._read[shard] = max(self._read.get(shard, 0), start + len(records))
        if len(records) < WINDOW:
            self._lengths[shard] = start + len(records)
        return records


def import_datasets() -> Any:
    """Import Hugging Face's ``datasets``.

    Raises:
        MissingPackageError: It is not installed.
    """
    return require("datasets", extra="train", purpose="parquet and WebDataset shards")


@contextmanager
def explained(datasets: Any, files: list[str]) -> Iterator[None]:
    """Turn errors of ``datasets`` and Arrow into one line with the files and the cause, which says more."""
    from pyarrow import ArrowException  # type: ignore[import-untyped]

    try:
        yield
    except (datasets.exceptions.DatasetsError, ArrowException, OSError) as error:
        cause = error.__cause__ if isinstance(error, datasets.exceptions.DatasetsError) else None
        raise ValueError(f"cannot read {files[0]}{' and others' * (len(files) > 1)}: {cause or error}") from error


def records_of(table: Any) -> list[Record]:
    """Return the records of an Arrow table; one whose text is not UTF-8 has the reason alone, under ``UNREADABLE``."""
    try:
        records: list[Record] = table.to_pylist()
    except UnicodeDecodeError as error:
        if len(table) == 1:
            return [{UNREADABLE: f"not UTF-8 text ({error})"}]
        return [record for index in range(len(table)) for record in records_of(table.slice(index, 1))]
    return records


def _without_bytes(table: Any) -> list[Record]:
    """Return the records of an Arrow table with empty bytes in place of images."""
    heavy = [field.name for field in table.schema if _holds_bytes(field.type)]
    light = len(heavy) < len(table.schema)
    records = records_of(table.drop_columns(heavy)) if light else [{} for _ in range(len(table))]
    for name in heavy:
        for record, count in zip(records, _image_counts(table.column(name)), strict=True):
            record[name] = [{"bytes": b"", "path": ""}] * count
    return records


def _holds_bytes(arrow_type: Any) -> bool:
    import pyarrow

    if pyarrow.types.is_list(arrow_type) or pyarrow.types.is_large_list(arrow_type):
        return _holds_bytes(arrow_type.value_type)
    if pyarrow.types.is_struct(arrow_type):
        fields = [arrow_type.field(index) for index in range(arrow_type.num_fields)]
        return any(field.name == "bytes" and _holds_bytes(field.type) for field in fields)  # not parts of messages
    return pyarrow.types.is_binary(arrow_type) or pyarrow.types.is_large_binary(arrow_type)


def _image_counts(column: Any) -> list[int]:
    """Return the number of images in each row of an Arrow column: of lists of images, or of single ones."""
    from pyarrow import compute, types

    counts: list[int] = []
    for chunk in column.chunks:
        if types.is_list(chunk.type) or types.is_large_list(chunk.type):
            rows = compute.list_parent_indices(chunk).to_numpy(zero_copy_only=False)
            present = _are_present(compute.list_flatten(chunk)).to_numpy(zero_copy_only=False)
            counts += np.bincount(rows[present.astype(bool)], minlength=len(chunk)).tolist()
        else:
            counts += [int(one) for one in _are_present(chunk).to_pylist()]
    return counts


def _are_present(images: Any) -> Any:
    """Return which images of an Arrow array are neither null nor structs of nulls."""
    from pyarrow import compute, types

    present = compute.is_valid(images)
    if not types.is_struct(images.type):
        return present
    fields = [images.type.field(index).name for index in range(images.type.num_fields)]
    held = [compute.is_valid(compute.struct_field(images, name)) for name in ("bytes", "path") if name in fields]
    return compute.and_(present, held[0] if len(held) == 1 else compute.or_(*held)) if held else present
