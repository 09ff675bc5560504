"""Which files a path with wildcards means, and how parquet and WebDataset rows become records with images.

A parquet row has ``conversations`` or ``messages`` (see ``records``) and its images under ``image`` or ``images``:
images as ``datasets`` stores them ({bytes, path}), bytes, or file names beside the shard.

A WebDataset sample is the files of one key that stand together in a tar::

    0007.jpg  0007.json           an image and a LLaVA record
    0008.0.jpg  0008.1.png  0008.json     two images, in the order of their names
    0009.jpg  0009.txt            an image and its caption

``datasets``' own reader of such tars fixes its columns by the first five samples and refuses an archive that mixes
image formats or samples with and without images, so the files are grouped here and only stored and streamed there.
"""

import glob
import json
import lzma
import re
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..constants import IMAGE_TOKEN
from .faults import BadSampleError, Fault
from .images import EncodedImage, StoredImage
from .records import read_sample, record_id
from .samples import Origin, Sample

PARQUET = ".parquet"
TARS = (".tar", ".tar.gz", ".tgz")
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
_WILD = re.compile(r"[*?\[]")
_TEXT_ENDINGS = ("json", "txt")


def is_sharded(path: str | Path) -> bool:
    """Tell whether a path means parquet files or tars, not a JSON file."""
    return str(path).endswith((PARQUET, *TARS)) or (Path(path).is_dir() and bool(_shards_in(Path(path))))


def shard_files(path: str | Path) -> list[str]:
    """Return the shards that a path means, in order: a file, a folder, a URL, with ``*`` or ``{000..127}``.

    Raises:
        ValueError: There is none, or they are not all of one kind.
    """
    text = str(path)
    found = [file for part in _expand_ranges(text) for file in _expand_wildcards(part)]
    if not found:
        raise ValueError(f"no data file {text}")
    if len({file.endswith(PARQUET) for file in found}) > 1:
        raise ValueError(f"{text} means shards of several kinds ({found[0]}, {found[-1]}); give them an entry each")
    return found


def _expand_ranges(text: str) -> list[str]:
    """Return ``part-{000..127}.tar`` as 128 names."""
    match = _RANGE.search(text)
    if match is None:
        return [text]
    width = len(match[1])
    numbers = (f"{number:0{width}d}" for number in range(int(match[1]), int(match[2]) + 1))
    return [name for number in numbers for name in _expand_ranges(text[: match.start()] + number + text[match.end() :])]


def _expand_wildcards(text: str) -> list[str]:
    if is_remote(text):
        return _expand_remote(text)
    if Path(text).is_dir():
        return [str(file) for file in _shards_in(Path(text))]
    return sorted(glob.glob(text, recursive=True)) if not Path(text).is_file() else [text]


def is_remote(text: str) -> bool:
    """Tell a URL (``https://``, ``hf://``, ``s3://``) from a file."""
    return "://" in text


def _expand_remote(text: str) -> list[str]:
    from fsspec.core import url_to_fs

    if not _WILD.search(text):
        return [text]
    files, inner = url_to_fs(text)
    return sorted(files.unstrip_protocol(found) for found in files.glob(inner))


def _shards_in(folder: Path) -> list[Path]:
    return sorted(path for ending in (PARQUET, *TARS) for path in folder.glob(f"*{ending}"))


def tar_rows(shards: list[str]) -> Iterator[dict[str, Any]]:
    """Yield a row a sample: key, text of the record, and the images' names and bytes."""
    import fsspec

    for shard in shards:
        with fsspec.open(shard, "rb") as stream, _reading(shard), tarfile.open(fileobj=stream, mode="r|*") as archive:
            row: dict[str, Any] | None = None
            for member in archive:
                key = tar_key(member)
                if key is None:
                    continue
                if row is not None and row["key"] != key:
                    yield row
                    row = None
                row = row or {"key": key, "json": None, "txt": None, "images": []}
                _put(row, member.name, archive.extractfile(member))
            if row is not None:
                yield row


@contextmanager
def _reading(shard: str) -> Iterator[None]:
    try:
        yield
    except (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise ValueError(f"{shard} is not a tar archive that can be read ({error})") from error


def tar_key(member: tarfile.TarInfo) -> str | None:
    """Return the sample that a file belongs to: its name up to the first point of the last part.

    None for folders, and for hidden files and those without an ending, which belong to none.
    """
    folder, slash, last = member.name.rpartition("/")
    stem, point, _ = last.partition(".")
    return folder + slash + stem if member.isfile() and stem and point else None


def _put(row: dict[str, Any], name: str, content: Any) -> None:
    """Put one file into the row of its key; what is neither text nor an image stays out."""
    ending = name.rpartition("/")[2].partition(".")[2].lower()
    if ending in _TEXT_ENDINGS:
        row[ending] = content.read().decode("utf-8", errors="replace")
    elif "." + ending.rsplit(".", 1)[-1] in _image_endings():
        row["images"].append({"path": name, "bytes": content.read()})


def _image_endings() -> dict[str, str]:
    from PIL import Image

    return Image.registered_extensions()


def tar_shard_length(shard: str) -> int:
    """Return how many samples a tar on this machine holds, from its headers alone."""
    keys = 0
    last: str | None = None
    with _reading(shard), tarfile.open(shard) as archive:
        for member in archive:
            key = tar_key(member)
            keys += key is not None and key != last
            last = key or last
    return keys


def sample_of_tar_row(row: dict[str, Any], origin: Origin) -> Sample:
    """Make a sample of a row of ``tar_rows``.

    Raises:
        BadSampleError: It cannot be used.
    """
    record = {**_tar_record(row, origin)}
    record["id"] = record.get("id", row["key"])
    images = sorted(row["images"], key=lambda image: _natural(image["path"]))
    return read_sample(record, [EncodedImage(image["bytes"], image["path"], origin.file) for image in images], origin)


def _tar_record(row: dict[str, Any], origin: Origin) -> dict[str, Any]:
    if row["json"] is None and row["txt"] is not None:
        turns = [("human", IMAGE_TOKEN * len(row["images"])), ("gpt", row["txt"])]
        return {"conversations": [{"from": speaker, "value": value} for speaker, value in turns]}
    try:
        record = json.loads(row["json"] or "")
    except json.JSONDecodeError as error:
        what = f"not valid JSON ({error})" if row["json"] is not None else "neither a .json nor a .txt beside it"
        raise BadSampleError(Fault("malformed", *origin, row["key"], what)) from error
    if not isinstance(record, dict):
        raise BadSampleError(Fault("malformed", *origin, row["key"], f"expected an object, got {record!r}"))
    return record


def _natural(name: str) -> list[tuple[int, str]]:
    """Return a key that sorts ``x.2.png`` before ``x.10.png``."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def sample_of_parquet_row(row: dict[str, Any], origin: Origin, image_folder: Path) -> Sample:
    """Make a sample of a parquet row.

    Raises:
        BadSampleError: It cannot be used.
    """
    stored = row.get("images") if row.get("image") is None else row["image"]
    stored = [] if stored is None else stored if isinstance(stored, list) else [stored]
    record = _without_none(row)
    images = [_parquet_image(item, origin, image_folder) for item in stored]
    missing = next((image for image in images if isinstance(image, Path) and not image.is_file()), None)
    if None in images or missing is not None:
        message = f"no image {missing}" if missing is not None else f"an image of type {type(stored[0]).__name__}"
        kind = "missing_image" if missing is not None else "malformed"
        raise BadSampleError(Fault(kind, *origin, record_id(row, origin.record), message))
    return read_sample(record, [image for image in images if image is not None], origin)


def _parquet_image(stored: Any, origin: Origin, image_folder: Path) -> StoredImage | None:
    if isinstance(stored, bytes):
        return EncodedImage(stored, f"row {origin.record}", origin.file)
    if isinstance(stored, dict) and stored.get("bytes") is not None:
        return EncodedImage(stored["bytes"], stored.get("path") or f"row {origin.record}", origin.file)
    name = stored.get("path") if isinstance(stored, dict) else stored
    return image_folder / name if isinstance(name, str) else None


def _without_none(value: Any) -> Any:
    """Drop empty fields: in parquet every struct has all fields of all its siblings."""
    if isinstance(value, dict):
        return {key: _without_none(inner) for key, inner in value.items() if inner is not None}
    return [_without_none(inner) for inner in value] if isinstance(value, list) else value
