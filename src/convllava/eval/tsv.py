"""VLMEvalKit's TSV: a header, one row a question, images as base64 text."""

import binascii
import csv
import hashlib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from PIL import Image

from .outcome import Row
from .table import BenchmarkImage, ImageSize, Table, open_cell, parse_index, parse_list, size_of_cell

MAX_REFERENCE_LENGTH = 64
"""Longest image cell that is the index of another row instead of an image."""


@dataclass(frozen=True)
class TsvImage:
    """One image in the image cell of a row.

    Attributes:
        offset: Byte at which the row begins.
        column: Index of the image column.
        number: Index of the image in the cell.
    """

    path: Path
    offset: int
    column: int
    number: int
    size: ImageSize

    def open(self) -> Image.Image:
        with self.path.open("rb") as stream:
            stream.seek(self.offset)
            _, cells = next(_TsvReader(stream).rows())
        return open_cell(_decode_base64(_split_images(cells[self.column])[self.number]))


def read_tsv(path: Path, columns: Sequence[str]) -> Table:
    """Read a benchmark's TSV; its images are checked but stay in the file.

    Args:
        path: The file.
        columns: Columns that the benchmark needs.

    Raises:
        ValueError: A column is missing, a row has too few cells, an index occurs twice, or an image is damaged or
            refers to a missing row. The message names the file and the row.
    """
    with path.open("rb") as stream:
        reader = _TsvReader(stream)
        scan = _scan(path, reader, columns)
        md5 = reader.md5()
    table = Table(path, md5)
    for row, index in zip(scan.rows, parse_index(row["index"] for row in scan.rows), strict=True):
        images = _resolve(path, str(index), scan)
        if images:
            table.append({**row, "index": index}, images)
    dropped = len(scan.rows) - len(table.rows)
    if dropped:
        table.warnings.append(f"{dropped} of {len(scan.rows)} rows of {path.name} have no image and are left out")
    return table


@dataclass
class _Scan:
    """Rows of a file with their images, by index; a reference is the index of the row that has the image."""

    rows: list[Row] = field(default_factory=list)
    images: dict[str, tuple[BenchmarkImage, ...]] = field(default_factory=dict)
    references: dict[str, str] = field(default_factory=dict)


def _scan(path: Path, reader: "_TsvReader", columns: Sequence[str]) -> _Scan:
    lines = reader.rows()
    try:
        _, header = next(lines)
    except StopIteration:
        raise ValueError(f"{path} is empty: download it again") from None
    _check_columns(path, header, columns)
    image_column = header.index("image")
    scan = _Scan()
    for number, (offset, cells) in enumerate(lines, start=2):
        if len(cells) != len(header):
            raise ValueError(f"{path}, record {number}: {len(cells)} cells where the header has {len(header)}")
        row: Row = {name: cell for name, cell in zip(header, cells, strict=True) if name != "image"}
        index, cell = row["index"], cells[image_column]
        if index in scan.images or index in scan.references:
            raise ValueError(f"{path}, record {number}: index {index!r} occurs twice; each question needs its own")
        if 0 < len(cell) <= MAX_REFERENCE_LENGTH and not cell.startswith("["):
            scan.references[index] = cell
        else:
            scan.images[index] = _images(path, index, cell, offset, image_column)
        if row.get("image_path"):
            row["image_path"] = parse_list(row["image_path"]) or row["image_path"]
        scan.rows.append(row)
    return scan


def _images(path: Path, index: str, cell: str, offset: int, column: int) -> tuple[BenchmarkImage, ...]:
    if not cell:
        return ()
    try:
        sizes = [size_of_cell(_decode_base64(image)) for image in _split_images(cell)]
    except ValueError as error:
        raise ValueError(f"{path}, index {index}: {error}; download the file again") from error
    return tuple(TsvImage(path, offset, column, number, size) for number, size in enumerate(sizes))


def _split_images(cell: str) -> list[str]:
    """Return the base64 texts of an image cell: the members of a list in brackets, or the whole cell."""
    if not (cell.startswith("[") and cell.endswith("]")):
        return [cell]
    images = parse_list(cell)
    if images is None or not all(isinstance(image, str) for image in images):
        raise ValueError("the image cell is in brackets but is not a list of texts")
    return images


def _decode_base64(text: str) -> bytes:
    try:
        return binascii.a2b_base64(text.encode("ascii"), strict_mode=True)
    except ValueError as error:
        raise ValueError(f"the image cell is not base64 ({error})") from error


def _resolve(path: Path, index: str, scan: _Scan) -> tuple[BenchmarkImage, ...]:
    """Follow references from row to row until there is an image."""
    seen = [index]
    while (target := scan.references.get(seen[-1])) is not None:
        if target in seen or (target not in scan.references and not scan.images.get(target)):
            raise ValueError(
                f"{path}, index {index}: its image cell {target!r} names a row without an image, or a missing row; "
                "download the file again"
            )
        seen.append(target)
    return scan.images[seen[-1]]


def _check_columns(path: Path, header: Sequence[str], columns: Sequence[str]) -> None:
    missing = [name for name in ("index", "image", *columns) if name not in header]
    if missing:
        raise ValueError(
            f"{path} has no column {', '.join(dict.fromkeys(missing))}; its columns are {', '.join(header)}: is it "
            "this benchmark's file?"
        )


class _TsvReader:
    """Reads rows with the byte at which each begins, and computes the MD5 sum of everything read."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._position = stream.tell()
        self._digest = hashlib.md5(usedforsecurity=False)

    def rows(self) -> Iterator[tuple[int, list[str]]]:
        csv.field_size_limit(sys.maxsize)  # an image is larger than the 128 KiB allowed by default
        reader = csv.reader(self._lines(), delimiter="\t")
        while True:
            offset = self._position  # the reader takes no more lines than a row has
            cells = next(reader, None)
            if cells is None:
                return
            if cells:
                yield offset, cells

    def md5(self) -> str:
        return self._digest.hexdigest()

    def _lines(self) -> Iterator[str]:
        for line in self._stream:
            at_start = self._position == 0
            self._position += len(line)
            self._digest.update(line)
            yield line.decode("utf-8-sig" if at_start else "utf-8")
