"""A process that decodes images of unknown origin for a server, and can be ended when one takes too long.

It imports neither torch nor the model, so that it starts in a moment, yields to the process that computes, and has
limits of memory and time of its own. Orders and replies are a JSON head and bytes, each with its length before it.
"""

import json
import signal
import struct
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from types import FrameType
from typing import IO, Any

from .image_conversion import orientation, pad_to_square
from .images import SERVER_LIMITS, ImageError, decode_data_url, to_rgb, undecoded, upright_size

MAX_SCANS = 100
"""Maximum scans of a JPEG: progressive ones have about ten, and each costs a pass over the whole image."""

HEADER_SECONDS = 1.0
"""Processor time for the header of an image; ordinary ones take milliseconds, millions of empty chunks take longer."""

MAX_ADDRESS_SPACE = 3 << 30
SECONDS = 120
"""Time limit of one image if the process that asked for it is gone."""

_LENGTHS = struct.Struct(">IQ")


class _TooSlowError(BaseException):
    """The header takes too long. Not an `Exception`, which would be taken for damage of the image."""


def write_message(stream: IO[bytes], head: dict[str, Any], data: bytes | memoryview = b"") -> None:
    """Write a JSON head and bytes."""
    text = json.dumps(head).encode()
    stream.write(_LENGTHS.pack(len(text), len(data)) + text)
    stream.write(data)
    stream.flush()


def read_message(stream: IO[bytes]) -> tuple[dict[str, Any], bytes]:
    """Read a JSON head and bytes.

    Raises:
        EOFError: The other process is gone.
    """
    text_length, data_length = _LENGTHS.unpack(_read(stream, _LENGTHS.size))
    return json.loads(_read(stream, text_length)), _read(stream, data_length)


def _read(stream: IO[bytes], length: int) -> bytes:
    data = stream.read(length)
    if len(data) < length:
        raise EOFError("the other process is gone")
    return data


def measure(data: bytes, max_pixels: int) -> tuple[int, int]:
    """Return the upright (height, width) of an image from its header, and check its limits.

    In the worker, a header that takes more than `HEADER_SECONDS` is too large.

    Raises:
        ImageError: It is not an image that is accepted, or beyond a limit.
    """
    with undecoded(data, name="image", limits=replace(SERVER_LIMITS, max_pixels=max_pixels)) as image:
        scans = data.count(b"\xff\xda") if image.format in ("JPEG", "MPO") else 0
        if scans > MAX_SCANS:
            reason = f"is a JPEG of {scans} scans, at most {MAX_SCANS} are allowed: save it again"
            raise ImageError("too_large", "image", reason)
        return upright_size(image)


@dataclass(frozen=True)
class Form:
    """How an image is wanted.

    Attributes:
        shape: (height, width) to resize to as the exact image processor does; None keeps the size.
        ground: Color of the square on which the image is centered first; None for no square.
        least: Minimum (height, width) at which a JPEG may be decoded, as fast preprocessing does; None decodes all of
            it.
    """

    shape: Sequence[int] | None = None
    ground: Sequence[int] | None = None
    least: Sequence[int] | None = None


def shown(data: bytes, max_pixels: int, form: Form) -> tuple[tuple[int, int], bytes]:
    """Return the (height, width) and the RGB levels of an image.

    Args:
        data: The image file.
        max_pixels: Maximum height times width.
        form: How it is wanted.

    Raises:
        ImageError: It is damaged.
    """
    from PIL import Image

    with undecoded(data, name="image", limits=replace(SERVER_LIMITS, max_pixels=max_pixels)) as opened:
        if form.least is not None and opened.format == "JPEG" and orientation(opened) == 1:
            opened.draft(None, (form.least[1], form.least[0]))
        image = to_rgb(opened, "image")
    if form.ground is not None:
        red, green, blue = form.ground
        image = pad_to_square(image, (red, green, blue))
    if form.shape is not None and image.size != (form.shape[1], form.shape[0]):
        image = image.resize((form.shape[1], form.shape[0]), Image.Resampling.BICUBIC)
    return (image.height, image.width), image.tobytes()


def main() -> None:
    """Decode images until standard input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl+C is the server's to handle
    with suppress(ImportError, AttributeError, OSError, ValueError):  # not on every system
        import resource

        signal.signal(signal.SIGVTALRM, _end_header)
        resource.setrlimit(resource.RLIMIT_AS, (MAX_ADDRESS_SPACE, MAX_ADDRESS_SPACE))
    orders, replies = sys.stdin.buffer, sys.stdout.buffer
    with suppress(EOFError, BrokenPipeError):
        while True:
            order, data = read_message(orders)
            if hasattr(signal, "alarm"):
                signal.alarm(SECONDS)
            write_message(replies, *_reply(order, data))
            if hasattr(signal, "alarm"):
                signal.alarm(0)
            del data


def _reply(order: dict[str, Any], data: bytes) -> tuple[dict[str, Any], bytes]:
    try:
        if order["is_data_url"]:
            data = decode_data_url(_json_text(data), "image")
        if order["work"] == "measure":
            with _limited(HEADER_SECONDS):
                return {"size": measure(data, order["max_pixels"])}, b""
        size, levels = shown(data, order["max_pixels"], Form(**order["form"]))
        return {"size": size}, levels
    except ImageError as error:
        return {"error": [error.kind, error.reason]}, b""
    except MemoryError:
        return {"error": ["too_large", "needs too much memory: scale it down"]}, b""
    except _TooSlowError:
        return {"error": ["too_large", "has a header that takes too long to read: save it again"]}, b""


def _end_header(number: int, frame: FrameType | None) -> None:
    raise _TooSlowError


@contextmanager
def _limited(seconds: float) -> Iterator[None]:
    """Limit the processor time of a block."""
    if not hasattr(signal, "setitimer"):
        yield
        return
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)


def _json_text(data: bytes) -> str:
    """Return the text of a JSON string, without its quotes; one that is no JSON is no data URL either."""
    if b"\\" not in data:
        return data.decode("ascii", "backslashreplace")
    with suppress(ValueError):
        return str(json.loads(b'"' + data + b'"'))
    return ""


if __name__ == "__main__":
    main()
