"""Bodies from JSON, with bounds that are checked before anything is built from them.

A byte of JSON can cost a hundred bytes of memory and a microsecond. The scan here is a search for quotes, so that long
base64 texts cost nothing, and everything that is expensive later is counted by it.
"""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from .errors import ApiError, validation_error

MAX_VALUES = 5000
"""Maximum values in a body: a dialogue of 500 turns of several parts. Each wrong one costs 13 microseconds."""

MAX_DEPTH = 16
MAX_KEY_BYTES = 128
MAX_QUOTES = 100_000
MAX_ESCAPES = 1_000_000

_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))

Body = TypeVar("Body", bound=BaseModel)


class Parser:
    """Parses bodies in a thread of its own, one at a time, so that the event loop answers meanwhile."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, "parse")

    async def parse(self, body: bytes | bytearray, body_type: type[Body]) -> Body:
        """Return the validated body, parsed while the event loop continues.

        Raises:
            ApiError: Same as `parsed`.
        """
        return await asyncio.get_running_loop().run_in_executor(self._pool, parsed, body, body_type)

    def close(self) -> None:
        """End the thread."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def parsed(body: bytes | bytearray, body_type: type[Body]) -> Body:
    """Return the validated body.

    Raises:
        ApiError: It is not JSON, beyond a bound, or not of this type.
    """
    check_json(body)
    try:
        return body_type.model_validate_json(body)
    except ValidationError as error:
        raise validation_error(error, list(body_type.model_fields)) from None


def check_json(body: bytes | bytearray) -> None:
    """Reject JSON with too many values, too deep or with too long keys, without parsing it.

    Raises:
        ApiError: A bound is exceeded; other faults are left to the parser.
    """
    if body.count(b'"') > MAX_QUOTES:
        raise _too_much("has too many texts, or quotation marks in texts,", MAX_QUOTES)
    if body.count(b"\\") > MAX_ESCAPES:
        raise _too_much("has too many escaped characters", MAX_ESCAPES)
    values, depth = 1, 0
    for between, text_bytes in _between_texts(body):
        values += between.count(b",") + between.count(b"[") + between.count(b"{")
        if values > MAX_VALUES:
            raise _too_much("has too many values", MAX_VALUES)
        if text_bytes > MAX_KEY_BYTES and between.lstrip().startswith(b":"):
            raise _too_much("has a key that is too long", MAX_KEY_BYTES)
        for character in between.translate(None, _NOT_BRACKETS):
            depth += 1 if character in b"[{" else -1
            if depth > MAX_DEPTH:
                raise _too_much("is nested too deeply", MAX_DEPTH)


def _between_texts(body: bytes | bytearray) -> Iterator[tuple[bytes | bytearray, int]]:
    """Yield the bytes between two texts, and the length of the text before them."""
    start = text_bytes = 0
    while (opening := body.find(b'"', start)) >= 0:
        yield body[start:opening], text_bytes
        closing = body.find(b'"', opening + 1)
        while closing >= 0 and _is_escaped(body, opening + 1, closing):
            closing = body.find(b'"', closing + 1)
        if closing < 0:
            return
        start, text_bytes = closing + 1, closing - opening - 1
    yield body[start:], text_bytes


def _is_escaped(body: bytes | bytearray, start: int, place: int) -> bool:
    """Return whether an odd number of backslashes precedes a place in a text that begins at ``start``."""
    first = place
    while first > start and body[first - 1] == 0x5C:
        first -= 1
    return (place - first) % 2 == 1


def _too_much(what: str, most: int) -> ApiError:
    return ApiError(400, f"the body {what}: at most {most} are allowed", code="body_too_complex")
