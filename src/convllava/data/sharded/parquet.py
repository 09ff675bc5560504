"""Parquet shards.

A record has the keys of one of ``data.formats``, and its images as ``datasets`` stores them ({bytes, path}), as bytes,
or as file names next to the shard.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..faults import BadSampleError, Fault, RecordError
from ..formats import RecordFormat, recognize
from ..images import StoredImage, missing, respelled, stored_image
from ..records import read_sample, record_id, stored_images
from ..samples import Origin, Sample
from .records import UNREADABLE, Record, StoredRecords, StreamedRecords, explained, import_datasets, records_of

_STREAMED_RECORDS = 64
"""Records that a stream decodes at a time."""


class ParquetSamples:
    """Converts parquet records to samples; a class, so that worker processes can pickle it.

    Args:
        image_folder: Folder of images that records name instead of holding them.
        format: Format of the records.
    """

    def __init__(self, image_folder: Path, format: RecordFormat) -> None:
        self.image_folder = image_folder
        self.format = format

    def __call__(self, record: Record, origin: Origin) -> Sample:
        """Return the sample of a record.

        Raises:
            BadSampleError: The record cannot be used.
        """
        if UNREADABLE in record:
            raise BadSampleError(Fault("malformed", *origin, str(origin.record), record[UNREADABLE]))
        try:
            content = self.format.as_dialogue(record, self.image_folder)
            images = [self._image(given, origin) for given in stored_images(content)]
        except RecordError as error:
            raise BadSampleError(Fault(error.kind, *origin, record_id(record, origin.record), str(error))) from error
        return read_sample(content, images, origin)

    def _image(self, given: Any, origin: Origin) -> StoredImage:
        image = stored_image(given, self.image_folder, *origin)
        if not isinstance(image, Path) or image.is_file():
            return image
        found = respelled(image, self.image_folder)
        if found is None:
            raise RecordError("missing_image", missing(image))
        return found


def stored_parquet(files: list[str]) -> StoredRecords:
    """Store parquet shards in the cache of ``datasets`` and return their records.

    Raises:
        ValueError: A file cannot be read.
    """
    lengths = [_length(file) for file in files]
    datasets = import_datasets()
    with explained(datasets, files):
        dataset = datasets.load_dataset("parquet", data_files={"train": files}, split="train")
    return StoredRecords(dataset, lengths)


def streamed_parquet(files: list[str]) -> StreamedRecords:
    """Return the records of parquet shards that are read in place.

    Raises:
        ValueError: ``datasets`` is not installed.
    """
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


def recognize_columns(file: str) -> RecordFormat:
    """Return the format of a parquet file, recognized by the names and types of its columns.

    Raises:
        ValueError: The file cannot be read, or no known format has such columns.
    """
    schema = _footer(file).schema.to_arrow_schema()
    found = recognize([{field.name: _example_of(field.type) for field in schema}])
    if found is None:
        raise ValueError(
            f"{file} has the columns {', '.join(schema.names)}; it needs 'conversations' or 'messages', or a question, "
            "an answer and an image"
        )
    return found


def _example_of(arrow_type: Any) -> Any:
    """Return a value of an Arrow type."""
    from pyarrow import types  # type: ignore[import-untyped]

    if types.is_list(arrow_type) or types.is_large_list(arrow_type):
        return [_example_of(arrow_type.value_type)]
    if types.is_struct(arrow_type):
        fields = (arrow_type.field(index) for index in range(arrow_type.num_fields))
        example = {field.name: _example_of(field.type) for field in fields}
        if {"type", "text"} <= set(example):  # parts, some of which are images
            example["type"] = "image_url" if "image_url" in example else "image"
        return example
    return 1 if types.is_integer(arrow_type) or types.is_floating(arrow_type) else "x"


def _footer(file: str) -> Any:
    import fsspec
    from pyarrow import ArrowException
    from pyarrow.parquet import read_metadata  # type: ignore[import-untyped]

    try:
        with fsspec.open(file, "rb") as stream:
            return read_metadata(stream)
    except ArrowException as error:
        raise ValueError(f"{file} is not a parquet file that can be read ({error})") from error
    except OSError as error:  # also of a damaged footer
        raise ValueError(f"{file} cannot be read ({error})") from error
