"""Parquet shards as rows, and their rows as samples."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .. import shard_files
from ..samples import Origin, Sample
from .light_rows import Row
from .rows import StoredRows, StreamedRows
from .through_datasets import explained, import_datasets

_STREAMED_ROWS = 64
"""Rows that a stream decodes at a time."""


class ParquetSamples:
    """Makes samples of rows; a class, so that a worker process can take it along."""

    def __init__(self, image_folder: Path) -> None:
        self.image_folder = image_folder

    def __call__(self, row: Row, origin: Origin) -> Sample:
        return shard_files.sample_of_parquet_row(row, origin, self.image_folder)


def stored_parquet(files: list[str]) -> StoredRows:
    lengths = [_parquet_length(file) for file in files]
    _check_columns(files[0])
    datasets = import_datasets()
    with explained(datasets, files):
        dataset = datasets.load_dataset("parquet", data_files={"train": files}, split="train")
    return StoredRows(dataset, lengths)


def streamed_parquet(files: list[str]) -> StreamedRows:
    _check_columns(files[0])
    import_datasets()
    return StreamedRows(_ParquetStream(files), _ParquetLengths(files))


class _ParquetStream:
    def __init__(self, files: list[str]) -> None:
        self.files = files

    def __call__(self, shard: int, start: int) -> Iterator[Row]:
        datasets = import_datasets()
        with explained(datasets, [self.files[shard]]):
            stream = datasets.load_dataset(
                "parquet", data_files={"train": [self.files[shard]]}, split="train", streaming=True
            )
            for table in stream.skip(start).with_format("arrow").iter(batch_size=_STREAMED_ROWS):
                yield from table.to_pylist()


class _ParquetLengths:
    def __init__(self, files: list[str]) -> None:
        self.files = files

    def __call__(self, shard: int) -> int:
        return _parquet_length(self.files[shard])


def _parquet_length(file: str) -> int:
    return int(_parquet_footer(file).num_rows)


def _check_columns(file: str) -> None:
    names = _parquet_footer(file).schema.to_arrow_schema().names
    if not {"conversations", "messages"} & set(names):
        raise ValueError(f"{file} has the columns {', '.join(names)}; it needs 'conversations' or 'messages'")


def _parquet_footer(file: str) -> Any:
    import fsspec
    from pyarrow import ArrowException  # type: ignore[import-untyped]
    from pyarrow.parquet import read_metadata  # type: ignore[import-untyped]

    try:
        with fsspec.open(file, "rb") as stream:
            return read_metadata(stream)
    except ArrowException as error:
        raise ValueError(f"{file} is not a parquet file that can be read ({error})") from error
