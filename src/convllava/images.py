"""Images from anywhere (path, URL, bytes, PIL, numpy, torch; any mode) to upright PIL images in RGB, and their sizes.

The only module that opens, orients, converts and measures images. The limits are an argument: `LOCAL_LIMITS`
for the user of this machine, `DATA_SET_LIMITS` for files of data sets, `SERVER_LIMITS` for uploads.
"""

import importlib
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import lru_cache
from io import IOBase
from pathlib import Path
from typing import Any, BinaryIO

from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from .fetch import is_url
from .image_bytes import (
    DATA_SET_LIMITS,
    LOCAL_LIMITS,
    SERVER_LIMITS,
    EncodedSource,
    ImageLimits,
    decode_data_url,
    foreign_format,
    is_data_url,
    open_stream,
    other_spelling,
    read_stream,
    short_name,
)
from .image_conversion import ImageError, orientation, to_pil, to_rgb, upright_size
from .support import escaped

__all__ = [
    "DATA_SET_LIMITS",
    "IMAGE_SUFFIXES",
    "LOCAL_LIMITS",
    "SERVER_LIMITS",
    "EncodedSource",
    "ImageError",
    "ImageLimits",
    "decode_data_url",
    "image_files",
    "image_size",
    "is_data_url",
    "is_thin",
    "num_frames",
    "open_image",
    "open_stream",
    "other_spelling",
    "read_stream",
    "short_name",
    "to_pil",
    "to_rgb",
    "undecoded",
    "undecoded_jpeg",
    "upright_size",
]

_SMALLEST_LETTER = 5
"""Pixels of the height of a letter that can just be read."""

logger = logging.getLogger(__name__)

IMAGE_SUFFIXES = frozenset(".png .jpg .jpeg .webp .gif .bmp .tif .tiff .avif .jp2 .ppm".split())
"""File name suffixes by which images are found in a folder."""


def open_image(
    source: Any,
    *,
    name: str | None = None,
    limits: ImageLimits = LOCAL_LIMITS,
    lazily: bool = False,
    frame: int | None = None,
) -> Image.Image:
    """Return an image upright and in RGB. An image that is both already is returned as it is.

    Args:
        source: A path, an http(s) or data URL, base64 text, the bytes of a file, an open stream, or a PIL, numpy or
            torch image (see `to_pil`).
        name: The image in messages; by default the source.
        limits: Limits on the file; a loaded image is not subject to them.
        lazily: Leave upright local JPEGs undecoded: fast preprocessing decodes them no larger than they are shown,
            which changes the image that is returned here. For images that are shown once.
        frame: Frame (page) of a file that has several, counted from 1; None takes the first and logs that there are
            more.

    Raises:
        ImageError: Missing, unreachable, not an image, damaged or beyond a limit.
    """
    if lazily and (jpeg := undecoded_jpeg(source, limits)) is not None:
        return jpeg
    if isinstance(source, str | Path | bytes | IOBase):
        with undecoded(source, name=name, limits=limits) as image:  # type: ignore[arg-type]
            name = name or short_name(source)
            _seek(image, frame, name, limits)
            if limits.logs and is_thin(image.size):
                logger.warning("%s has %dx%d pixels: nothing can be read in it", escaped(name), *image.size)
            return to_rgb(image, name)
    return to_rgb(to_pil(source), name)


def is_thin(size: tuple[int, int]) -> bool:
    """Return whether an image of this size is too thin for a letter, such as a line between two paragraphs."""
    return min(size) < _SMALLEST_LETTER


def num_frames(image: Image.Image) -> int:
    """Return the number of frames or pages of an image file, 1 for one in memory.

    The further images in an MPO, the .jpg of some telephones, are previews and do not count.
    """
    if image.format == "MPO" or not getattr(image, "is_animated", False):
        return 1
    return int(getattr(image, "n_frames", 1))


def _seek(image: Image.Image, frame: int | None, name: str, limits: ImageLimits) -> None:
    if frame is None:
        if limits.logs:
            _log_frames(image, name)
        return
    number = num_frames(image)
    if not 1 <= frame <= number:
        raise ImageError("missing", name, f"has no page {frame}: its pages are 1 to {number}")
    if number > 1:
        image.seek(frame - 1)
        _check_limits(image, name, limits)


def _log_frames(image: Image.Image, name: str) -> None:
    """Log that only the first of several frames is used; damage after the first does not keep it from being opened."""
    try:
        number = num_frames(image)
    except Exception as error:  # on damaged files Pillow's decoders raise nearly everything
        logger.warning("%s is damaged after its first frame (%s), which is shown", escaped(name), error)
        image.seek(0)
        return
    if number > 1:
        logger.warning(
            "%s has %d frames, of which the first is shown (--page N selects another)", escaped(name), number
        )


def image_size(
    source: EncodedSource | Image.Image, *, name: str | None = None, limits: ImageLimits = LOCAL_LIMITS
) -> tuple[int, int]:
    """Return (height, width) of an image as it is shown, upright, from its header alone.

    Raises:
        ImageError: It is missing, not an image, or beyond a limit.
    """
    if isinstance(source, Image.Image):
        return upright_size(source)
    with undecoded(source, name=name, limits=limits) as image:
        return upright_size(image)


def image_files(folder: Path) -> list[Path]:
    """Return the image files in a folder and its subfolders, sorted.

    Raises:
        ValueError: There are none.
    """
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file())
    if not found:
        raise ValueError(f"{folder} holds no images ({', '.join(sorted(IMAGE_SUFFIXES))})")
    return found


@contextmanager
def undecoded(
    source: EncodedSource, *, name: str | None = None, limits: ImageLimits = LOCAL_LIMITS
) -> Iterator[Image.Image]:
    """Open an image file without decoding it and check its limits; size, format and metadata can then be read.

    Raises:
        ImageError: It is missing, not an image, beyond a limit, or damaged (also as found inside the block).
    """
    name = name or short_name(source)
    with open_stream(source, name=name, limits=limits) as stream:
        try:
            with _identified(stream, name, limits) as image:
                _check_limits(image, name, limits)
                yield image
        except ImageError:
            raise
        except Image.DecompressionBombError as error:
            raise _too_large(name, "", limits) from error
        except Exception as error:  # on damaged files Pillow's decoders raise nearly everything
            raise ImageError("damaged", name, f"is damaged ({error}): save or fetch it again") from error


def _identified(stream: BinaryIO, name: str, limits: ImageLimits) -> Image.Image:
    try:
        return Image.open(stream, formats=_available(limits.formats))
    except Image.DecompressionBombError:
        stream.seek(0)
        if limits.reducible_pixels and stream.read(3) == b"\xff\xd8\xff":
            stream.seek(0)
            return JpegImageFile(stream)
        raise
    except Exception as error:
        stream.seek(0)
        found = foreign_format(stream.read(256))
        way_out = "convert it first"
        if found == "HEIC" and "HEIF" in limits.formats:
            way_out = "'pip install pillow-heif' makes it readable, or convert it first"
        but = f" but {found}" if found else ""
        reason = f"is not an image that can be read ({limits.readable}){but}: {way_out}"
        raise ImageError("unreadable", name, reason) from error


def _available(formats: tuple[str, ...]) -> tuple[str, ...]:
    """Return the formats that this build of Pillow and its plug-ins can open."""
    _load_plugins()
    return tuple(name for name in formats if name in Image.OPEN)


@lru_cache(maxsize=1)
def _load_plugins() -> None:
    Image.init()
    with suppress(ImportError):
        pillow_heif = importlib.import_module("pillow_heif")
        pillow_heif.register_heif_opener()


def _check_limits(image: Image.Image, name: str, limits: ImageLimits) -> None:
    # Pillow only warns up to twice its limit, through a filter that threads share.
    width, height = image.size
    if limits.pixels is not None and width * height > limits.pixels and not _reduce(image, name, limits):
        raise _too_large(name, f"{width}x{height} = {width * height} pixels, ", limits)
    # MPO: the .jpg files of some telephones, an image with its preview
    if not limits.animated and image.format != "MPO" and getattr(image, "is_animated", False):
        raise ImageError("animated", name, "is animated: send one frame of it")
    profile = len(image.info.get("icc_profile") or b"")
    if limits.max_profile_bytes is not None and profile > limits.max_profile_bytes:
        reason = f"has a color profile of {profile} bytes, at most {limits.max_profile_bytes} are allowed"
        raise ImageError("too_large", name, reason)


def _reduce(image: Image.Image, name: str, limits: ImageLimits) -> bool:
    """Have a JPEG that is too large decoded at a half, a quarter or an eighth of its size; return whether it fits."""
    width, height = image.size
    if not isinstance(image, JpegImageFile) or width * height > limits.reducible_pixels:
        return False
    for factor in (2, 4, 8):
        smaller = (width // factor, height // factor)
        if 0 < smaller[0] * smaller[1] <= (limits.pixels or 0):
            image.draft(None, smaller)
            if limits.logs:
                logger.warning(
                    "%s has %dx%d pixels and is decoded at 1/%d of them", escaped(name), width, height, factor
                )
            return True
    return False


def _too_large(name: str, size: str, limits: ImageLimits) -> ImageError:
    reason = f"is too large to open safely: {size}at most {limits.pixels} are allowed; scale it down first"
    return ImageError("too_large", name, reason)


def undecoded_jpeg(source: Any, limits: ImageLimits) -> Image.Image | None:
    """Return an upright JPEG within the limits that is not decoded yet, or None for anything else."""
    if isinstance(source, Image.Image):
        is_one = isinstance(source, JpegImageFile) and bool(source.tile) and orientation(source) == 1
        return source if is_one else None
    if not isinstance(source, str | Path) or is_url(source) or not os.path.isfile(source):
        return None
    try:
        image = Image.open(source, formats=("JPEG",))
    except Exception:  # the ordinary way reads it, or says what is wrong
        return None
    with suppress(Exception):
        _check_limits(image, "", replace(limits, reduces=False))
        if image.format == "JPEG" and orientation(image) == 1 and not is_thin(image.size):
            return image
    image.close()
    return None
