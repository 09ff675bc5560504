"""Images of samples: drawn, as files, or as the bytes of a file from inside a shard."""

import os
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from ..images import DATA_SET_LIMITS, ImageError, image_size, open_image, other_spelling


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


def missing(path: Path) -> str:
    """Return the message about an image of a record that is not there, with the way out."""
    return f"no image {path}; {other_spelling(path) or 'set image_folder to the folder of the images'}"


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
