"""Images of samples: drawn, as files, or as the bytes of a file from inside a shard."""

import os
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from PIL import Image

from ..fetch import is_url
from ..images import DATA_SET_LIMITS, ImageError, decode_data_url, image_size, is_data_url, open_image, other_spelling
from ..support import encodable
from .faults import RecordError


@dataclass(frozen=True)
class EncodedImage:
    """An image file from inside a shard.

    Attributes:
        data: Bytes of the file.
        name: Name of the file in the shard.
        shard: Name of the shard.
    """

    data: bytes
    name: str
    shard: str

    @property
    def suffix(self) -> str:
        """Suffix of the file name, with the point."""
        return Path(self.name).suffix

    def __str__(self) -> str:
        return f"{self.name} in {self.shard}"


StoredImage = Image.Image | Path | EncodedImage

FAULT_OF_KIND = {"missing": "missing_image", "too_large": "huge_image"}
"""Kind of fault for a kind of image error; any other is a ``corrupt_image``."""


def stored_image(given: Any, folder: Path, file: str, number: int) -> StoredImage:
    """Return the image that a record names or holds: a file name, a data URL, bytes, or a struct of ``datasets``.

    Args:
        given: The value in the record.
        folder: Folder that file names are relative to.
        file: The data file or shard.
        number: The number of the record.

    Raises:
        RecordError: It is none of these, leads out of the folder, or is not on this machine.
    """
    if isinstance(given, dict):
        data, given = given.get("bytes"), given.get("path")
        if isinstance(data, bytes):
            return EncodedImage(data, given or f"record {number}", file)
    if isinstance(given, bytes):
        return EncodedImage(given, f"record {number}", file)
    if not isinstance(given, str):
        raise RecordError("malformed", f"'image' must be a file name or a list of them, got {shortened(given)}")
    name = given
    if ":" in given:
        if is_data_url(given):
            return EncodedImage(_decoded(given), f"record {number}", file)
        name = unquote(given.removeprefix("file://")) if given.startswith("file://") else given
        if is_url(given):
            message = f"image {shortened(given)} is a URL, and data sets are read from this machine: download the image"
            raise RecordError("missing_image", message)
    path = path_in(folder, name)
    if path is None:
        raise RecordError("malformed", outside(name, folder))
    return path


def _decoded(url: str) -> bytes:
    try:
        return decode_data_url(url)
    except ImageError as error:
        raise RecordError("corrupt_image", f"image {error}") from error


def shortened(value: Any) -> str:
    """Return a value as it is written in messages, of bounded length."""
    try:
        written = ascii(value) if isinstance(value, str) else encodable(repr(value))
    except RecursionError:
        return "a value of very many levels"
    return written if len(written) <= 200 else f"{written[:150]}...{written[-40:]}"


def path_in(folder: Path, name: str) -> Path | None:
    """Return the path of an image that a record names, or None if the name leads out of the folder of the images."""
    path = folder / name
    if os.path.isabs(name) or ".." in name:
        root = os.path.abspath(folder)
        if os.path.commonpath([root, os.path.abspath(path)]) != root:
            return None
    return path


def outside(name: str, folder: Path) -> str:
    """Return the message about a name that leads out of the folder of the images."""
    return f"image {name!r} is outside image_folder {folder}: set image_folder to a folder that holds all images"


def respelled(path: Path, folder: Path) -> Path | None:
    """Return the file in a folder that a path means that has backslashes or another Unicode form (NFC, NFD)."""
    text = str(path).replace("\\", "/")
    root = os.path.abspath(folder)
    if os.path.commonpath([root, os.path.abspath(text)]) != root:
        return None
    forms = (text, *(unicodedata.normalize(form, text) for form in ("NFC", "NFD")))
    return next((Path(form) for form in forms if form != str(path) and os.path.isfile(form)), None)


def missing(path: Path) -> str:
    """Return the message about an image of a record that is not there, with the way out."""
    return f"no image {path}; {other_spelling(path) or 'set image_folder to the folder of the images'}"


def is_absent(stored: Any) -> bool:
    """Return whether an image is null, empty, or a struct without content, which parquet has in place of null."""
    if isinstance(stored, dict):
        return not any(stored.get(key) for key in ("bytes", "path", "url")) and stored.get("bytes") != b""
    return stored is None or stored == ""


def open_stored(image: StoredImage) -> Image.Image:
    """Return the image of a sample, upright and in RGB.

    Raises:
        ImageError: It is missing, damaged or too large.
    """
    if isinstance(image, EncodedImage):
        return open_image(image.data, name=str(image), limits=DATA_SET_LIMITS)
    return open_image(image, limits=DATA_SET_LIMITS)


def stored_size(image: StoredImage) -> tuple[int, int]:
    """Return (height, width) of the image of a sample as it is shown, upright, from its header.

    Raises:
        ImageError: It is missing, damaged or too large.
    """
    if isinstance(image, EncodedImage):
        return image_size(image.data, name=str(image), limits=DATA_SET_LIMITS)
    return image_size(image, limits=DATA_SET_LIMITS)


def fault_of(error: ImageError) -> tuple[str, str]:
    """Return kind and message of the fault of a sample whose image cannot be used."""
    kind = FAULT_OF_KIND.get(error.kind, "corrupt_image")
    message = f"no image {error.name}" if kind == "missing_image" else f"image {error}"
    return kind, message
