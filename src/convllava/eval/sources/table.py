"""Rows of a benchmark with their images, which stay in the file until they are looked at."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from PIL import Image

from ...images import image_size

Row = dict[str, Any]


class BenchmarkImage(Protocol):
    """An image that is opened when it is needed."""

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) as the image is shown, upright, known without decoding."""
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
        height, width = image_size(self.image)
        return (width, height)

    def open(self) -> Image.Image:
        return self.image


@dataclass(frozen=True)
class FileImage:
    """An image file."""

    path: Path
    size: tuple[int, int]

    def open(self) -> Path:
        return self.path


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
