"""Limits of time and memory for connections and bodies before a request is parsed."""

import asyncio
import hashlib
import hmac
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import h11
from starlette.requests import Request

from ..compat import uvicorn_h11_protocol
from .errors import ApiError
from .settings import Settings

HEAD_SECONDS = 10.0
"""Time limit for the head of a request."""

MOST_DISCARDED = 8
"""Factor of the size limit up to which an oversized body is read and discarded, so that its sender gets the error."""


class PatientProtocol(uvicorn_h11_protocol()):  # type: ignore[misc]
    """HTTP/1.1 protocol that closes connections whose request head is incomplete after `HEAD_SECONDS`."""

    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Start the timer."""
        super().connection_made(transport)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timer."""
        self._stop_watching()
        super().connection_lost(exc)

    def handle_events(self) -> None:
        """Stop the timer while a request is processed."""
        super().handle_events()
        if self.conn.their_state is h11.IDLE:
            self._watch()
        else:
            self._stop_watching()

    def on_response_complete(self) -> None:
        """Start the timer for the head of the next request."""
        super().on_response_complete()
        self._watch()

    def _watch(self) -> None:
        if self._head_timer is None and not self.transport.is_closing():
            self._head_timer = self.loop.call_later(HEAD_SECONDS, self.transport.close)

    def _stop_watching(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None


class BodyReader:
    """Reads bodies within limits of size and time, and within a common limit of memory."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._held = 0

    async def read(self, request: Request) -> bytes:
        """Return a body.

        Raises:
            ApiError: 413, too large; 408, too slow; 429, too many at a time; 415, not JSON.
            ClientDisconnect: The client left.
        """
        _check_type(request)
        most = self._settings.max_body_bytes
        async with self._in_time():
            body = await self._read(request, most)
        if body is None:
            message = f"the body has more than {most} bytes: send smaller images"
            raise ApiError(413, message, code="body_too_large", headers={"Connection": "close"})
        return body

    async def discard(self, request: Request) -> None:
        """Read and drop the body of a request that will be rejected: clients read the response after sending."""
        async with self._in_time():
            await self._read(request, 0)

    @asynccontextmanager
    async def _in_time(self) -> AsyncIterator[None]:
        seconds = self._settings.body_timeout
        try:
            async with asyncio.timeout(seconds):
                yield
        except TimeoutError:
            message = f"the body was not complete after {seconds:g} s"
            raise ApiError(408, message, code="body_timeout", headers={"Connection": "close"}) from None

    async def _read(self, request: Request, most: int) -> bytes | None:
        """Return a body, or None if it is larger than `most`; then it was read and discarded."""
        body = bytearray()
        held = size = 0
        try:
            async for chunk in request.stream():
                size += len(chunk)
                if size <= most:
                    body += chunk
                    held += len(chunk)
                    self._held += len(chunk)
                    self._check_memory()
                elif size > max(most, self._settings.max_body_bytes) * MOST_DISCARDED:
                    return None
            return bytes(body) if size <= most else None
        finally:
            self._held -= held

    def _check_memory(self) -> None:
        if self._held > self._settings.max_bodies_bytes:
            headers = {"Retry-After": "2", "Connection": "close"}
            message = "too many requests are being received: try again in 2 s"
            raise ApiError(429, message, kind="rate_limit_error", code="receiving_full", headers=headers)


def _check_type(request: Request) -> None:
    # a web page of another origin can send anything but this without being asked for permission first
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise ApiError(415, f"Content-Type must be application/json, got {kind!r}", code="unsupported_media_type")


def key_check(api_key: str | None) -> Callable[[Any], None]:
    """Return a check of a request's bearer token, in time that does not depend on how much of it is right."""
    wanted = None if api_key is None else _hashed(api_key)

    def check(headers: Any) -> None:
        if wanted is None:
            return
        scheme, _, token = headers.get("authorization", "").partition(" ")
        given = _hashed(token.strip())
        if not hmac.compare_digest(given, wanted) or scheme.lower() != "bearer":
            message = "wrong API key" if token else "no API key: send it as 'Authorization: Bearer KEY'"
            raise ApiError(
                401,
                message,
                kind="authentication_error",
                code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer", "Connection": "close"},
            )

    return check


def _hashed(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()
