"""Shards as samples, in the order of their files."""

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from .. import shard_files
from ..conversations import OnBadSample
from ..faults import BadSampleError, Fault, refusal
from ..samples import Origin, RecordSource, Sample
from .light_rows import Row
from .measuring import measure
from .parquet import ParquetSamples, stored_parquet, streamed_parquet
from .rows import Rows, StoredRows
from .tars import stored_tars, streamed_tars
from .walk import ShardWalk

MakeSample = Callable[[Row, Origin], Sample]


class ShardedDataset(RecordSource):
    """Parquet or WebDataset shards as samples, in the order of the files.

    Args:
        path: Shards, see ``shard_files``.
        image_folder: Where images lie that rows name instead of holding them; the shards' folder by default.
        streaming: Read the shards where they lie. By default ``datasets`` stores them once in its cache as Arrow
            files, which needs their size again on the disk, and checks all records.
        on_bad_sample: "stop": a record that cannot be used is an error, when it is met in a stream, else at once.
            "skip": they stand in ``faults``, and reading one raises ``BadSampleError``: its place in the walk stays.
        count: Samples that an epoch counts, for streams whose length cannot be known beforehand.

    Raises:
        ValueError: No shard is there, or stored records cannot be used.
    """

    def __init__(
        self,
        path: str | Path,
        image_folder: str | Path | None = None,
        *,
        streaming: bool = False,
        on_bad_sample: OnBadSample = "stop",
        count: int | None = None,
    ) -> None:
        self.path = path
        self.files = shard_files.shard_files(path)
        self.faults: list[Fault] = []
        self._count = count
        if not self.files[0].endswith(shard_files.PARQUET):
            if image_folder is not None:
                raise ValueError(f"{path}: 'image_folder' is not for tars, which hold their images")
            self._make: MakeSample = shard_files.sample_of_tar_row
            self.rows: Rows = streamed_tars(self.files) if streaming else stored_tars(self.files)
        else:
            folder = Path(image_folder) if image_folder is not None else Path(self.files[0]).parent
            self._make = ParquetSamples(folder)
            self.rows = streamed_parquet(self.files) if streaming else stored_parquet(self.files)
        if isinstance(self.rows, StoredRows):
            self._check(self.rows, on_bad_sample)

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
            BadSampleError: It cannot be used.
        """
        return self._make(self.rows.row(shard, index), Origin(self.files[shard], index))

    def image_sizes(self, index: int) -> list[tuple[int, int]]:
        """Return (height, width) of each image; empty for a sample that cannot be used."""
        return measure(self, index)[0]

    def text_length(self, index: int) -> int:
        """Return the characters of a sample's texts; 0 for one that cannot be used."""
        return measure(self, index)[1]

    def walk(self, seed: Sequence[int]) -> ShardWalk:
        """Return the endless walk of a seed."""
        return ShardWalk(self, seed)

    def num_records(self) -> int | None:
        """Return the number of records, those that cannot be used included; None if a shard's length is unknown."""
        lengths = [self.rows.length(shard) for shard in range(len(self.files))]
        return None if None in lengths else sum(length or 0 for length in lengths)

    def records(self) -> Iterator[Sample | Fault]:
        """Yield every record in the files' order: a sample, or the fault that makes it unusable."""
        for shard in range(len(self.files)):
            index = 0
            while self.rows.reach(shard, index + 1) > index:
                try:
                    yield self.sample(shard, index)
                except BadSampleError as error:
                    yield error.fault
                index += 1

    @cached_property
    def _starts(self) -> list[int]:
        lengths = [self.rows.length(shard) for shard in range(len(self.files))]
        unknown = next((file for file, length in zip(self.files, lengths, strict=True) if length is None), None)
        if unknown is not None:
            raise ValueError(
                f"the length of {unknown} cannot be known without reading it: say how many samples {self.path} has "
                "(count), or give max_steps instead of epochs"
            )
        return [0, *np.cumsum([length or 0 for length in lengths]).tolist()]

    def _check(self, rows: StoredRows, on_bad_sample: OnBadSample) -> None:
        for shard, index, row in rows.without_images():
            try:
                self._make(row, Origin(self.files[shard], index))
            except BadSampleError as error:
                self.faults.append(error.fault)
        if self.faults and on_bad_sample == "stop":
            raise ValueError(refusal(self.faults, str(self.path)))
        if len(self.faults) == self._starts[-1] and on_bad_sample != "list":
            raise ValueError(f"{self.path} holds no records" + " that can be used" * bool(self.faults))
