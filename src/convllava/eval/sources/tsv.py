"""VLMEvalKit's TSV: a header, one row a question, images as base64 text."""

import binascii
import csv
import hashlib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from PIL import Image

from ...images import DATA_SET_LIMITS, image_size, open_image
from .cells import KIT_MISSING, REFERENCE_LENGTH, images_of_cell, parse_index, parse_list
from .table import BenchmarkImage, Row, Table, cleaned


@dataclass(frozen=True)
class TsvImage:
    """Image ``number`` of the image cell of the record that begins at byte ``offset``."""

    path: Path
    offset: int
    column: int
    number: int
    size: tuple[int, int]

    def open(self) -> Image.Image:
        with self.path.open("rb") as stream:
            stream.seek(self.offset)
            _, cells = next(_Records(stream).read())
        data = _bytes_of(images_of_cell(cells[self.column])[self.number])
        return open_image(data, name="the image cell", limits=DATA_SET_LIMITS)


def read_tsv(path: Path, required: Sequence[str], *, kit_compatible: bool = False) -> Table:
    """Read a benchmark's TSV; images are checked but stay in the file.

    Args:
        path: Of the file.
        required: Columns that the benchmark cannot do without.
        kit_compatible: Treat texts such as ``None`` and ``NA`` as missing, as VLMEvalKit does.

    Raises:
        ValueError: A column is missing, a row has too few cells, an index occurs twice, an image is no image or
            refers to a row that is not there. Names the file and the row.
    """
    with path.open("rb") as stream:
        records = _Records(stream)
        scanned = _scan(path, records, required)
        md5 = records.md5()
    indices = parse_index(row["index"] for row in scanned.rows)
    rows = [{**row, "index": index} for row, index in zip(scanned.rows, indices, strict=True)]
    return _table(path, md5, rows, scanned, kit_compatible)


@dataclass
class _Scanned:
    """All rows, and where their images are: their own, or those of the row with another index."""

    rows: list[Row]
    images: dict[str, tuple[BenchmarkImage, ...]]
    references: dict[str, str]


def _scan(path: Path, records: "_Records", required: Sequence[str]) -> _Scanned:
    lines = records.read()
    try:
        _, header = next(lines)
    except StopIteration:
        raise ValueError(f"{path} is empty: download it again") from None
    _check_columns(path, header, required)
    image_column = header.index("image")
    found = _Scanned([], {}, {})
    for number, (offset, cells) in enumerate(lines, start=2):
        if len(cells) != len(header):
            raise ValueError(f"{path}, record {number}: {len(cells)} cells where the header has {len(header)}")
        row: Row = {name: cell for name, cell in zip(header, cells, strict=True) if name != "image"}
        index = row["index"]
        if index in found.images or index in found.references:
            raise ValueError(f"{path}, record {number}: index {index!r} occurs twice; each question needs its own")
        cell = cells[image_column]
        if 0 < len(cell) <= REFERENCE_LENGTH and not cell.startswith("["):
            found.references[index] = cell
        else:
            found.images[index] = _images(path, index, cell, offset, image_column)
        if row.get("image_path"):
            row["image_path"] = parse_list(row["image_path"]) or row["image_path"]
        found.rows.append(row)
    return found


def _images(path: Path, index: str, cell: str, offset: int, column: int) -> tuple[BenchmarkImage, ...]:
    if not cell:
        return ()
    try:
        sizes = [
            image_size(_bytes_of(image), name="the image cell", limits=DATA_SET_LIMITS)[::-1]
            for image in images_of_cell(cell)
        ]
    except ValueError as error:
        raise ValueError(f"{path}, index {index}: {error}; download the file again") from error
    return tuple(TsvImage(path, offset, column, number, size) for number, size in enumerate(sizes))


def _table(path: Path, md5: str, rows: list[Row], scanned: _Scanned, kit_compatible: bool) -> Table:
    table = Table(path, md5, [], [])
    for row in rows:
        images = _resolve(path, str(row["index"]), scanned)
        if images:
            table.rows.append(cleaned(row, kit_compatible, KIT_MISSING))
            table.images.append(images)
    dropped = len(rows) - len(table.rows)
    if dropped:
        table.warnings.append(f"{dropped} of {len(rows)} rows of {path.name} have no image and are left out")
    return table


def _resolve(path: Path, index: str, scanned: _Scanned) -> tuple[BenchmarkImage, ...]:
    """Follow references from row to row until there is an image."""
    seen = [index]
    while (target := scanned.references.get(seen[-1])) is not None:
        if target in seen or (target not in scanned.references and not scanned.images.get(target)):
            raise ValueError(
                f"{path}, index {index}: its image cell {target!r} names a row without an image, or none at all; "
                "download the file again"
            )
        seen.append(target)
    return scanned.images[seen[-1]]


def _check_columns(path: Path, header: Sequence[str], required: Sequence[str]) -> None:
    missing = [name for name in ("index", "image", *required) if name not in header]
    if missing:
        raise ValueError(
            f"{path} has no column {', '.join(dict.fromkeys(missing))}; its columns are {', '.join(header)}: is it "
            "this benchmark's file?"
        )


def _bytes_of(text: str) -> bytes:
    try:
        return binascii.a2b_base64(text.encode("ascii"), strict_mode=True)
    except ValueError as error:
        raise ValueError(f"the image cell is not base64 ({error})") from error


class _Records:
    """Records of a TSV with the byte at which each begins, and the md5 of all that was read."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._position = stream.tell()
        self._digest = hashlib.md5(usedforsecurity=False)

    def read(self) -> Iterator[tuple[int, list[str]]]:
        csv.field_size_limit(sys.maxsize)  # an image is larger than the 128 KiB allowed by default
        reader = csv.reader(self._lines(), delimiter="\t")
        while True:
            offset = self._position  # the reader takes no more lines than a record has
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
