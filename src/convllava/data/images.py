"""Images of samples: drawn, as files, or as the bytes of a file from inside a shard."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from PIL import Image

_ORIENTATION = 0x0112  # EXIF tag
_LYING = range(5, 9)  # its values that swap height and width


@dataclass(frozen=True)
class EncodedImage:
    """An image file from inside a shard: its bytes, what it is called there, and in which shard it is."""

    data: bytes
    name: str
    shard: str

    @property
    def suffix(self) -> str:
        """The ending of its name, with the point."""
        return Path(self.name).suffix

    def __str__(self) -> str:
        return f"{self.name} in {self.shard}"


StoredImage = Image.Image | Path | EncodedImage


class UnreadableImageError(ValueError):
    """An image that is missing, damaged or too large; ``kind`` is that of the fault."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def decode_image(image: StoredImage) -> Image.Image:
    """Return a decoded image.

    Raises:
        UnreadableImageError: It cannot be decoded; names the file.
    """
    if isinstance(image, Image.Image):
        return image
    with reading(image), Image.open(_source(image)) as opened:
        opened.load()
        return opened


def image_size(image: StoredImage) -> tuple[int, int]:
    """Return (height, width) of an image as it is shown, upright, from its header.

    Raises:
        UnreadableImageError: It is no image; names the file.
    """
    if isinstance(image, Image.Image):
        return image.height, image.width
    with reading(image), Image.open(_source(image)) as opened:
        return upright_size(opened)


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Return (height, width) after the rotation that a camera asked for, as far as the header tells it."""
    exif = Image.Image.getexif(image)  # that of PNG files would decode the image to look behind its pixels
    lying = exif.get(_ORIENTATION, 1) in _LYING
    return (image.width, image.height) if lying else (image.height, image.width)


@contextmanager
def reading(image: object) -> Iterator[None]:
    """Say in one way what goes wrong while an image is opened or decoded."""
    try:
        yield
    except FileNotFoundError as error:
        raise UnreadableImageError("missing_image", f"no image {image}") from error
    except Image.DecompressionBombError as error:
        raise UnreadableImageError("huge_image", f"image {image} is too large to be safe ({error})") from error
    except Exception as error:  # on damaged files Pillow's decoders raise nearly everything, struct.error included
        raise UnreadableImageError("corrupt_image", f"cannot read image {image} ({error})") from error


def _source(image: Path | EncodedImage) -> Path | BytesIO:
    return image if isinstance(image, Path) else BytesIO(image.data)
