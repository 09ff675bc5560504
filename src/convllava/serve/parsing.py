"""Bodies from JSON, with bounds that are checked before anything is built from them.

A byte of JSON can cost a hundred bytes of memory and a microsecond. The scan here is a search for quotes, so that long
base64 texts cost nothing, and everything that is expensive later is counted by it. Data URLs of images are cut out and
never become texts: the process that decodes the image reads them.
"""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, NamedTuple, TypeVar

from pydantic import BaseModel, ValidationError

from .errors import ApiError, validation_error

MAX_VALUES = 5000
"""Maximum values in a body: a dialogue of 500 turns of several parts. Each wrong one costs 13 microseconds."""

MAX_DEPTH = 32
MAX_KEY_BYTES = 128
MAX_QUOTES = 100_000
MAX_ESCAPES = 1_000_000
MAX_TEXT_BYTES = 4 << 20
"""Maximum size of a body without its images: many times what the context of a language model holds."""

_PIECE = 1 << 16
"""Bytes that are looked at before other threads may continue, and before a bound is checked."""

_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_IMAGE_KEYS = (b"url", b"image_url")
_LONGEST_IMAGE_KEY = max(map(len, _IMAGE_KEYS))

Body = TypeVar("Body", bound=BaseModel)


class Parsed(NamedTuple, Generic[Body]):
    """A validated body, and its data URLs by the names that replace them in it."""

    body: Body
    images: dict[str, memoryview]


class Parser:
    """Parses bodies in a thread of its own, one at a time, so that the event loop answers meanwhile."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, "parse")

    async def parse(self, body: bytes | bytearray, body_type: type[Body]) -> Parsed[Body]:
        """Return the validated body, parsed while the event loop continues.

        Raises:
            ApiError: Same as `parsed`.
        """
        return await asyncio.get_running_loop().run_in_executor(self._pool, parsed, body, body_type)

    def close(self) -> None:
        """End the thread."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def parsed(body: bytes | bytearray, body_type: type[Body]) -> Parsed[Body]:
    """Return the validated body.

    Raises:
        ApiError: It is not JSON, beyond a bound, or not of this type.
    """
    text, images = without_images(body)
    try:
        return Parsed(body_type.model_validate_json(text), images)
    except ValidationError as error:
        raise validation_error(error, list(body_type.model_fields)) from None


def without_images(body: bytes | bytearray) -> tuple[bytes, dict[str, memoryview]]:
    """Return JSON with a name in place of each data URL, and the data URLs by name, without parsing it.

    Raises:
        ApiError: It has too many values, is too deep, too long without its images, or has too long keys; other faults
            are left to the parser.
    """
    if _has_more(body, b'"', MAX_QUOTES):
        raise _too_much("has too many texts, or quotation marks in texts,", MAX_QUOTES)
    if _has_more(body, b"\\", MAX_ESCAPES):
        raise _too_much("has too many escaped characters", MAX_ESCAPES)
    kept: list[bytes | memoryview] = []
    images: dict[str, memoryview] = {}
    bounds = _Bounds()
    view, begin, key, text_bytes = memoryview(body), 0, b"", 0
    for start, opening, closing in _texts(body):
        bounds.check(view[start:opening], text_bytes)
        if key in _IMAGE_KEYS and _is_colon(view[start:opening]) and _is_data_url(view[opening + 1 : closing]):
            name = f"image {len(images)}"
            images[name] = view[opening + 1 : closing]
            kept += [view[begin : opening + 1], name.encode()]
            begin = closing
        text_bytes = closing - opening - 1
        key = bytes(view[opening + 1 : closing]) if text_bytes <= _LONGEST_IMAGE_KEY else b""
    kept.append(view[begin:])
    if sum(map(len, kept)) > MAX_TEXT_BYTES:
        raise _too_much("has too many bytes besides data URLs of images", MAX_TEXT_BYTES)
    return b"".join(kept), images


class _Bounds:
    """Counts values and depth between the texts of a body."""

    def __init__(self) -> None:
        self._values, self._depth = 1, 0

    def check(self, between: memoryview, text_bytes: int) -> None:
        """Count the bytes between two texts, the first of which has this length."""
        may_be_key = text_bytes > MAX_KEY_BYTES
        for start in range(0, len(between), _PIECE):
            piece = bytes(between[start : start + _PIECE])
            self._values += piece.count(b",") + piece.count(b"[") + piece.count(b"{")
            if self._values > MAX_VALUES:
                raise _too_much("has too many values", MAX_VALUES)
            if may_be_key and (mark := piece.lstrip()[:1]):
                if mark == b":":
                    raise _too_much("has a key that is too long", MAX_KEY_BYTES)
                may_be_key = False
            for character in piece.translate(None, _NOT_BRACKETS):
                self._depth += 1 if character in b"[{" else -1
                if self._depth > MAX_DEPTH:
                    raise _too_much("is nested too deeply", MAX_DEPTH)


def _has_more(body: bytes | bytearray, character: bytes, most: int) -> bool:
    """Return whether a character is more frequent than a bound."""
    found = 0
    for start in range(0, len(body), _PIECE):
        found += body.count(character, start, start + _PIECE)
        if found > most:
            return True
    return False


def _is_colon(between: memoryview) -> bool:
    return len(between) < _PIECE and bytes(between).strip() == b":"


def _is_data_url(text: memoryview) -> bool:
    return bytes(text[:32]).lstrip()[:5].lower() == b"data:"


def _texts(body: bytes | bytearray) -> Iterator[tuple[int, int, int]]:
    """Yield the end of the text before, and the places of the two quotes of each text; at last the end of the body."""
    start = 0
    while (opening := body.find(b'"', start)) >= 0:
        closing = body.find(b'"', opening + 1)
        while closing >= 0 and _is_escaped(body, opening + 1, closing):
            closing = body.find(b'"', closing + 1)
        if closing < 0:
            return
        yield start, opening, closing
        start = closing + 1
    yield start, len(body), len(body)


def _is_escaped(body: bytes | bytearray, start: int, place: int) -> bool:
    """Return whether an odd number of backslashes precedes a place in a text that begins at ``start``."""
    first = place
    while first > start and body[first - 1] == 0x5C:
        first -= 1
    return (place - first) % 2 == 1


def _too_much(what: str, most: int) -> ApiError:
    return ApiError(400, f"the body {what}: at most {most} are allowed", code="body_too_complex")
