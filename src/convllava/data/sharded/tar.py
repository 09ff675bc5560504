"""WebDataset shards: a sample is the files of one key that follow each other in a tar.

::

    0007.jpg  0007.json                   an image and a LLaVA record
    0008.0.jpg  0008.1.png  0008.json     two images, in the order of their names
    0009.jpg  0009.txt                    an image and its caption

``datasets``' own reader of such tars fixes its columns by the first five samples and refuses an archive that mixes
image formats or samples with and without images, so the files are grouped here and only stored and streamed there.
"""

import json
import lzma
import re
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from ...constants import IMAGE_TOKEN
from ...images import DATA_SET_LIMITS
from ...support import encodable, first_line
from ..faults import BadSampleError, Fault, RecordError
from ..formats import IMAGE_KEYS, RecordFormat, recognize
from ..images import EncodedImage
from ..records import read_sample
from ..samples import Origin, Sample
from .files import is_remote
from .records import UNREADABLE, Record, StoredRecords, StreamedRecords, explained, import_datasets

_TEXT_ENDINGS = ("json", "txt")

_LARGEST_TEXT = 1 << 24
"""Bytes of a text beyond which a sample fits no context; a compressed archive could hold any number of them."""


def stored_tars(files: list[str]) -> StoredRecords:
    """Store tars in the cache of ``datasets`` and return their records.

    Raises:
        ValueError: A file is not a tar archive.
    """
    datasets = import_datasets()
    text, data = datasets.Value("string"), datasets.Value("binary")
    texts = dict.fromkeys(("key", "json", "txt", UNREADABLE), text)
    images = {"images": [{"path": text, "bytes": data}]}
    with explained(datasets, files):
        dataset = datasets.Dataset.from_generator(
            _numbered_records,
            features=datasets.Features({**texts, **images, "shard": datasets.Value("int32")}),
            gen_kwargs={"shards": [(number, file, _stamp(file)) for number, file in enumerate(files)]},
        )
    counts = np.bincount(np.asarray(dataset.with_format("numpy")["shard"][:]), minlength=len(files))
    return StoredRecords(dataset.remove_columns("shard"), counts.tolist())


def streamed_tars(files: list[str]) -> StreamedRecords:
    """Return the records of tars that are read in place."""
    return StreamedRecords(_TarStream(files), TarLengths(files))


class TarLengths:
    """Counts the samples of a local tar from its headers; None for a URL."""

    def __init__(self, files: list[str]) -> None:
        self.files = files

    def __call__(self, shard: int) -> int | None:
        file = self.files[shard]
        return None if is_remote(file) else _count_keys(file)


class _TarStream:
    def __init__(self, files: list[str]) -> None:
        self.files = files

    def __call__(self, shard: int, start: int) -> Iterator[Record]:
        return islice(_read_records(self.files[shard]), start, None)


def _numbered_records(shards: list[tuple[int, str, list[int]]]) -> Iterator[Record]:
    """Yield records with their shard's number; the stamp makes a changed file another data set for the cache.

    ``datasets`` calls this with all shards or with some of them.
    """
    for number, file, _ in shards:
        yield from ({**record, "shard": number} for record in _read_records(file))


def _stamp(file: str) -> list[int]:
    if is_remote(file):
        return []
    status = Path(file).stat()
    return [status.st_size, status.st_mtime_ns]


def _read_records(shard: str) -> Iterator[Record]:
    """Yield one record for each sample: key, text, and the images' names and bytes."""
    import fsspec

    with fsspec.open(shard, "rb") as stream, _explained(shard), tarfile.open(fileobj=stream, mode="r|*") as archive:
        record: Record | None = None
        for member in archive:
            key = sample_key(member)
            if key is None:
                continue
            if record is not None and record["key"] != key:
                yield record
                record = None
            record = record or {"key": key, "json": None, "txt": None, UNREADABLE: None, "images": []}
            _add_file(record, encodable(member.name), member.size, archive.extractfile(member))
        if record is not None:
            yield record


@contextmanager
def _explained(shard: str) -> Iterator[None]:
    try:
        yield
    except (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise ValueError(f"{shard} is not a tar archive that can be read ({error})") from error


def sample_key(member: tarfile.TarInfo) -> str | None:
    """Return the key of the sample that a file belongs to: its path up to the first point of the file name.

    None for folders, hidden files and files without an ending, which belong to no sample. Bytes of a name that are not
    UTF-8 are escaped.
    """
    folder, slash, name = encodable(member.name).rpartition("/")
    stem, point, _ = name.partition(".")
    return folder + slash + stem if member.isfile() and stem and point else None


def _add_file(record: Record, name: str, size: int, content: Any) -> None:
    """Add one file to the record of its key; files that are neither text nor images are left out."""
    ending = name.rpartition("/")[2].partition(".")[2].lower()
    largest = _LARGEST_TEXT if ending in _TEXT_ENDINGS else DATA_SET_LIMITS.max_file_bytes
    if size > largest:
        record[UNREADABLE] = f"{name} has {size} bytes, at most {largest} are read: leave the sample out"
    elif ending in _TEXT_ENDINGS:
        try:
            record[ending] = content.read().decode("utf-8-sig")
        except UnicodeDecodeError as error:
            record[UNREADABLE] = f"{name} is not UTF-8 text ({error}): save it as UTF-8"
    elif "." + ending.rsplit(".", 1)[-1] in _image_endings():
        record["images"].append({"path": name, "bytes": content.read()})


def _image_endings() -> dict[str, str]:
    from PIL import Image

    return Image.registered_extensions()


def _count_keys(shard: str) -> int:
    """Return the samples of a tar on this machine, from its headers alone."""
    keys = 0
    last: str | None = None
    with _explained(shard), tarfile.open(shard) as archive:
        for member in archive:
            key = sample_key(member)
            keys += key is not None and key != last
            last = key or last
    return keys


class TarSamples:
    """Converts the records of tars to samples; a class, so that worker processes can pickle it.

    Args:
        format: Format of the records; None to recognize it for each that is not a record of dialogue.
    """

    def __init__(self, format: RecordFormat | None = None) -> None:
        self.format = format

    def __call__(self, record: Record, origin: Origin) -> Sample:
        """Return the sample of a record.

        Raises:
            BadSampleError: The record cannot be used.
        """
        images = sorted(record["images"], key=lambda image: _natural(image["path"]))
        held = [EncodedImage(image["bytes"], image["path"], origin.file) for image in images]
        content = {**_content(record, origin)}
        try:
            content = self._dialogue(content, [image.name for image in held])
        except RecordError as error:
            raise BadSampleError(Fault(error.kind, *origin, record["key"], str(error))) from error
        if content.get("id") is None:
            content["id"] = record["key"]
        return read_sample(content, held, origin)

    def _dialogue(self, content: dict[str, Any], names: list[str]) -> dict[str, Any]:
        """Return the record of dialogue of a JSON file; the images of the tar take the place of those it names."""
        if self.format is None and (content.get("conversations") or content.get("messages")):
            return content
        shown = {**{key: value for key, value in content.items() if key not in IMAGE_KEYS}, "images": names}
        format = self.format or recognize([shown])
        return content if format is None or format.read is None else format.as_dialogue(shown, Path())


def _content(record: Record, origin: Origin) -> dict[str, Any]:
    """Return the LLaVA record of a sample, made from its caption where it has no JSON file."""
    if record[UNREADABLE] is not None:
        raise BadSampleError(Fault("malformed", *origin, record["key"], record[UNREADABLE]))
    if record["json"] is None and record["txt"] is not None:
        turns = [("human", IMAGE_TOKEN * len(record["images"])), ("gpt", record["txt"])]
        return {"conversations": [{"from": speaker, "value": value} for speaker, value in turns]}
    try:
        content = json.loads(record["json"] or "")
    except (ValueError, RecursionError) as error:
        problem = (
            f"not valid JSON ({first_line(error)})" if record["json"] is not None else "neither a .json nor a .txt file"
        )
        raise BadSampleError(Fault("malformed", *origin, record["key"], problem)) from error
    if not isinstance(content, dict):
        raise BadSampleError(Fault("malformed", *origin, record["key"], f"expected an object, got {content!r}"))
    return content


def _natural(name: str) -> list[tuple[int, str]]:
    """Return a key that sorts ``x.2.png`` before ``x.10.png``."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]
