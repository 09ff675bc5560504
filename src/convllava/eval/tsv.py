"""VLMEvalKit's TSV: a header, one row a question, images as base64 text."""

import binascii
import csv
import hashlib
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import BinaryIO

from PIL import Image

from .outcome import Row
from .table import (
    BenchmarkImage,
    DamagedImage,
    ImageSize,
    Table,
    image_of_cell,
    listing,
    open_cell,
    parse_index,
    parse_list,
)

_DATA_URL_HEAD = re.compile("data:[^,]{0,100},")

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
    name: str
    size: ImageSize
    has_more_frames: bool

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
        ValueError: A column is missing, or rows have too few cells, an index of another row, an image cell that is
            not base64 or refers to no image. The message names the file and lists the rows.
    """
    with path.open("rb") as stream:
        reader = _TsvReader(stream)
        try:
            scan = _scan(path, reader, columns)
        except UnicodeDecodeError as error:
            raise ValueError(f"{path} is not UTF-8 ({error}): download it again") from error
        md5 = reader.md5()
    images = {index: scan.resolve(index) for index in scan.images}
    if scan.faults:
        raise ValueError(f"{path}: {listing(scan.faults)}; download the file again")
    table = Table(path, md5)
    for row, index in zip(scan.rows, parse_index(row["index"] for row in scan.rows), strict=True):
        if images[row["index"]]:
            table.append({**row, "index": index}, images[row["index"]])
    dropped = len(scan.rows) - len(table.rows)
    if dropped:
        table.warnings.append(f"{dropped} of {len(scan.rows)} rows of {path.name} have no image and are left out")
    table.check_images()
    return table


@dataclass
class _Scan:
    """Rows of a file with their images, by index, and all faults.

    Attributes:
        images: Images of each row; a text is the index of the row that has the image.
        faults: Messages about rows, without the file.
    """

    rows: list[Row] = field(default_factory=list)
    images: dict[str, tuple[BenchmarkImage, ...] | str] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    def resolve(self, index: str) -> tuple[BenchmarkImage, ...]:
        """Follow references from row to row until there is an image."""
        seen = [index]
        while isinstance(target := self.images[seen[-1]], str):
            if target in seen:
                self.faults.append(
                    f"index {index}: its image is a circle of references: {' -> '.join([*seen, target])}"
                )
                return ()
            if not self.images.get(target):
                missing = "names a row without an image" if target in self.images else "is no image and names no row"
                self.faults.append(f"index {index}: its image cell {target!r} {missing}")
                return ()
            seen.append(target)
        return target


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
            scan.faults.append(f"record {number}: {len(cells)} cells where the header has {len(header)}")
            continue
        row: Row = {name: cell for name, cell in zip(header, cells, strict=True) if name != "image"}
        index, cell = row["index"], cells[image_column]
        if index in scan.images:
            scan.faults.append(f"record {number}: index {index!r} occurs twice; each question needs its own")
            continue
        scan.images[index] = ()
        try:
            scan.images[index] = _images_or_reference(path, cell, offset, image_column)
        except ValueError as error:
            scan.faults.append(f"index {index}: {error}")
        if row.get("image_path"):
            row["image_path"] = parse_list(row["image_path"]) or row["image_path"]
        scan.rows.append(row)
    return scan


def _images_or_reference(path: Path, cell: str, offset: int, column: int) -> tuple[BenchmarkImage, ...] | str:
    """Return the images of an image cell, or its text if it is short and not itself an image."""
    if not cell:
        return ()
    images = []
    is_short = len(cell) <= MAX_REFERENCE_LENGTH and not cell.startswith("[")
    try:
        for number, text in enumerate(_split_images(cell)):
            images.append(image_of_cell(_decode_base64(text), partial(TsvImage, path, offset, column, number)))
    except ValueError:
        if is_short:
            return cell
        raise
    return cell if is_short and isinstance(images[0], DamagedImage) else tuple(images)


def _split_images(cell: str) -> list[str]:
    """Return the base64 texts of an image cell: the members of a list in brackets, or the whole cell."""
    if not (cell.startswith("[") and cell.endswith("]")):
        return [cell]
    images = parse_list(cell)
    if images is None or not all(isinstance(image, str) for image in images):
        raise ValueError("the image cell is in brackets but is not a list of texts")
    return images


def _decode_base64(text: str) -> bytes:
    """Return the bytes of base64 text; line breaks, a data URL's head and missing padding are accepted."""
    text = _DATA_URL_HEAD.sub("", "".join(text.split()), count=1)
    try:
        return binascii.a2b_base64((text.rstrip("=") + "=" * (-len(text.rstrip("=")) % 4)).encode(), strict_mode=True)
    except ValueError as error:
        raise ValueError(f"the image cell is not base64 ({error})") from error


def _check_columns(path: Path, header: Sequence[str], columns: Sequence[str]) -> None:
    missing = [name for name in ("index", "image", *columns) if name not in header]
    if missing == ["image"] and "image_path" in header:
        raise ValueError(
            f"{path} has paths (image_path) in place of images (image): give a TSV with the images as base64, or a "
            "JSONL whose key image is the path"
        )
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
