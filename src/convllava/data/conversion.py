"""Write samples in the formats of other programs; what is written reads back as the same samples."""

import hashlib
import io
import json
import os
import tarfile
from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from ..constants import IMAGE_TOKEN, Message
from ..images import DATA_SET_LIMITS, IMAGE_SUFFIXES, undecoded
from ..support import atomic_directory, atomic_write, require
from .conversations import OnBadSample
from .faults import BadSampleError, Fault
from .images import EncodedImage, StoredImage
from .records import read_sample
from .samples import Origin, RecordSource, Sample

TARGETS = ("llava", "openai", "parquet", "webdataset")
"""Formats that are written."""

RECORDS_PER_SHARD = 1000
_RECORDS_PER_GROUP = 100
_SPEAKERS = {"system": "system", "user": "human", "assistant": "gpt"}

Progress = Callable[[int, int | None], None]


@dataclass
class Converted:
    """The result of a conversion.

    Attributes:
        path: The file, or the folder of shards.
        image_folder: Folder into which images were copied; None if there was none to copy.
        records: Number of records that were written.
        images: Number of their images.
        faults: Faults of the records that were left out.
    """

    path: Path
    image_folder: Path | None = None
    records: int = 0
    images: int = 0
    faults: list[Fault] = field(default_factory=list)


def convert(
    source: RecordSource,
    target: Path,
    to: str,
    *,
    embed: bool = False,
    on_bad_sample: OnBadSample = "stop",
    progress: Progress | None = None,
) -> Converted:
    """Write all samples of a source in another format.

    Args:
        source: The samples.
        target: A ``.json`` or ``.jsonl`` file, a ``.parquet`` file, or a folder for tars; it must not exist.
        to: One of `TARGETS`.
        embed: Whether OpenAI messages hold their images as data URLs, instead of naming files.
        on_bad_sample: "stop": a record that cannot be used is an error; "skip": it is left out and listed.
        progress: Called with the number of records done and in total.

    Raises:
        ValueError: The target exists, has another ending than its format, or a record cannot be written.
    """
    _check_target(target, to, embed)
    result = Converted(target)
    samples = _samples(source, result, on_bad_sample, progress)
    if to == "parquet":
        _write_parquet(samples, target)
    elif to == "webdataset":
        _write_tars(samples, target)
    else:
        _write_lines(samples, result, to, embed)
    return result


def _check_target(target: Path, to: str, embed: bool) -> None:
    endings = {"parquet": (".parquet",), "webdataset": ("",)}.get(to, (".json", ".jsonl"))
    if to not in TARGETS:
        raise ValueError(f"--to must be one of {', '.join(TARGETS)}, got {to!r}")
    if target.suffix not in endings:
        wanted = "be a folder" if to == "webdataset" else f"end in {' or '.join(endings)}"
        raise ValueError(f"{target} must {wanted} for --to {to}")
    if target.exists():
        raise ValueError(f"{target} exists; give a new path")
    if embed and to != "openai":
        raise ValueError(f"--embed is for --to openai; {to} {'names files' if to == 'llava' else 'holds its images'}")


def _samples(
    source: RecordSource, result: Converted, on_bad_sample: OnBadSample, progress: Progress | None
) -> Iterator[Sample]:
    """Yield the samples of a source, and count them and their images."""
    for done, entry in enumerate(source.records(), start=1):
        if isinstance(entry, Fault) and on_bad_sample == "stop":
            raise BadSampleError(entry)
        if isinstance(entry, Fault):
            result.faults.append(entry)
        else:
            result.records += 1
            result.images += len(entry.images)
            yield entry
        if progress is not None:
            progress(done, source.num_records())


def llava_record(sample: Sample, images: Sequence[str]) -> dict[str, Any]:
    """Return a sample as a record of the LLaVA format with the given image paths.

    A dialogue that ``conversations`` cannot hold, such as one with a single image behind a text, becomes ``messages``.
    """
    record: dict[str, Any] = {"id": sample.sample_id}
    if images:
        record["image"] = images[0] if len(images) == 1 else list(images)
    if sample.references:
        record["answers"] = list(sample.references)
    turns = [{"from": _SPEAKERS[message["role"]], "value": _placed(message)} for message in sample.messages]
    written = {**record, "conversations": turns}
    try:
        is_same = read_sample(written, sample.images, Origin("", 0)).messages == sample.messages
    except BadSampleError:  # a text about the word <image>
        is_same = False
    return written if is_same else {**record, "messages": sample.messages}


def _placed(message: Message) -> str:
    """Return the text of a message with placeholders; images that open a turn have lines of their own."""
    text, opening = "", True
    for part in message["content"]:
        if part["type"] == "image":
            text += f"{IMAGE_TOKEN}\n" if opening else IMAGE_TOKEN
        else:
            text, opening = text + part["text"], False
    return text.removesuffix("\n") if opening else text


def openai_record(sample: Sample, urls: Sequence[str]) -> dict[str, Any]:
    """Return a sample as OpenAI messages whose image parts have the given URLs or paths."""
    remaining = iter(urls)
    messages = []
    for message in sample.messages:
        parts = [
            {"type": "image_url", "image_url": {"url": next(remaining)}} if part["type"] == "image" else part
            for part in message["content"]
        ]
        is_text = message["role"] != "user" and len(parts) == 1 and parts[0]["type"] == "text"
        messages.append({**message, "content": parts[0]["text"] if is_text else parts})
    record: dict[str, Any] = {"id": sample.sample_id, "messages": messages}
    return {**record, "answers": list(sample.references)} if sample.references else record


def _write_lines(samples: Iterator[Sample], result: Converted, to: str, embed: bool) -> None:
    """Write a JSON list or JSONL; images outside of its folder are copied next to it."""
    target = result.path
    copies = _Copies(target)
    is_list = target.suffix == ".json"
    with atomic_write(target) as draft, copies.kept(), draft.open("w", encoding="utf-8") as file:
        file.write("[\n" if is_list else "")
        for number, sample in enumerate(samples):
            names = [_data_url(image) if embed else copies.name_of(image) for image in sample.images]
            record = llava_record(sample, names) if to == "llava" else openai_record(sample, names)
            separator = (",\n" if number else "") if is_list else ""
            file.write(separator + json.dumps(record, ensure_ascii=False) + ("" if is_list else "\n"))
        file.write("\n]\n" if is_list else "")
    result.image_folder = copies.folder if copies.folder.is_dir() else None


class _Copies:
    """Copies of images in a folder next to a data file, one of each content."""

    def __init__(self, target: Path) -> None:
        self.root = target.parent
        self.folder = target.with_name(f"{target.stem}-images")
        if self.folder.exists():
            raise ValueError(f"{self.folder} exists, where images would be copied: give a new path")

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Remove the copies if the block fails."""
        try:
            yield
        except BaseException:
            for path in self.folder.glob("*"):
                path.unlink()
            if self.folder.is_dir():
                self.folder.rmdir()
            raise

    def name_of(self, image: StoredImage) -> str:
        """Return the path of an image relative to the data file, copied if it is not below the file's folder."""
        if isinstance(image, Path):
            root, path = os.path.abspath(self.root), os.path.abspath(image)
            if os.path.commonpath([root, path]) == root:
                return Path(os.path.relpath(path, root)).as_posix()
        data, suffix = _bytes_of(image)
        name = hashlib.blake2b(data, digest_size=10).hexdigest() + suffix
        self.folder.mkdir(parents=True, exist_ok=True)
        if not (self.folder / name).exists():
            (self.folder / name).write_bytes(data)
        return f"{self.folder.name}/{name}"


def _bytes_of(image: StoredImage) -> tuple[bytes, str]:
    """Return the bytes of an image's file and a suffix for it; a drawn image becomes PNG."""
    if isinstance(image, EncodedImage):
        data, suffix = image.data, image.suffix.lower()
    elif isinstance(image, Path):
        data, suffix = image.read_bytes(), image.suffix.lower()
    else:
        stream = io.BytesIO()
        image.save(stream, "png")
        return stream.getvalue(), ".png"
    if suffix in IMAGE_SUFFIXES:
        return data, suffix
    with undecoded(data, name=str(image), limits=DATA_SET_LIMITS) as opened:
        return data, f".{str(opened.format).lower()}"


def _data_url(image: StoredImage) -> str:
    data, suffix = _bytes_of(image)
    kind = {".jpg": "jpeg", ".tif": "tiff"}.get(suffix, suffix[1:])
    return f"data:image/{kind};base64,{b64encode(data).decode()}"


def _write_parquet(samples: Iterator[Sample], target: Path) -> None:
    """Write the columns id, images ({bytes, path}), messages and answers, as ``datasets`` and TRL read them."""
    require("pyarrow", extra="train", purpose="parquet files")
    import pyarrow as pa  # type: ignore[import-untyped]
    from pyarrow.parquet import ParquetWriter  # type: ignore[import-untyped]

    text = pa.string()
    part = pa.struct([("type", text), ("text", text)])
    schema = pa.schema(
        [
            ("id", text),
            ("images", pa.list_(pa.struct([("bytes", pa.binary()), ("path", text)]))),
            ("messages", pa.list_(pa.struct([("role", text), ("content", pa.list_(part)), ("weight", pa.int8())]))),
            ("answers", pa.list_(text)),
        ]
    )
    with atomic_write(target) as draft, ParquetWriter(draft, schema) as writer:
        while group := [_parquet_row(sample) for sample in islice(samples, _RECORDS_PER_GROUP)]:
            writer.write_table(pa.Table.from_pylist(group, schema))


def _parquet_row(sample: Sample) -> dict[str, Any]:
    images = [{"bytes": _bytes_of(image)[0], "path": _name_of(image)} for image in sample.images]
    answers = list(sample.references) or None
    return {"id": sample.sample_id, "images": images, "messages": sample.messages, "answers": answers}


def _name_of(image: StoredImage) -> str | None:
    if isinstance(image, EncodedImage | Path):
        return image.name if image.suffix else None
    return None


def _write_tars(samples: Iterator[Sample], target: Path) -> None:
    """Write shards of a thousand samples: ``0000007.0.jpg``, ``0000007.json``."""
    with atomic_directory(target) as folder:
        number = shard = 0
        while group := list(islice(samples, RECORDS_PER_SHARD)):
            with tarfile.open(folder / f"part-{shard:05d}.tar", "w") as archive:
                for sample in group:
                    for name, data in _tar_files(sample, f"{number:07d}"):
                        member = tarfile.TarInfo(name)
                        member.size = len(data)
                        archive.addfile(member, io.BytesIO(data))
                    number += 1
            shard += 1


def _tar_files(sample: Sample, key: str) -> Iterator[tuple[str, bytes]]:
    for number, image in enumerate(sample.images):
        data, suffix = _bytes_of(image)
        yield f"{key}.{number}{suffix}", data
    record = {**llava_record(sample, []), "id": sample.sample_id}
    yield f"{key}.json", json.dumps(record, ensure_ascii=False).encode()
