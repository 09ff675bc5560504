"""Rows of a benchmark with their images, which stay in the file until they are looked at."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any, Protocol

from PIL import Image

Row = dict[str, Any]


class BenchmarkImage(Protocol):
    """An image that is opened when it is needed."""

    @property
    def size(self) -> tuple[int, int]:
        """(width, height), known without decoding."""
        ...

    def open(self) -> Any:
        """Return what ``inference.open_image`` takes: a path or a loaded image.

        Raises:
            ValueError: The image is damaged.
        """
        ...


@dataclass
class Table:
    """A benchmark file.

    Attributes:
        path: Of the file, or of the folder of its shards.
        md5: Of the file; of several shards, of their md5 sums in order.
        rows: One dictionary each, without images.
        images: Of each row.
        warnings: What whoever reads the score has to know.
    """

    path: Path
    md5: str
    rows: list[Row]
    images: list[tuple[BenchmarkImage, ...]]
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class LoadedImage:
    """An image that is in memory already."""

    image: Image.Image

    @property
    def size(self) -> tuple[int, int]:
        return self.image.size

    def open(self) -> Image.Image:
        return self.image


@dataclass(frozen=True)
class FileImage:
    """An image file."""

    path: Path
    size: tuple[int, int]

    def open(self) -> Path:
        return self.path


def size_of(data: bytes) -> tuple[int, int]:
    """Return (width, height) of an encoded image from its header.

    Raises:
        ValueError: The data are no image.
    """
    try:
        with Image.open(BytesIO(data)) as image:
            return image.size
    except Exception as error:  # decoders raise anything on damaged data
        raise ValueError("the data are not an image that can be read") from error


def decoded(data: bytes) -> Image.Image:
    """Return an image decoded completely.

    Raises:
        ValueError: It is damaged.
    """
    try:
        image = Image.open(BytesIO(data))
        image.load()
    except Exception as error:
        raise ValueError(f"the image is damaged ({error})") from error
    return image


def cleaned(row: Row, kit_compatible: bool, missing: frozenset[str]) -> Row:
    """Return a row with None for missing cells: empty ones, and with ``kit_compatible`` all that pandas drops."""
    empty = missing if kit_compatible else frozenset([""])
    return {name: None if isinstance(cell, str) and cell in empty else cell for name, cell in row.items()}


def check_indices(path: Path, rows: Sequence[Row]) -> None:
    """Raise a ValueError for an index that two rows have."""
    seen: set[str] = set()
    for row in rows:
        if str(row["index"]) in seen:
            raise ValueError(f"{path}: index {row['index']!r} occurs twice; each question needs its own")
        seen.add(str(row["index"]))
