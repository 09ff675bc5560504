"""Shards as samples, in the order of their files."""

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from ..conversations import OnBadSample
from ..faults import BadSampleError, Fault, refusal
from ..formats import format_named
from ..samples import Origin, RecordSource, Sample, measure
from .files import PARQUET, list_shards
from .parquet import ParquetSamples, recognize_columns, stored_parquet, streamed_parquet
from .records import Record, RecordReader, StoredRecords
from .shuffled import ShuffledShards
from .tar import TarSamples, stored_tars, streamed_tars


class ShardedDataset(RecordSource):
    """Parquet or WebDataset shards as samples, in the order of the files.

    Args:
        path: Shards, see ``files.list_shards``.
        image_folder: Folder of images that records name instead of holding them; the shards' folder by default.
        streaming: Whether to read the shards in place. By default ``datasets`` stores them once in its cache as Arrow
            files, which needs their size again on the disk, and all records are checked.
        on_bad_sample: "stop": a record that cannot be used is an error, in a stream when it is read, else at once.
            "skip": faults are collected in ``faults``, and reading such a record raises ``BadSampleError``; the order
            of the others does not change.
        count: Samples in an epoch, for streams of unknown length.
        format: Name of the format of the records; by default that of each record of a tar, and that of the columns of
            the first parquet file.

    Attributes:
        format: The format of the records; None for tars whose records have their own.

    Raises:
        ValueError: There is no shard, or stored records cannot be used.
    """

    def __init__(
        self,
        path: str | Path,
        image_folder: str | Path | None = None,
        *,
        streaming: bool = False,
        on_bad_sample: OnBadSample = "stop",
        count: int | None = None,
        format: str | None = None,
    ) -> None:
        self.path = path
        self.files = list_shards(path)
        self.faults: list[Fault] = []
        self._count = count
        self.format = None if format is None else format_named(format)
        if not self.files[0].endswith(PARQUET):
            if image_folder is not None:
                raise ValueError(f"{path}: 'image_folder' is not for tars, which hold their images")
            self._make_sample: Callable[[Record, Origin], Sample] = TarSamples(self.format)
            self.reader: RecordReader = streamed_tars(self.files) if streaming else stored_tars(self.files)
        else:
            folder = Path(image_folder) if image_folder is not None else Path(self.files[0]).parent
            self.format = self.format or recognize_columns(self.files[0])
            self._make_sample = ParquetSamples(folder, self.format)
            self.reader = streamed_parquet(self.files) if streaming else stored_parquet(self.files)
        if isinstance(self.reader, StoredRecords):
            self._check(self.reader, on_bad_sample)

    def __len__(self) -> int:
        return self._count or self._starts[-1]

    def __getitem__(self, index: int) -> Sample:
        if not -len(self) <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        index %= len(self)
        shard = int(np.searchsorted(self._starts, index, side="right")) - 1
        return self.sample(shard, index - self._starts[shard])

    def sample(self, shard: int, index: int) -> Sample:
        """Return one sample of a shard.

        Raises:
            BadSampleError: The record cannot be used.
        """
        return self._make_sample(self.reader.record(shard, index), Origin(self.files[shard], index))

    def image_sizes(self, index: int) -> list[tuple[int, int]]:
        """Return (height, width) of each image; empty for a sample that cannot be used."""
        return measure(self, index)[0]

    def text_length(self, index: int) -> int:
        """Return the characters of a sample's texts; 0 for one that cannot be used."""
        return measure(self, index)[1]

    def shuffled(self, seed: Sequence[int]) -> ShuffledShards:
        """Return the samples in the random order of ``seed``, without end."""
        return ShuffledShards(self, seed)

    def num_records(self) -> int | None:
        """Return the number of records, those that cannot be used included; None if a shard's length is unknown."""
        lengths = [self.reader.length(shard) for shard in range(len(self.files))]
        return None if None in lengths else sum(length or 0 for length in lengths)

    def records(self) -> Iterator[Sample | Fault]:
        """Yield every record in the files' order: a sample, or the fault that makes it unusable."""
        for shard in range(len(self.files)):
            index = 0
            while self.reader.available(shard, index + 1) > index:
                try:
                    yield self.sample(shard, index)
                except BadSampleError as error:
                    yield error.fault
                index += 1

    @cached_property
    def _starts(self) -> list[int]:
        lengths = [self.reader.length(shard) for shard in range(len(self.files))]
        unknown = next((file for file, length in zip(self.files, lengths, strict=True) if length is None), None)
        if unknown is not None:
            raise ValueError(
                f"the length of {unknown} cannot be known without reading it: say how many samples {self.path} has "
                "(count), or give max_steps instead of epochs"
            )
        return [0, *np.cumsum([length or 0 for length in lengths]).tolist()]

    def _check(self, reader: StoredRecords, on_bad_sample: OnBadSample) -> None:
        for shard, index, record in reader.without_images():
            try:
                self._make_sample(record, Origin(self.files[shard], index))
            except BadSampleError as error:
                self.faults.append(error.fault)
        if self.faults and on_bad_sample == "stop":
            raise ValueError(refusal(self.faults, str(self.path)))
        if len(self.faults) == self._starts[-1] and on_bad_sample != "list":
            raise ValueError(f"{self.path} holds no records" + " that can be used" * bool(self.faults))
