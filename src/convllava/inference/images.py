"""Opening images by path, URL, standard input or PDF page: an upright RGB image, or one clear line."""

import os
import sys
import time
from collections.abc import Sequence
from functools import lru_cache
from http.client import HTTPException
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO
from urllib.error import HTTPError
from urllib.request import Request as HttpRequest
from urllib.request import urlopen

from PIL import Image
from PIL.ExifTags import Base
from PIL.JpegImagePlugin import JpegImageFile

from ..model import to_rgb
from ..model.fast_image_processing import open_lazily
from ..model.image_processing_convllava import to_pil
from .pdf import PDF_MARK, render_page

STANDARD_INPUT = "-"

MAX_BYTES = 64 << 20
"""Bytes that are read from a URL or from standard input, at most."""

TIMEOUT_SECONDS = 30.0
"""For connecting, and again for the whole download."""

# Pillow knows many more; some of them run other programs (EPS: Ghostscript) or have no mark to know them by.
FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM", "ICO")
READABLE = "PNG, JPEG, WebP, GIF, BMP, TIFF, AVIF or PDF"

_CHUNK = 1 << 16


def open_image(source: Any, page: int | None = None) -> Image.Image:
    """Return an image upright and in RGB.

    Args:
        source: A path, an http(s) URL, "-" (standard input), or a PIL, numpy or torch image.
        page: Page of a PDF, counted from 1; by default the first.

    Raises:
        ValueError: Nothing there, not an image, damaged, too large, or a page that is missing.
    """
    return open_images([source], page)[0]


def open_images(sources: Sequence[Any], page: int | None = None, *, lazily: bool = False) -> list[Image.Image]:
    """Open several images.

    Args:
        sources: As `open_image`.
        page: Of those that are PDFs, of which there must then be one.
        lazily: Leave local JPEGs undecoded where they can be: fast preprocessing decodes them no larger than they
            are shown, which changes the image that is returned here. For images that are shown once.

    Raises:
        ValueError: As `open_image`.
    """
    opened = [_open(source, page, lazily) for source in sources]
    if page is not None and not any(is_pdf for _, is_pdf in opened):
        names = ", ".join(map(_name, sources)) or "no image"
        raise ValueError(f"page {page} was asked for but there is no PDF among the images ({names})")
    return [image for image, _ in opened]


def is_url(source: Any) -> bool:
    """Tell whether a source is fetched over the network."""
    return isinstance(source, str) and source.lower().startswith(("http://", "https://"))


def _open(source: Any, page: int | None, lazily: bool = False) -> tuple[Image.Image, bool]:
    """Return the image and whether it is a page of a PDF."""
    if lazily and (undecoded := _undecoded(source)) is not None:
        _check_pixels(undecoded, _name(source))
        return undecoded, False
    if not isinstance(source, (str, Path)):
        return to_rgb(to_pil(source)), False
    name = _name(source)
    if is_url(source):
        return _read(BytesIO(_download(str(source))), name, page)
    if str(source) == STANDARD_INPUT:
        return _read(_in_memory(sys.stdin.buffer, name), name, page)
    with _file(source) as stream:
        # a pipe, such as <(command) in a shell, cannot be read twice
        return _read(stream if stream.seekable() else _in_memory(stream, name), name, page)


def _undecoded(source: Any) -> Image.Image | None:
    """Return an upright JPEG that nobody has decoded yet, or None."""
    if isinstance(source, (str, Path)):
        local = not is_url(source) and str(source) != STANDARD_INPUT
        opened = open_lazily(source) if local else None
        if opened is None or _is_upright(opened):
            return opened
        opened.close()
        return None
    return source if isinstance(source, JpegImageFile) and source.tile and _is_upright(source) else None


def _is_upright(image: Image.Image) -> bool:
    return image.getexif().get(Base.Orientation, 1) == 1


def _name(source: Any) -> str:
    """Say in a message which image is meant."""
    if not isinstance(source, (str, Path)):
        return f"a {type(source).__name__}"
    return "standard input" if str(source) == STANDARD_INPUT else str(source)


def _file(path: str | Path) -> BinaryIO:
    if os.path.isdir(path):
        raise ValueError(f"{path} is a directory: give the image files in it")
    if not os.path.exists(path):
        raise ValueError(f"{path}: no such file; give an image's path, an http(s) URL, or - for standard input")
    try:
        return open(path, "rb")
    except OSError as error:
        raise ValueError(f"{path} cannot be opened: {error.strerror}") from error


def _read(stream: BinaryIO, name: str, page: int | None) -> tuple[Image.Image, bool]:
    head = stream.read(len(PDF_MARK))
    stream.seek(0)
    if not head:
        raise ValueError(f"{name} is empty (0 bytes, or read before): give an image ({READABLE})")
    if head == PDF_MARK:
        return render_page(stream, name, 1 if page is None else page), True
    return _decode(stream, name), False


def _decode(stream: BinaryIO, name: str) -> Image.Image:
    """Decode an image completely, so that whatever is wrong with it shows here, where its name is known."""
    try:
        image = Image.open(stream, formats=_formats())
    except Image.DecompressionBombError:
        raise ValueError(_too_large(name, "")) from None
    except Exception as error:  # decoders raise anything on damaged data
        raise ValueError(f"{name} is not an image that can be read ({READABLE}): convert it first") from error
    _check_pixels(image, name)
    try:
        return to_rgb(image).copy()  # a copy, as the file is about to be closed
    except Exception as error:
        raise ValueError(f"{name} is damaged ({error}): save or fetch it again") from error


@lru_cache(maxsize=1)
def _formats() -> tuple[str, ...]:
    """Return those of the formats that this Pillow was built with."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _check_pixels(image: Image.Image, name: str) -> None:
    # Pillow only warns up to twice its limit, through a filter that threads share.
    width, height = image.size
    if Image.MAX_IMAGE_PIXELS is not None and width * height > Image.MAX_IMAGE_PIXELS:
        raise ValueError(_too_large(name, f"{width}x{height} = {width * height} pixels, "))


def _too_large(name: str, size: str) -> str:
    limit = Image.MAX_IMAGE_PIXELS
    return f"{name} is too large to open safely: {size}at most {limit} allowed; scale it down first"


def _in_memory(stream: BinaryIO, name: str) -> BinaryIO:
    data = stream.read(MAX_BYTES + 1)
    _check_bytes(len(data), name)
    return BytesIO(data)


def _download(url: str) -> bytes:
    try:
        data = _fetch(url)
    except (OSError, HTTPException, ValueError) as error:  # ValueError: not a proper URL
        if isinstance(error, HTTPError):
            error.close()
        reason = error if isinstance(error, HTTPError) else getattr(error, "reason", error)
        raise ValueError(f"{url} cannot be fetched ({reason}): download it and give its path") from error
    _check_bytes(len(data), url)
    return data


def _fetch(url: str) -> bytes:
    """Read until the end, or until it is more than anybody wants."""
    deadline = time.monotonic() + TIMEOUT_SECONDS
    # Some sites turn Python's own user agent away.
    request = HttpRequest(url, headers={"User-Agent": "convllava"})
    data = bytearray()
    with urlopen(request, timeout=TIMEOUT_SECONDS) as response:
        while len(data) <= MAX_BYTES and (chunk := response.read1(_CHUNK)):
            data += chunk
            if time.monotonic() > deadline:
                raise TimeoutError(f"not complete after {TIMEOUT_SECONDS:g} seconds")
    return bytes(data)


def _check_bytes(count: int, name: str) -> None:
    if count > MAX_BYTES:
        raise ValueError(f"{name} has more than the {MAX_BYTES} bytes allowed: save it to a file and give its path")
