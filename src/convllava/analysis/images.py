"""Sizes of image files, from their headers alone."""

from collections.abc import Iterator
from pathlib import Path

from PIL import Image

ENDINGS = frozenset(".png .jpg .jpeg .webp .gif .bmp .tif .tiff .avif .jp2 .ppm".split())
"""What counts as an image in a folder."""

_ORIENTATION = 0x0112  # EXIF tag
_LYING = range(5, 9)  # its values that swap height and width


def image_size(path: Path) -> tuple[int, int]:
    """Return (height, width) of an image as it is shown, upright.

    Raises:
        ValueError: The file is no image; names it.
    """
    try:
        with Image.open(path) as image:
            width, height = image.size
            lying = image.getexif().get(_ORIENTATION, 1) in _LYING
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} is not an image that can be read ({error})") from error
    return (width, height) if lying else (height, width)


def images_in(folder: Path) -> list[Path]:
    """Return the image files of a folder and of those in it, in order.

    Raises:
        ValueError: There are none.
    """
    found = sorted(_walk(folder))
    if not found:
        raise ValueError(f"{folder} holds no images ({', '.join(sorted(ENDINGS))})")
    return found


def _walk(folder: Path) -> Iterator[Path]:
    yield from (path for path in folder.rglob("*") if path.suffix.lower() in ENDINGS and path.is_file())
