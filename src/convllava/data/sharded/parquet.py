"""Parquet shards.

A record has ``conversations`` or ``messages`` (see ``data.records``) and its images under ``image`` or ``images``:
images as ``datasets`` stores them ({bytes, path}), bytes, or file names next to the shard.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..faults import BadSampleError, Fault
from ..images import EncodedImage, StoredImage, missing, outside, path_in
from ..records import read_sample, record_id, stored_images
from ..samples import Origin, Sample
from .records import UNREADABLE, Record, StoredRecords, StreamedRecords, explained, import_datasets, records_of

_STREAMED_RECORDS = 64
"""Records that a stream decodes at a time."""


class ParquetSamples:
    """Converts parquet records to samples; a class, so that worker processes can pickle it.

    Args:
        image_folder: Folder of images that records name instead of holding them.
    """

    def __init__(self, image_folder: Path) -> None:
        self.image_folder = image_folder

    def __call__(self, record: Record, origin: Origin) -> Sample:
        """Return the sample of a record.

        Raises:
            BadSampleError: The record cannot be used.
        """
        if UNREADABLE in record:
            raise BadSampleError(Fault("malformed", *origin, str(origin.record), record[UNREADABLE]))
        stored = [one for one in stored_images(record) if not _is_absent(one)]
        images = [_image(item, origin, self.image_folder) for item in stored]
        for item, image in zip(stored, images, strict=True):
            if image is None:
                name = item.get("path") if isinstance(item, dict) else item
                if isinstance(name, str):
                    message = outside(name, self.image_folder)
                else:
                    message = f"an image of type {type(item).__name__}"
                raise BadSampleError(Fault("malformed", *origin, record_id(record, origin.record), message))
            if isinstance(image, Path) and not image.is_file():
                raise BadSampleError(Fault("missing_image", *origin, record_id(record, origin.record), missing(image)))
        return read_sample(record, [image for image in images if image is not None], origin)


def stored_parquet(files: list[str]) -> StoredRecords:
    """Store parquet shards in the cache of ``datasets`` and return their records.

    Raises:
        ValueError: A file cannot be read or lacks the columns.
    """
    lengths = [_length(file) for file in files]
    _check_columns(files[0])
    datasets = import_datasets()
    with explained(datasets, files):
        dataset = datasets.load_dataset("parquet", data_files={"train": files}, split="train")
    return StoredRecords(dataset, lengths)


def streamed_parquet(files: list[str]) -> StreamedRecords:
    """Return the records of parquet shards that are read in place.

    Raises:
        ValueError: The first file cannot be read or lacks the columns.
    """
    _check_columns(files[0])
    import_datasets()
    return StreamedRecords(_ParquetStream(files), ParquetLengths(files))


class ParquetLengths:
    """Reads the length of a shard from its footer."""

    def __init__(self, files: list[str]) -> None:
        self.files = files

    def __call__(self, shard: int) -> int:
        return _length(self.files[shard])


class _ParquetStream:
    def __init__(self, files: list[str]) -> None:
        self.files = files

    def __call__(self, shard: int, start: int) -> Iterator[Record]:
        datasets = import_datasets()
        with explained(datasets, [self.files[shard]]):
            stream = datasets.load_dataset(
                "parquet", data_files={"train": [self.files[shard]]}, split="train", streaming=True
            )
            for table in stream.skip(start).with_format("arrow").iter(batch_size=_STREAMED_RECORDS):
                yield from records_of(table)


def _length(file: str) -> int:
    return int(_footer(file).num_rows)


def _check_columns(file: str) -> None:
    names = _footer(file).schema.to_arrow_schema().names
    if not {"conversations", "messages"} & set(names):
        raise ValueError(f"{file} has the columns {', '.join(names)}; it needs 'conversations' or 'messages'")


def _footer(file: str) -> Any:
    import fsspec
    from pyarrow import ArrowException  # type: ignore[import-untyped]
    from pyarrow.parquet import read_metadata  # type: ignore[import-untyped]

    try:
        with fsspec.open(file, "rb") as stream:
            return read_metadata(stream)
    except ArrowException as error:
        raise ValueError(f"{file} is not a parquet file that can be read ({error})") from error


def _is_absent(stored: Any) -> bool:
    """Return whether an image is a struct without content, which parquet has in place of null."""
    return isinstance(stored, dict) and stored.get("bytes") is None and not stored.get("path")


def _image(stored: Any, origin: Origin, image_folder: Path) -> StoredImage | None:
    name = f"record {origin.record}"
    if isinstance(stored, bytes):
        return EncodedImage(stored, name, origin.file)
    if isinstance(stored, dict) and stored.get("bytes") is not None:
        return EncodedImage(stored["bytes"], stored.get("path") or name, origin.file)
    path = stored.get("path") if isinstance(stored, dict) else stored
    return path_in(image_folder, path) if isinstance(path, str) else None
