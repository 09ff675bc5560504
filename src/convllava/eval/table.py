"""Benchmark files as tables whose images stay on disk until they are opened; reads JSONL.

VLMEvalKit's TSV is read by `tsv.py`, the hub's parquet by `parquet.py`.
"""

import ast
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

from PIL import Image

from ..images import (
    DATA_SET_LIMITS,
    ImageError,
    image_size,
    num_frames,
    open_image,
    other_spelling,
    undecoded,
    upright_size,
)
from .outcome import Row

ImageSize = tuple[int, int]
"""(height, width) in pixels."""


class BenchmarkImage(Protocol):
    """An image that is opened when it is needed."""

    @property
    def name(self) -> str:
        """The image's name in its benchmark: a digest of its bytes, or its path as the benchmark's file has it."""
        ...

    @property
    def size(self) -> ImageSize | None:
        """(height, width) as the image is shown, upright, known without decoding; None if its header is damaged."""
        ...

    @property
    def has_more_frames(self) -> bool:
        """Whether the file has further frames or pages, which are not shown."""
        ...

    def open(self) -> Image.Image:
        """Return the image.

        Raises:
            ValueError: The image is damaged.
        """
        ...


@dataclass
class Table:
    """Content of a benchmark file.

    Attributes:
        path: The file, or the folder of its shards.
        md5: MD5 sum of the file; for several shards, of their MD5 sums in order.
        rows: One dictionary for each sample, without images.
        images: Images of each row.
        warnings: Notes for the readers of a score.
    """

    path: Path
    md5: str
    rows: list[Row] = field(default_factory=list)
    images: list[tuple[BenchmarkImage, ...]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def append(self, row: Row, images: tuple[BenchmarkImage, ...]) -> None:
        """Add a row; empty texts become None."""
        self.rows.append({name: None if value == "" else value for name, value in row.items()})
        self.images.append(images)

    def check_indices(self) -> None:
        """Check that every row has an index of its own.

        Raises:
            ValueError: Two rows have the same index.
        """
        seen: set[str] = set()
        for row in self.rows:
            if str(row["index"]) in seen:
                raise ValueError(f"{self.path}: index {row['index']!r} occurs twice; each question needs its own")
            seen.add(str(row["index"]))

    def check_images(self) -> None:
        """Add warnings about images that cannot be read, whose questions are errors, and about those read in part."""
        damaged, long = [], []
        for row, images in zip(self.rows, self.images, strict=True):
            damaged += [f"index {row['index']}: {image.reason}" for image in images if isinstance(image, DamagedImage)]
            long += [f"index {row['index']}" for image in images if image.has_more_frames]
        if damaged:
            self.warnings.append(f"{len(damaged)} images of {self.path.name} cannot be read: {listing(damaged)}")
        if long:
            self.warnings.append(
                f"{len(long)} images of {self.path.name} have several frames or pages, of which only the first is "
                f"shown: {listing(long)}"
            )


MAX_LISTED = 20
"""Number of faults that a message lists."""


def listing(faults: Sequence[str]) -> str:
    """Return faults as one text, the first twenty and the number of the others."""
    more = f"; and {len(faults) - MAX_LISTED} more" if len(faults) > MAX_LISTED else ""
    return "; ".join(faults[:MAX_LISTED]) + more


@dataclass(frozen=True)
class LoadedImage:
    """An image in memory."""

    image: Image.Image
    has_more_frames: bool = False

    @property
    def name(self) -> str:
        return digest_of(self.image.tobytes())

    @property
    def size(self) -> ImageSize:
        return image_size(self.image)

    def open(self) -> Image.Image:
        return self.image


@dataclass(frozen=True)
class FileImage:
    """An image file."""

    name: str
    path: Path
    size: ImageSize
    has_more_frames: bool

    def open(self) -> Image.Image:
        return open_image(self.path, limits=DATA_SET_LIMITS, lazily=True)


@dataclass(frozen=True)
class DamagedImage:
    """An image whose header cannot be read: an error of its question, not of the benchmark.

    Attributes:
        reason: The error message.
    """

    name: str
    reason: str
    size: None = None
    has_more_frames: bool = False

    def open(self) -> Image.Image:
        raise ValueError(self.reason)


def digest_of(data: bytes) -> str:
    """Return a short digest of an image's bytes."""
    return hashlib.blake2b(data, digest_size=8).hexdigest()


def image_of_cell(data: bytes, stored: Callable[[str, ImageSize, bool], BenchmarkImage]) -> BenchmarkImage:
    """Return the encoded image in a table cell, from its header.

    Args:
        data: The bytes of the image.
        stored: Function from the name and the size of a readable image, and whether it has more frames, to the image.
    """
    name = digest_of(data)
    try:
        return stored(name, *_read_header(data, "the image cell"))
    except ImageError as error:
        return DamagedImage(name, str(error))


def _read_header(source: Path | bytes, name: str) -> tuple[ImageSize, bool]:
    """Return (height, width) of an encoded image, upright, and whether it has more than one frame."""
    with undecoded(source, name=name, limits=DATA_SET_LIMITS) as image:
        return upright_size(image), num_frames(image) > 1


def open_cell(data: bytes) -> Image.Image:
    """Return the image in a table cell, upright and in RGB.

    Raises:
        ImageError: The image is damaged.
    """
    return open_image(data, name="the image cell", limits=DATA_SET_LIMITS)


def parse_list(text: str) -> list[Any] | None:
    """Return the list that a Python literal describes, or None if the text is anything else."""
    try:
        value = ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
        return None
    return value if isinstance(value, list) else None


def parse_answers(value: Any) -> list[str]:
    """Return the reference answers in a table cell: the members of a list, or the single answer."""
    members = value if isinstance(value, list | tuple) else parse_list(str(value))
    return [str(value)] if members is None else [str(member) for member in members]


def parse_index(texts: Iterable[str]) -> list[int] | list[str]:
    """Return all indices as integers if all of them are, otherwise all as text."""
    given = list(texts)
    try:
        return [int(text) for text in given]
    except ValueError:
        return given


def default_data_folder() -> Path:
    """Return VLMEvalKit's data folder: ``$LMUData`` if that is set and exists, else ``~/LMUData``."""
    given = os.environ.get("LMUData")  # noqa: SIM112 - VLMEvalKit's spelling
    return Path(given) if given and Path(given).is_dir() else Path.home() / "LMUData"


def find_files(data: Path, name: str, hub: str, config: str | None, split: str) -> list[Path]:
    """Return the file of a benchmark in ``data``, or the shards of its parquet split; empty if there is none.

    Looks for ``NAME.tsv``, ``NAME.jsonl``, ``NAME.parquet``, and then for folders as the hub's downloader writes
    them, ``HUB/[CONFIG|data]/SPLIT-*.parquet``, with HUB the last part of the hub id.
    """
    for suffix in (".tsv", ".jsonl", ".parquet"):
        if (data / f"{name}{suffix}").is_file():
            return [data / f"{name}{suffix}"]
    for folder in _hub_folders(data, name, hub, config):
        shards = sorted(folder.glob(f"{split}-*.parquet"))
        if shards:
            return shards
    return []


def _hub_folders(data: Path, name: str, hub: str, config: str | None) -> list[Path]:
    roots = [data / hub, data / hub.rsplit("/", 1)[-1], data / name]
    subfolders = [config] if config else []
    return [root / subfolder for root in roots for subfolder in (*subfolders, "data", ".")]


def read_jsonl(path: Path, columns: Sequence[str], image_folders: Sequence[Path]) -> Table:
    """Read a file with one JSON object a line, whose key ``image`` is a path or a list of paths.

    Args:
        path: The file.
        columns: Keys that every line must have.
        image_folders: Folders that image paths may be relative to.

    Raises:
        ValueError: A line is not an object or lacks a key, or images are missing, all of which are listed.
    """
    data = path.read_bytes()
    return read_rows(path, data, _json_lines(path, data), columns, image_folders)


def read_rows(
    path: Path, data: bytes, rows: Iterable[tuple[int, Row]], columns: Sequence[str], image_folders: Sequence[Path]
) -> Table:
    """Return rows whose key ``image`` is a path or a list of paths as a table.

    Args:
        path: The file.
        data: Its bytes, for the MD5 sum.
        rows: Number of the line, from 1, and content of each row.
        columns: Keys that every row must have.
        image_folders: Folders that image paths may be relative to.

    Raises:
        ValueError: A row lacks a key, or images are missing, all of which are listed.
    """
    table = Table(path, hashlib.md5(data, usedforsecurity=False).hexdigest())
    absent: dict[str, int] = {}
    num_images = 0
    num_without_image = 0
    for number, row in rows:
        missing = [name for name in ("image", *columns) if name not in row]
        if missing:
            raise ValueError(f"{path}, line {number}: no key {', '.join(missing)}; its keys are {', '.join(row)}")
        images = row.pop("image")
        names = [name for name in (images if isinstance(images, list) else [images]) if name not in (None, "")]
        found = [_find_image(str(name), image_folders) for name in names]
        for name in (str(name) for name, image in zip(names, found, strict=True) if image is None):
            absent.setdefault(name, number)
        num_images += len(names)
        row.setdefault("index", number - 1)
        if names:
            table.append(row, tuple(image for image in found if image is not None))
        num_without_image += not names
    if absent:
        folders = ", ".join(dict.fromkeys(map(str, image_folders)))
        named = (f"line {number}: {name!r}{_spelling(name, image_folders)}" for name, number in absent.items())
        listed = listing(list(named))
        raise ValueError(f"{path}: {len(absent)} of {num_images} images are missing below {folders}: {listed}")
    if num_without_image:
        table.warnings.append(f"{num_without_image} lines of {path.name} have no image and are left out")
    table.check_indices()
    table.check_images()
    return table


def _json_lines(path: Path, data: bytes) -> Iterator[tuple[int, Row]]:
    try:
        lines = data.decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 ({error}): save it as UTF-8") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row: Any = json.loads(line)
            json.dumps(row, ensure_ascii=False).encode()  # half of a surrogate pair is valid JSON, but not a text
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path}, line {number}: not JSON ({error})") from error
        if not isinstance(row, dict):
            raise ValueError(f"{path}, line {number}: a line must be an object, got {type(row).__name__}")
        yield number, row


def _spelling(name: str, folders: Sequence[Path]) -> str:
    hints = filter(None, (other_spelling(folder / name) for folder in folders))
    return next((f" ({hint})" for hint in hints), "")


def _find_image(name: str, folders: Sequence[Path]) -> BenchmarkImage | None:
    for folder in folders:
        if (folder / name).is_file():
            return _file_image(name, folder / name)
    return None


@lru_cache(maxsize=1 << 16)
def _file_image(name: str, path: Path) -> BenchmarkImage:
    try:
        return FileImage(name, path, *_read_header(path, str(path)))
    except ImageError as error:
        return DamagedImage(name, str(error))
