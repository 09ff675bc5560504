"""Local JSONL: an object a line, images by path."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from ...images import DATA_SET_LIMITS, image_size
from .cells import KIT_MISSING
from .table import BenchmarkImage, FileImage, Row, Table, check_indices, cleaned


def read_jsonl(path: Path, required: Sequence[str], folders: Sequence[Path], *, kit_compatible: bool = False) -> Table:
    """Read a file whose lines have the columns of the TSV, with ``image`` a path or a list of paths.

    Args:
        path: Of the file.
        required: Keys that every line needs.
        folders: Where paths of images may start from.
        kit_compatible: Treat texts such as ``None`` and ``NA`` as missing.

    Raises:
        ValueError: A line is no object, lacks a key, or names an image that is not there.
    """
    data = path.read_bytes()
    table = Table(path, hashlib.md5(data, usedforsecurity=False).hexdigest(), [], [])
    for number, row in _lines(path, data):
        missing = [name for name in ("image", *required) if name not in row]
        if missing:
            raise ValueError(f"{path}, line {number}: no key {', '.join(missing)}")
        images = row.pop("image")
        names = images if isinstance(images, list) else [images]
        table.images.append(tuple(_image(path, number, str(name), folders) for name in names))
        row.setdefault("index", number - 1)
        table.rows.append(cleaned(row, kit_compatible, KIT_MISSING))
    check_indices(path, table.rows)
    return table


def _lines(path: Path, data: bytes) -> Iterator[tuple[int, Row]]:
    for number, line in enumerate(data.decode("utf-8-sig").split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row: Any = json.loads(line)
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: not JSON ({error})") from error
        if not isinstance(row, dict):
            raise ValueError(f"{path}, line {number}: an object is wanted, got {type(row).__name__}")
        yield number, row


def _image(path: Path, line: int, name: str, folders: Sequence[Path]) -> BenchmarkImage:
    for folder in folders:
        if (folder / name).is_file():
            try:
                return _file(folder / name)
            except ValueError as error:
                raise ValueError(f"{path}, line {line}: {error}") from error
    looked = ", ".join(str(folder / name) for folder in folders)
    raise ValueError(f"{path}, line {line}: no image {name!r}; looked for {looked}")


@lru_cache(maxsize=1 << 16)
def _file(path: Path) -> FileImage:
    height, width = image_size(path, limits=DATA_SET_LIMITS)
    return FileImage(path, (width, height))
