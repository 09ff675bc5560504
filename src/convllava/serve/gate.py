"""Middleware of every request: an id, one log line, security headers, a check of the host name."""

import logging
import re
import time
import uuid
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .errors import CLIENT_LEFT, ERROR_NOTE, ApiError
from .metrics import Metrics
from .settings import Settings

REQUEST_ID = "x-request-id"
CLIENT_CLOSED = 499
"""Status in the log, as in nginx, of a connection that the client closed before the response."""

PAGE_POLICY = (
    "default-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; object-src 'none'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)

_HARMLESS_ID = re.compile(r"[\w.-]{1,64}", re.ASCII)

logger = logging.getLogger("convllava.serve")


class Gate:
    """ASGI middleware; a rejected request does not reach the routes."""

    def __init__(self, app: ASGIApp, settings: Settings, metrics: Metrics) -> None:
        self._app, self._settings, self._metrics = app, settings, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, log it and count it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        self._set_root(scope)
        request_log = RequestLog(scope, send)
        try:
            refusal = self._refusal(Headers(scope=scope))
            if refusal is None:
                await self._app(scope, receive, request_log.send)
            else:
                await refusal.response(scope)(scope, receive, request_log.send)
        except ClientDisconnect:
            scope[ERROR_NOTE] = CLIENT_LEFT
        finally:
            if scope.get(ERROR_NOTE) == CLIENT_LEFT:
                self._metrics.canceled.inc()
            self._metrics.requests.labels(request_log.route, str(request_log.status)).inc()
            request_log.log()

    def _set_root(self, scope: Scope) -> None:
        """Complete the path of a request whose proxy has removed the prefix, as ASGI wants it."""
        root = self._settings.root_path
        if root:
            path = scope["path"]
            scope["root_path"], scope["path"] = root, path if f"{path}/".startswith(f"{root}/") else root + path

    def _refusal(self, headers: Headers) -> ApiError | None:
        allowed = self._settings.allowed_hosts
        name = _host_name(headers.get("host", ""))
        if allowed and name not in allowed:
            message = f"the host name {name!r} is not allowed: start the server with --allowed-host {name}"
            return ApiError(403, message, code="host_not_allowed")
        return None


class RequestLog:
    """Id, status and time of one request, for its log line."""

    def __init__(self, scope: Scope, send: Send) -> None:
        given = Headers(scope=scope).get(REQUEST_ID, "")
        self.id = given if _HARMLESS_ID.fullmatch(given) else uuid.uuid4().hex
        self.status = CLIENT_CLOSED
        self._scope, self._send = scope, send
        self._started = time.perf_counter()

    @property
    def route(self) -> str:
        """Path of the route; unknown paths are counted together as "other"."""
        route = self._scope.get("route")
        return getattr(route, "path", None) or "other"

    async def send(self, message: Message) -> None:
        """Send a message, with the security headers and the request id added."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            headers[REQUEST_ID] = self.id
            headers["X-Content-Type-Options"] = "nosniff"
            headers["Referrer-Policy"] = "no-referrer"
            headers["Content-Security-Policy"] = PAGE_POLICY
        await self._send(message)

    def log(self) -> None:
        """Write one log line; texts of the client are quoted."""
        milliseconds = (time.perf_counter() - self._started) * 1000
        reason = self._scope.get(ERROR_NOTE, "")
        level = logging.INFO if self.status < 400 or self.status == CLIENT_CLOSED else logging.WARNING
        line = "%s %s %d %.0f ms %s"
        if reason:
            line += ": %s"
        arguments: list[Any] = [self._scope["method"], _quoted(self._scope["path"]), self.status, milliseconds, self.id]
        logger.log(level, line, *arguments, *([_quoted(reason)] if reason else []))


def _quoted(text: str) -> str:
    shown = text if len(text) <= 300 else f"{text[:297]}..."
    return shown if shown.isprintable() else repr(shown)


def _host_name(host: str) -> str:
    """Return a Host header without its port: ``[::1]:8000`` is ``::1``."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower()
