"""A process that decodes images of unknown origin for a server, and can be ended when one takes too long.

It imports neither torch nor the model, so that it starts in a moment, yields to the process that computes, and has
limits of memory and time of its own. Orders and replies are a JSON head and bytes, each with its length before it.
"""

import json
import os
import signal
import struct
import sys
from contextlib import suppress
from dataclasses import replace
from typing import IO, Any

from .image_conversion import pad_to_square
from .images import SERVER_LIMITS, ImageError, open_image, undecoded, upright_size

MAX_SCANS = 100
"""Maximum scans of a JPEG: progressive ones have about ten, and each costs a pass over the whole image."""

MAX_ADDRESS_SPACE = 3 << 30
SECONDS = 120
"""Time limit of one image if the process that asked for it is gone."""

NICENESS = 10
"""Priority below that of the model, which answers the other requests on the same cores."""

_LENGTHS = struct.Struct(">IQ")


def write_message(stream: IO[bytes], head: dict[str, Any], data: bytes = b"") -> None:
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

    Raises:
        ImageError: It is not an image that is accepted, or beyond a limit.
    """
    with undecoded(data, name="image", limits=replace(SERVER_LIMITS, max_pixels=max_pixels)) as image:
        scans = data.count(b"\xff\xda") if image.format in ("JPEG", "MPO") else 0
        if scans > MAX_SCANS:
            reason = f"is a JPEG of {scans} scans, at most {MAX_SCANS} are allowed: save it again"
            raise ImageError("too_large", "image", reason)
        return upright_size(image)


def shown(
    data: bytes, max_pixels: int, shape: tuple[int, int] | None, ground: tuple[int, int, int] | None
) -> tuple[tuple[int, int], bytes]:
    """Return the (height, width) and the RGB levels of an image as the exact image processor resizes it.

    Args:
        data: The image file.
        max_pixels: Maximum height times width.
        shape: (height, width) to resize to; None keeps the size.
        ground: Color of the square on which the image is centered first; None for no square.

    Raises:
        ImageError: It is damaged.
    """
    from PIL import Image

    image = open_image(data, name="image", limits=replace(SERVER_LIMITS, max_pixels=max_pixels))
    if ground is not None:
        image = pad_to_square(image, ground)
    if shape is not None and image.size != (shape[1], shape[0]):
        image = image.resize((shape[1], shape[0]), Image.Resampling.BICUBIC)
    return (image.height, image.width), image.tobytes()


def main() -> None:
    """Decode images until standard input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl+C is the server's to handle
    with suppress(ImportError, AttributeError, OSError, ValueError):  # not on every system
        import resource

        os.nice(NICENESS)
        resource.setrlimit(resource.RLIMIT_AS, (MAX_ADDRESS_SPACE, MAX_ADDRESS_SPACE))
    orders, replies = sys.stdin.buffer, sys.stdout.buffer
    with suppress(EOFError, BrokenPipeError):
        while True:
            order, data = read_message(orders)
            if hasattr(signal, "alarm"):
                signal.alarm(SECONDS)
            write_message(replies, *_reply(order, data))
            del data


def _reply(order: dict[str, Any], data: bytes) -> tuple[dict[str, Any], bytes]:
    try:
        if order["work"] == "measure":
            return {"size": measure(data, order["max_pixels"])}, b""
        size, levels = shown(data, order["max_pixels"], order["shape"], order["ground"] and tuple(order["ground"]))
        return {"size": size}, levels
    except ImageError as error:
        return {"error": [error.kind, error.reason]}, b""
    except MemoryError:
        return {"error": ["too_large", "needs too much memory: scale it down"]}, b""


if __name__ == "__main__":
    main()
