"""Images from anywhere (path, URL, bytes, PIL, numpy, torch; any mode) to upright PIL images in RGB, and their sizes.

The only module that opens, orients, converts and measures images. The limits are an argument: `LOCAL_LIMITS`
for the user of this machine, `DATA_SET_LIMITS` for files of data sets, `SERVER_LIMITS` for uploads.
"""

import base64
import binascii
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO, IOBase
from pathlib import Path
from typing import Any, BinaryIO

from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from .fetch import LOCAL_FETCH, FetchPolicy, fetch, is_url
from .image_conversion import ImageError, orientation, to_pil, to_rgb, upright_size

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
    "open_image",
    "open_stream",
    "read_stream",
    "short_name",
    "to_pil",
    "to_rgb",
    "undecoded",
    "undecoded_jpeg",
    "upright_size",
]

EncodedSource = str | Path | bytes | BinaryIO
"""An image file: its path, an http(s) or data URL, base64 text, its bytes, or an open stream that can seek."""

IMAGE_SUFFIXES = frozenset(".png .jpg .jpeg .webp .gif .bmp .tif .tiff .avif .jp2 .ppm".split())
"""File name suffixes by which images are found in a folder."""

_SHORTEST_BASE64 = 80
"""Shorter texts cannot be a whole image in base64, so a mistyped path is reported as a missing file."""

_DATA_URL = re.compile(
    r"\s{0,16}data:(?:image/[\w.+-]{1,32}|application/octet-stream)(?:;[\w.+-]{1,32}=[\w.+-]{1,64}){0,8};base64,",
    re.IGNORECASE,
)
_BLANKS = b" \t\r\n\f\v"
_URL_SAFE = bytes.maketrans(b"-_", b"+/")


@dataclass(frozen=True)
class ImageLimits:
    """Limits of an image file that is opened.

    Attributes:
        formats: Pillow's names of the accepted formats. Pillow knows many more; some run other programs (EPS:
            Ghostscript) or have no signature to recognize them by.
        readable: The accepted formats in words, for messages.
        max_pixels: Maximum height times width; None takes ``Image.MAX_IMAGE_PIXELS`` times ``pixel_factor``.
        pixel_factor: Multiple of Pillow's limit; Pillow itself warns at 1 and raises at 2.
        max_profile_bytes: Maximum size of a color profile; None for no limit.
        animated: Whether animations are accepted, of which the first frame is taken.
        fetch: Limits of a download.
    """

    formats: tuple[str, ...] = (
        *("PNG", "JPEG", "MPO", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM", "ICO"),
        "HEIF",  # where the plug-in pillow-heif is registered
    )
    readable: str = "PNG, JPEG, WebP, GIF, BMP, TIFF or AVIF"
    max_pixels: int | None = None
    pixel_factor: int = 1
    max_profile_bytes: int | None = None
    animated: bool = True
    fetch: FetchPolicy = LOCAL_FETCH

    @property
    def pixels(self) -> int | None:
        """Maximum height times width, None for no limit."""
        if self.max_pixels is not None or Image.MAX_IMAGE_PIXELS is None:
            return self.max_pixels
        return Image.MAX_IMAGE_PIXELS * self.pixel_factor


LOCAL_LIMITS = ImageLimits()
"""Limits for images that the user of this machine names."""

DATA_SET_LIMITS = ImageLimits(pixel_factor=2)
"""Limits for the files of a data set or benchmark on this machine."""

SERVER_LIMITS = ImageLimits(
    formats=("PNG", "JPEG", "MPO", "WEBP", "GIF", "BMP", "AVIF"),
    readable="PNG, JPEG, WebP, GIF, BMP or AVIF",
    max_pixels=1 << 26,  # 48 megapixels of a telephone fit
    max_profile_bytes=4 << 20,  # the largest in use (for printing) have about 3 MB
    animated=False,
)
"""Limits for images that clients of a server send."""


def open_image(
    source: Any, *, name: str | None = None, limits: ImageLimits = LOCAL_LIMITS, lazily: bool = False
) -> Image.Image:
    """Return an image upright and in RGB. An image that is both already is returned as it is.

    Args:
        source: A path, an http(s) or data URL, base64 text, the bytes of a file, an open stream, or a PIL, numpy or
            torch image (see `to_pil`).
        name: The image in messages; by default the source.
        limits: Limits of a file; a loaded image is not subject to them.
        lazily: Leave upright local JPEGs undecoded: fast preprocessing decodes them no larger than they are shown,
            which changes the image that is returned here. For images that are shown once.

    Raises:
        ImageError: Missing, unreachable, not an image, damaged or beyond a limit.
    """
    if lazily and (jpeg := undecoded_jpeg(source, limits)) is not None:
        return jpeg
    if isinstance(source, str | Path | bytes | IOBase):
        with undecoded(source, name=name, limits=limits) as image:  # type: ignore[arg-type]
            return to_rgb(image, name or short_name(source))
    return to_rgb(to_pil(source), name)


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


def short_name(source: object) -> str:
    """Return a source as it is named in messages: long texts, such as data URLs, are shortened."""
    if not isinstance(source, str | Path):
        return f"a {type(source).__name__}"
    text = str(source)
    return text if len(text) <= 200 else f"{text[:40]}...{text[-20:]}"


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
        raise
    except Exception as error:
        reason = f"is not an image that can be read ({limits.readable}): convert it first"
        raise ImageError("unreadable", name, reason) from error


@contextmanager
def open_stream(
    source: EncodedSource, *, name: str | None = None, limits: ImageLimits = LOCAL_LIMITS
) -> Iterator[BinaryIO]:
    """Open the bytes of an image as a stream that can seek, from wherever they are.

    Raises:
        ImageError: They are missing, unreachable, empty or too many.
    """
    name = name or short_name(source)
    if isinstance(source, str):
        data = _bytes_of_text(source, name, limits)
        source = Path(source) if data is None else data
    if isinstance(source, Path):
        with _opened_file(source, name) as file:
            # a pipe, such as <(command) in a shell, cannot be read twice
            yield _not_empty(file if file.seekable() else read_stream(file, name, limits), name)
    else:
        yield _not_empty(BytesIO(source) if isinstance(source, bytes) else source, name)


def read_stream(stream: BinaryIO, name: str, limits: ImageLimits = LOCAL_LIMITS) -> BytesIO:
    """Read a pipe or another stream that cannot seek into memory, as far as the limit of a download allows.

    Raises:
        ImageError: There are more bytes.
    """
    most = limits.fetch.max_bytes
    data = stream.read(most + 1)
    if len(data) > most:
        reason = f"has more than the {most} bytes allowed: save it to a file and give its path"
        raise ImageError("too_large", name, reason)
    return BytesIO(data)


def _not_empty(stream: BinaryIO, name: str) -> BinaryIO:
    is_empty = not stream.read(1)
    stream.seek(0)
    if is_empty:
        raise ImageError("empty", name, "is empty (0 bytes, or read before): give an image")
    return stream


def _opened_file(path: Path, name: str) -> BinaryIO:
    if os.path.isdir(path):
        raise ImageError("missing", name, "is a directory: give the image files in it")
    if not os.path.exists(path):
        raise ImageError("missing", name, "does not exist: give the path or the http(s) URL of an image")
    try:
        return open(path, "rb")
    except OSError as error:
        raise ImageError("missing", name, f"cannot be opened: {error.strerror}") from error


def _bytes_of_text(text: str, name: str, limits: ImageLimits) -> bytes | None:
    """Return the image that a URL or base64 text stands for, or None for a path."""
    if is_url(text):
        return fetch(text, limits.fetch)
    if is_data_url(text):
        return decode_data_url(text, name)
    if len(text) >= _SHORTEST_BASE64 and not os.path.exists(text):
        with suppress(ValueError):
            return _checked_base64(text, limits)
    return None


def _checked_base64(text: str, limits: ImageLimits) -> bytes:
    """Return the bytes of base64 text that holds an image; a path can happen to be valid base64 too."""
    data = base64.b64decode(text, validate=True)
    with _identified(BytesIO(data), "", limits):
        return data


def is_data_url(url: str) -> bool:
    """Return whether a URL holds its image itself instead of naming a place to fetch it from."""
    return url[:32].lstrip()[:5].lower() == "data:"


def decode_data_url(url: str, name: str | None = None) -> bytes:
    """Return the bytes in a data URL.

    Raises:
        ImageError: It is not a data URL of an image in base64, or holds nothing.
    """
    name = name or short_name(url)
    head = _DATA_URL.match(url)
    if head is None:
        raise ImageError("data_url", name, "must begin with data:image/<format>;base64,")
    try:
        text = url[head.end() :].encode("ascii").translate(_URL_SAFE, _BLANKS)
        data = base64.b64decode(text + b"=" * (-len(text) % 4 if len(text) % 4 > 1 else 0), validate=True)
    except (binascii.Error, ValueError) as error:
        reason = "is not valid base64: the text after the comma is cut off or has other characters"
        raise ImageError("base64", name, reason) from error
    if not data:
        raise ImageError("empty", name, "holds no image: there is nothing after the comma")
    return data


@lru_cache(maxsize=8)
def _available(formats: tuple[str, ...]) -> tuple[str, ...]:
    """Return the formats that this build of Pillow can open."""
    Image.init()
    return tuple(name for name in formats if name in Image.OPEN)


def _check_limits(image: Image.Image, name: str, limits: ImageLimits) -> None:
    # Pillow only warns up to twice its limit, through a filter that threads share.
    width, height = image.size
    if limits.pixels is not None and width * height > limits.pixels:
        raise _too_large(name, f"{width}x{height} = {width * height} pixels, ", limits)
    # MPO: the .jpg files of some telephones, an image with its preview
    if not limits.animated and image.format != "MPO" and getattr(image, "is_animated", False):
        raise ImageError("animated", name, "is animated: send one frame of it")
    profile = len(image.info.get("icc_profile") or b"")
    if limits.max_profile_bytes is not None and profile > limits.max_profile_bytes:
        reason = f"has a color profile of {profile} bytes, at most {limits.max_profile_bytes} are allowed"
        raise ImageError("too_large", name, reason)


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
        _check_limits(image, "", limits)
        if image.format == "JPEG" and orientation(image) == 1:
            return image
    image.close()
    return None
