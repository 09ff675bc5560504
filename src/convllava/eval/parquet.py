"""Parquet as the hub stores it: shards of one split, images as structs of bytes."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from ..support import require
from .outcome import Row
from .table import BenchmarkImage, ImageSize, Table, image_of_cell, open_cell

if TYPE_CHECKING:
    from pyarrow import ChunkedArray, DataType  # type: ignore[import-untyped]
    from pyarrow.parquet import ParquetFile  # type: ignore[import-untyped]


@dataclass(frozen=True)
class ParquetImage:
    """An image in a shard.

    Attributes:
        group: Index of the row group.
        row: Index of the row in its group.
        number: Index of the image in a list of images; None where the column holds single images.
    """

    path: Path
    group: int
    row: int
    column: str
    number: int | None
    name: str
    size: ImageSize
    has_more_frames: bool

    def open(self) -> Image.Image:
        cell = _column(self.path, self.group, self.column)[self.row].as_py()
        return open_cell((cell if self.number is None else cell[self.number])["bytes"])


def read_parquet(paths: Sequence[Path], convert: Callable[[Row], Row | None]) -> Table:
    """Read the shards of a split.

    Args:
        paths: The shards, in order.
        convert: Function from a row of the hub, without its images, to a row with the columns of the TSV; None leaves
            the row out.

    Raises:
        ValueError: A column is missing, or a file is not parquet.
        MissingPackageError: pyarrow is not installed.
    """
    md5s = [_md5(path) for path in paths]
    md5 = md5s[0] if len(md5s) == 1 else hashlib.md5("".join(md5s).encode(), usedforsecurity=False).hexdigest()
    table = Table(paths[0] if len(paths) == 1 else paths[0].parent, md5)
    num_without_image = 0
    for path in paths:
        for raw, images in _rows(path):
            try:
                row = convert(raw)
            except KeyError as error:
                raise ValueError(
                    f"{path} has no column {error.args[0]!r}; its columns are {', '.join(raw)}: is it this benchmark's?"
                ) from None
            if row is None or not images:
                num_without_image += row is not None
                continue
            row.setdefault("index", len(table.rows))
            table.append(row, images)
    table.check_indices()
    table.check_images()
    if num_without_image:
        table.warnings.append(f"{num_without_image} rows of {table.path.name} have no image and are left out")
    return table


def _rows(path: Path) -> Iterator[tuple[Row, tuple[BenchmarkImage, ...]]]:
    """Yield each row without its images, and the images."""
    file = _open(path)
    names = [field.name for field in file.schema_arrow]
    image_columns = [field.name for field in file.schema_arrow if _is_image(field.type)]
    other_columns = [name for name in names if name not in image_columns]
    for group in range(file.num_row_groups):
        rows = file.read_row_group(group, columns=other_columns).to_pylist()
        cells = {name: _column(path, group, name) for name in image_columns}
        for number, row in enumerate(rows):
            yield row, _images(path, group, number, {name: cells[name][number].as_py() for name in image_columns})


def _images(path: Path, group: int, row: int, cells: dict[str, Any]) -> tuple[BenchmarkImage, ...]:
    images: list[BenchmarkImage] = []
    for column, cell in cells.items():
        members = enumerate(cell) if isinstance(cell, list) else [(None, cell)]
        for number, member in members:
            if member is None or (member["bytes"] is None and member.get("path") is None):
                continue  # MMMU has columns for seven images
            images.append(
                image_of_cell(member["bytes"] or b"", partial(ParquetImage, path, group, row, column, number))
            )
    return tuple(images)


@lru_cache(maxsize=4)
def _column(path: Path, group: int, name: str) -> "ChunkedArray":
    """Return one column of a row group; the last few are cached, since rows are mostly read in order."""
    return _open(path).read_row_group(group, columns=[name])[name]


@lru_cache(maxsize=16)
def _open(path: Path) -> "ParquetFile":
    pyarrow = require("pyarrow", extra="eval", purpose="parquet files")
    parquet = require("pyarrow.parquet", extra="eval", purpose="parquet files")
    try:
        return parquet.ParquetFile(path)
    except pyarrow.ArrowInvalid as error:
        raise ValueError(f"{path} is not a parquet file ({error}): download it again") from error


def _is_image(type_: "DataType") -> bool:
    import pyarrow.types as types  # type: ignore[import-untyped]

    member = type_.value_type if types.is_list(type_) or types.is_large_list(type_) else type_
    return types.is_struct(member) and any(field.name == "bytes" for field in member)


def _md5(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "md5").hexdigest()
