"""The bytes of images (from paths, pipes, URLs, base64) as streams, within limits.

What cannot be read is named: special files, wrong spellings of a path, formats of other programs.
"""

import base64
import binascii
import os
import re
import select
import stat
import time
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote

from PIL import Image

from .fetch import LOCAL_FETCH, FetchPolicy, fetch, is_url
from .image_conversion import ImageError

EncodedSource = str | Path | bytes | BinaryIO
"""An image file: its path, an http(s) or data URL, base64 text, its bytes, or an open stream that can seek."""

_SHORTEST_BASE64 = 80
"""Shorter texts cannot be a whole image in base64, so a mistyped path is reported as a missing file."""

_DATA_URL = re.compile(
    r"\s{0,16}data:(?:image/[\w.+-]{1,32}|application/octet-stream)(?:;[\w.+-]{1,32}=[\w.+-]{1,64}){0,8};base64,",
    re.IGNORECASE,
)
_PIECE = 1 << 20
_BLANKS = b" \t\r\n\f\v"
_URL_SAFE = bytes.maketrans(b"-_", b"+/")

_MAX_REDUCTION = 4
"""Factor by which a JPEG may exceed the limit of pixels; a progressive one is held in memory as a whole."""


@dataclass(frozen=True)
class ImageLimits:
    """Limits on the images that are opened.

    Attributes:
        formats: Pillow's names of the accepted formats. Pillow knows many more; some run other programs (EPS:
            Ghostscript) or have no signature to recognize them by.
        readable: The accepted formats in words, for messages.
        max_pixels: Maximum height times width; None takes ``Image.MAX_IMAGE_PIXELS`` times ``pixel_factor``.
        pixel_factor: Multiple of Pillow's limit; Pillow itself warns at 1 and raises at 2.
        reduces: Whether a JPEG with more pixels is decoded at a half, a quarter or an eighth of its size.
        max_file_bytes: Maximum size of a local file.
        max_profile_bytes: Maximum size of a color profile; None for no limit.
        animated: Whether files with further frames are accepted, of which one is taken.
        logs: Whether a warning is logged for an image that is used in part: further frames, a reduced size.
        fetch: Limits of a download, and of reading from a pipe.
    """

    formats: tuple[str, ...] = (
        *("PNG", "JPEG", "MPO", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM", "ICO"),
        "HEIF",  # where the plug-in pillow-heif is installed
    )
    readable: str = "PNG, JPEG, WebP, GIF, BMP, TIFF or AVIF"
    max_pixels: int | None = None
    pixel_factor: int = 1
    reduces: bool = True
    max_file_bytes: int = 2 << 30
    max_profile_bytes: int | None = None
    animated: bool = True
    logs: bool = True
    fetch: FetchPolicy = LOCAL_FETCH

    @property
    def pixels(self) -> int | None:
        """Maximum height times width, None for no limit."""
        if self.max_pixels is not None or Image.MAX_IMAGE_PIXELS is None:
            return self.max_pixels
        return Image.MAX_IMAGE_PIXELS * self.pixel_factor

    @property
    def reducible_pixels(self) -> int:
        """Maximum height times width of a JPEG that is decoded at a smaller size."""
        if not self.reduces or self.pixels is None:
            return 0
        return self.pixels * _MAX_REDUCTION // self.pixel_factor


LOCAL_LIMITS = ImageLimits()
"""Limits for images that the user of this machine names."""

DATA_SET_LIMITS = ImageLimits(pixel_factor=2, logs=False)
"""Limits for the files of a data set or benchmark on this machine; ``convllava data check`` reports further frames."""

SERVER_LIMITS = ImageLimits(
    formats=("PNG", "JPEG", "MPO", "WEBP", "GIF", "BMP", "AVIF"),
    readable="PNG, JPEG, WebP, GIF, BMP or AVIF",
    max_pixels=1 << 26,  # 48 megapixels of a telephone fit
    reduces=False,
    max_profile_bytes=4 << 20,  # the largest in use (for printing) have about 3 MB
    animated=False,
)
"""Limits for images that clients of a server send."""


def short_name(source: object) -> str:
    """Return a source as it is named in messages: long texts, such as data URLs, are shortened."""
    if not isinstance(source, str | Path):
        return f"a {type(source).__name__}"
    text = str(source)
    return text if len(text) <= 200 else f"{text[:40]}...{text[-20:]}"


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
        with _opened_file(source, name, limits) as file:
            yield _not_empty(file, name)
    else:
        yield _not_empty(BytesIO(source) if isinstance(source, bytes) else source, name)


def read_stream(stream: BinaryIO, name: str, limits: ImageLimits = LOCAL_LIMITS) -> BytesIO:
    """Read a stream that cannot seek into memory, as far as the limit of a download allows.

    Raises:
        ImageError: There are more bytes.
    """
    most = limits.fetch.max_bytes
    data = stream.read(most + 1)
    if len(data) > most:
        raise _too_many_bytes(name, most)
    return BytesIO(data)


def _too_many_bytes(name: str, most: int) -> ImageError:
    return ImageError("too_large", name, f"has more than the {most} bytes allowed: save it to a file and give its path")


def _not_empty(stream: BinaryIO, name: str) -> BinaryIO:
    is_empty = not stream.read(1)
    stream.seek(0)
    if is_empty:
        raise ImageError("empty", name, "is empty (0 bytes, or read before): give an image")
    return stream


def _opened_file(path: Path, name: str, limits: ImageLimits) -> BinaryIO:
    if not os.path.exists(path):
        hint = other_spelling(path) or "give the path or the http(s) URL of an image"
        raise ImageError("missing", name, f"does not exist: {hint}")
    try:
        found = os.stat(path)
        if stat.S_ISFIFO(found.st_mode):  # such as <(command) in a shell: it cannot be read twice
            return _read_pipe(path, name, limits)
        if stat.S_ISREG(found.st_mode) and found.st_size <= limits.max_file_bytes:
            return open(path, "rb")
    except OSError as error:
        raise ImageError("missing", name, f"cannot be opened: {error.strerror}") from error
    if stat.S_ISDIR(found.st_mode):
        raise ImageError("missing", name, "is a directory: give the image files in it")
    if stat.S_ISREG(found.st_mode):
        reason = f"has {found.st_size} bytes, at most {limits.max_file_bytes} are allowed: save it as JPEG or PNG"
        raise ImageError("too_large", name, reason)
    raise ImageError("unreadable", name, "is a device or a socket: give an image file")


def _read_pipe(path: Path, name: str, limits: ImageLimits) -> BytesIO:
    """Read a pipe to its end, for at most as long as a download may take: a writer may never come."""
    deadline = time.monotonic() + limits.fetch.seconds
    data = bytearray()
    pipe = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        while True:
            ready, _, _ = select.select([pipe], [], [], max(deadline - time.monotonic(), 0.0))
            if not ready:
                reason = f"is a pipe that did not end within {limits.fetch.seconds:g} seconds: give an image file"
                raise ImageError("unreachable", name, reason)
            chunk = os.read(pipe, 1 << 16)
            if not chunk:
                return BytesIO(data)
            data += chunk
            if len(data) > limits.fetch.max_bytes:
                raise _too_many_bytes(name, limits.fetch.max_bytes)
    finally:
        os.close(pipe)


_SPELLINGS: dict[str, Callable[[str], str]] = {
    "the path has backslashes": lambda path: path.replace("\\", "/"),
    "the file's name has another Unicode form (NFC)": lambda path: unicodedata.normalize("NFC", path),
    "the file's name has another Unicode form (NFD)": lambda path: unicodedata.normalize("NFD", path),
    "the path has percent escapes": unquote,
    "the path has blanks at its ends": str.strip,
}


def other_spelling(path: str | Path) -> str | None:
    """Return what is wrong with the spelling of a path that does not exist, or None if that is not known."""
    text = str(path)
    for reason, spell in _SPELLINGS.items():
        other = spell(text)
        if other != text and os.path.exists(other):
            return f"{reason}; {other!a} exists"
    folder, name = os.path.split(text)
    if (found := _names_in(folder or ".").get(_folded(name))) is not None:
        case = "letters of another case" if found.casefold() == name.casefold() else "another spelling"
        return f"the file's name has {case}; {os.path.join(folder, found)!a} exists"
    if "\\" in text and os.sep == "/":
        return "the path has backslashes; write it with /"
    return None


@lru_cache(maxsize=8)
def _names_in(folder: str) -> dict[str, str]:
    """Return the names of the files in a folder by what is alike in them for people; kept for the next image."""
    try:
        return {_folded(name): name for name in os.listdir(folder)}
    except (OSError, ValueError):  # also a path with a null character
        return {}


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", unquote(name).strip()).casefold()


def _bytes_of_text(text: str, name: str, limits: ImageLimits) -> bytes | None:
    """Return the image that a URL or base64 text stands for, or None for a path."""
    if is_url(text):
        return fetch(text, limits.fetch)
    if is_data_url(text):
        return decode_data_url(text, name)
    if len(text) >= _SHORTEST_BASE64 and not os.path.exists(text):
        try:
            data = _from_base64(text)
        except ValueError:
            return None
        # a path can happen to be valid base64 too
        return data if foreign_format(data[:64]) or _has_signature(data) else None
    return None


def _has_signature(data: bytes) -> bool:
    heads = (
        b"\x89PNG",
        b"\xff\xd8\xff",
        b"RIFF",
        b"GIF8",
        b"BM",
        b"II",
        b"MM",
        b"\0\0\0",
        b"P",
        b"\0\0\1\0",
        b"\xff\x4f",
    )
    return data.startswith(heads)


def _from_base64(text: str) -> bytes:
    """Return the bytes of base64 text of either alphabet, which may be wrapped and may lack the padding at its end.

    It is decoded in pieces, between which other threads continue.
    """
    data, rest = bytearray(), b""
    for start in range(0, len(text), _PIECE):
        rest += text[start : start + _PIECE].encode("ascii").translate(_URL_SAFE, _BLANKS)
        length = 0 if start + _PIECE >= len(text) else len(rest) // 4 * 4
        if b"=" in rest[:length]:
            raise ValueError("padding is followed by more")
        data += base64.b64decode(rest[:length], validate=True)
        rest = rest[length:]
    return bytes(data + base64.b64decode(rest + b"=" * (-len(rest) % 4 if len(rest) % 4 > 1 else 0), validate=True))


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
        data = _from_base64(url[head.end() :])
    except (binascii.Error, ValueError) as error:
        reason = "is not valid base64: the text after the comma is cut off or has other characters"
        raise ImageError("base64", name, reason) from error
    if not data:
        raise ImageError("empty", name, "holds no image: there is nothing after the comma")
    return data


_FOREIGN = (
    (re.compile(rb"....ftyp(?:heic|heix|heim|heis|hevc|hevx|mif1|msf1)", re.DOTALL), "HEIC"),
    (re.compile(rb"\xff\x0a|\0\0\0\x0cJXL "), "JPEG XL"),
    (re.compile(rb"\s*(?:<\?xml[^>]*>\s*)?(?:<!--.*?-->\s*)?(?:<!DOCTYPE svg|<svg)", re.DOTALL | re.IGNORECASE), "SVG"),
    (re.compile(rb"%PDF-"), "PDF"),
    (re.compile(rb"%!PS|\xc5\xd0\xd3\xc6"), "EPS"),
    (re.compile(rb"8BPS"), "Photoshop"),
    (re.compile(rb"\s*<(?:!doctype )?html", re.IGNORECASE), "a web page"),
    (re.compile(rb"version https://git-lfs"), "a pointer of Git LFS ('git lfs pull' fetches the file)"),
)


def foreign_format(head: bytes) -> str | None:
    """Return the name of a known format that is not accepted, by the first bytes of a file."""
    return next((name for pattern, name in _FOREIGN if pattern.match(head)), None)
