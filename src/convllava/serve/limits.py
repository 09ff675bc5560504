"""Limits of time and memory for connections and bodies before a request is parsed."""

import asyncio
import hashlib
import hmac
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import h11
from starlette.requests import Request

from ..compat import uvicorn_h11_protocol
from .errors import ApiError
from .settings import Settings

HEAD_SECONDS = 10.0
"""Time limit for the head of a request."""

DISCARD_SECONDS = 2.0
"""Time limit for the body of a request that is rejected anyway."""

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

    def send_400_response(self, msg: str) -> None:
        """Respond to a head that is not HTTP, in the shape of all errors."""
        error = {"message": msg, "type": "invalid_request_error", "param": None, "code": "invalid_http"}
        body = json.dumps({"error": error}).encode()
        headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
        headers.append((b"content-length", str(len(body)).encode()))
        for event in (
            h11.Response(status_code=400, headers=headers, reason=b"Bad Request"),
            h11.Data(data=body),
            h11.EndOfMessage(),
        ):
            self.transport.write(self.conn.send(event))
        self.transport.close()

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

    @asynccontextmanager
    async def received(self, request: Request) -> AsyncIterator[bytearray]:
        """Receive a body, whose bytes count against the limit of memory until the block ends.

        Raises:
            ApiError: 413, too large; 408, too slow; 429, too many at a time; 415, not JSON.
            ClientDisconnect: The client left.
        """
        _check_type(request)
        most = self._settings.max_body_bytes
        held = 0

        def hold(size: int) -> None:
            nonlocal held
            held += size
            self._held += size
            self._check_memory()

        try:
            async with self._in_time():
                body = await self._read(request, most, hold)
            if body is None:
                message = f"the body has more than {most} bytes: send smaller images"
                raise ApiError(413, message, code="body_too_large", headers={"Connection": "close"})
            yield body
        finally:
            self._held -= held

    async def discard(self, request: Request) -> None:
        """Read and drop the body of a request that will be rejected: clients read the response after sending.

        A client that announces a body and does not send it gets the response after `DISCARD_SECONDS`.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(DISCARD_SECONDS):
                await self._read(request, 0, lambda size: None)

    @asynccontextmanager
    async def _in_time(self) -> AsyncIterator[None]:
        seconds = self._settings.body_timeout
        try:
            async with asyncio.timeout(seconds):
                yield
        except TimeoutError:
            message = f"the body was not complete after {seconds:g} s"
            raise ApiError(408, message, code="body_timeout", headers={"Connection": "close"}) from None

    async def _read(self, request: Request, most: int, hold: Callable[[int], None]) -> bytearray | None:
        """Return a body, or None if it is larger than `most`; then it was read and discarded."""
        body = bytearray()
        size = 0
        async for chunk in request.stream():
            size += len(chunk)
            if size <= most:
                body += chunk
                hold(len(chunk))
            elif size > max(most, self._settings.max_body_bytes) * MOST_DISCARDED:
                return None
        return body if size <= most else None

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
