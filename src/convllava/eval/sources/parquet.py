"""Parquet as the hub has it: shards of one split, images as structs of bytes."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from PIL import Image

from ...images import DATA_SET_LIMITS, image_size, open_image
from .cells import KIT_MISSING
from .table import BenchmarkImage, Row, Table, check_indices, cleaned


@dataclass(frozen=True)
class ParquetImage:
    """A cell of a shard, or member ``number`` of a list there."""

    path: Path
    group: int
    row: int
    column: str
    number: int | None
    size: tuple[int, int]

    def open(self) -> Image.Image:
        cell = _column(self.path, self.group, self.column)[self.row].as_py()
        data = (cell if self.number is None else cell[self.number])["bytes"]
        return open_image(data, name="the image cell", limits=DATA_SET_LIMITS)


def read_parquet(
    paths: Sequence[Path],
    convert: Callable[[Row], Row | None],
    *,
    kit_compatible: bool = False,
) -> Table:
    """Read the shards of a split.

    Args:
        paths: Shards, in order.
        convert: A row of the hub (without images) to one with the columns of the TSV, or None to leave it out.
        kit_compatible: Treat texts such as ``None`` and ``NA`` as missing.

    Raises:
        ValueError: A column is missing or an image is none.
    """
    md5s = [_md5(path) for path in paths]
    md5 = md5s[0] if len(md5s) == 1 else hashlib.md5("".join(md5s).encode(), usedforsecurity=False).hexdigest()
    table = Table(paths[0] if len(paths) == 1 else paths[0].parent, md5, [], [])
    left_out = 0
    for path in paths:
        for raw, images in _rows(path):
            try:
                row = convert(raw)
            except KeyError as error:
                raise ValueError(
                    f"{path} has no column {error.args[0]!r}; its columns are {', '.join(raw)}: is it this benchmark's?"
                ) from None
            if row is None or not images:
                left_out += row is not None
                continue
            row.setdefault("index", len(table.rows))
            table.rows.append(cleaned(row, kit_compatible, KIT_MISSING))
            table.images.append(images)
    check_indices(table.path, table.rows)
    if left_out:
        table.warnings.append(f"{left_out} rows of {table.path.name} have no image and are left out")
    return table


def _rows(path: Path) -> Any:
    """Yield each row without its images, and the images."""
    file = _open(path)
    names = [field.name for field in file.schema_arrow]
    image_columns = [field.name for field in file.schema_arrow if _is_image(field.type)]
    others = [name for name in names if name not in image_columns]
    for group in range(file.num_row_groups):
        rows = file.read_row_group(group, columns=others).to_pylist()
        cells = {name: _column(path, group, name) for name in image_columns}
        for number, row in enumerate(rows):
            yield row, _images(path, group, number, {name: cells[name][number].as_py() for name in image_columns})


def _images(path: Path, group: int, row: int, cells: dict[str, Any]) -> tuple[BenchmarkImage, ...]:
    images = []
    for column, cell in cells.items():
        members = enumerate(cell) if isinstance(cell, list) else [(None, cell)]
        for number, member in members:
            if member is None or (member["bytes"] is None and member.get("path") is None):
                continue  # MMMU has columns for seven images
            try:
                height, width = image_size(member["bytes"] or b"", name="the image cell", limits=DATA_SET_LIMITS)
            except ValueError as error:
                raise ValueError(f"{path}, row {row} of row group {group}: {error}; download it again") from error
            images.append(ParquetImage(path, group, row, column, number, (width, height)))
    return tuple(images)


@lru_cache(maxsize=4)
def _column(path: Path, group: int, name: str) -> Any:
    """Return one column of a row group; the last few are kept, as rows are mostly read one after the other."""
    return _open(path).read_row_group(group, columns=[name])[name]


@lru_cache(maxsize=16)
def _open(path: Path) -> Any:
    try:
        from pyarrow import ArrowInvalid, parquet  # type: ignore[import-untyped]
    except ImportError as error:
        raise ImportError("parquet files need pyarrow: pip install 'convllava[eval]'") from error
    try:
        return parquet.ParquetFile(path)
    except ArrowInvalid as error:
        raise ValueError(f"{path} is not a parquet file ({error}): download it again") from error


def _is_image(kind: Any) -> bool:
    import pyarrow.types as types  # type: ignore[import-untyped]

    inner = kind.value_type if types.is_list(kind) or types.is_large_list(kind) else kind
    return types.is_struct(inner) and any(field.name == "bytes" for field in inner)


def _md5(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "md5").hexdigest()
