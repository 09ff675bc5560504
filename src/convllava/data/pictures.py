"""Pictures of samples: drawn, as files, or as the bytes of a file from inside a shard."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from PIL import Image

_ORIENTATION = 0x0112  # EXIF tag
_LYING = range(5, 9)  # its values that swap height and width


@dataclass(frozen=True)
class EncodedPicture:
    """A picture file from inside a shard: its bytes, what it is called there, and in which shard it is."""

    data: bytes
    name: str
    shard: str

    @property
    def suffix(self) -> str:
        """The ending of its name, with the point."""
        return Path(self.name).suffix

    def __str__(self) -> str:
        return f"{self.name} in {self.shard}"


StoredImage = Image.Image | Path | EncodedPicture


class UnreadablePictureError(ValueError):
    """A picture that is missing, damaged or too large; ``kind`` is that of the fault."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def decode_picture(picture: StoredImage) -> Image.Image:
    """Return a decoded picture.

    Raises:
        UnreadablePictureError: It cannot be decoded; names the file.
    """
    if isinstance(picture, Image.Image):
        return picture
    with reading(picture), Image.open(_source(picture)) as opened:
        opened.load()
        return opened


def picture_size(picture: StoredImage) -> tuple[int, int]:
    """Return (height, width) of a picture as it is shown, upright, from its header.

    Raises:
        UnreadablePictureError: It is no picture; names the file.
    """
    if isinstance(picture, Image.Image):
        return picture.height, picture.width
    with reading(picture), Image.open(_source(picture)) as opened:
        return upright_size(opened)


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Return (height, width) after the rotation that a camera asked for, as far as the header tells it."""
    exif = Image.Image.getexif(image)  # that of PNG files would decode the picture to look behind its pixels
    lying = exif.get(_ORIENTATION, 1) in _LYING
    return (image.width, image.height) if lying else (image.height, image.width)


@contextmanager
def reading(picture: object) -> Iterator[None]:
    """Say in one way what goes wrong while a picture is opened or decoded."""
    try:
        yield
    except FileNotFoundError as error:
        raise UnreadablePictureError("missing_image", f"no image {picture}") from error
    except Image.DecompressionBombError as error:
        raise UnreadablePictureError("huge_image", f"image {picture} is too large to be safe ({error})") from error
    except Exception as error:  # on damaged files Pillow's decoders raise nearly everything, struct.error included
        raise UnreadablePictureError("corrupt_image", f"cannot read image {picture} ({error})") from error


def _source(picture: Path | EncodedPicture) -> Path | BytesIO:
    return picture if isinstance(picture, Path) else BytesIO(picture.data)
