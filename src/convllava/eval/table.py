"""Benchmark files as tables whose images stay on disk until they are opened; reads JSONL.

VLMEvalKit's TSV is read by `tsv.py`, the hub's parquet by `parquet.py`.
"""

import ast
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

from PIL import Image

from ..images import DATA_SET_LIMITS, image_size, open_image
from .outcome import Row

ImageSize = tuple[int, int]
"""(height, width) in pixels."""


class BenchmarkImage(Protocol):
    """An image that is opened when it is needed."""

    @property
    def size(self) -> ImageSize:
        """(height, width) as the image is shown, upright, known without decoding."""
        ...

    def open(self) -> Path | Image.Image:
        """Return the path of the image, or the decoded image.

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


@dataclass(frozen=True)
class LoadedImage:
    """An image in memory."""

    image: Image.Image

    @property
    def size(self) -> ImageSize:
        return image_size(self.image)

    def open(self) -> Image.Image:
        return self.image


@dataclass(frozen=True)
class FileImage:
    """An image file."""

    path: Path
    size: ImageSize

    def open(self) -> Path:
        return self.path


def size_of_cell(data: bytes) -> ImageSize:
    """Return (height, width) of the encoded image in a table cell, upright, from its header.

    Raises:
        ImageError: The data are not an image.
    """
    return image_size(data, name="the image cell", limits=DATA_SET_LIMITS)


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
        ValueError: A line is not an object, lacks a key, or names a missing image.
    """
    data = path.read_bytes()
    table = Table(path, hashlib.md5(data, usedforsecurity=False).hexdigest())
    for number, row in _json_lines(path, data):
        missing = [name for name in ("image", *columns) if name not in row]
        if missing:
            raise ValueError(f"{path}, line {number}: no key {', '.join(missing)}")
        images = row.pop("image")
        names = images if isinstance(images, list) else [images]
        row.setdefault("index", number - 1)
        table.append(row, tuple(_find_image(path, number, str(name), image_folders) for name in names))
    table.check_indices()
    return table


def _json_lines(path: Path, data: bytes) -> Iterator[tuple[int, Row]]:
    for number, line in enumerate(data.decode("utf-8-sig").split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row: Any = json.loads(line)
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: not JSON ({error})") from error
        if not isinstance(row, dict):
            raise ValueError(f"{path}, line {number}: a line must be an object, got {type(row).__name__}")
        yield number, row


def _find_image(path: Path, line: int, name: str, folders: Sequence[Path]) -> BenchmarkImage:
    for folder in folders:
        if (folder / name).is_file():
            try:
                return _file_image(folder / name)
            except ValueError as error:
                raise ValueError(f"{path}, line {line}: {error}") from error
    candidates = ", ".join(str(folder / name) for folder in folders)
    raise ValueError(f"{path}, line {line}: no image {name!r}; looked for {candidates}")


@lru_cache(maxsize=1 << 16)
def _file_image(path: Path) -> FileImage:
    return FileImage(path, image_size(path, limits=DATA_SET_LIMITS))
