"""Errors as OpenAI's clients expect them: a status and ``{"error": {message, type, param, code}}``."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any

from fastapi import Request
from fastapi.responses import JSONResponse
from pydantic import ValidationError
from starlette.exceptions import HTTPException

from ..images import ImageError

LONGEST_MESSAGE = 500

SIMILAR = 0.75
"""Similarity from which on a known name is suggested for an unknown one."""

ERROR_NOTE = "convllava.error"
"""Key of a connection's scope under which the log finds the reason of an error."""

CLIENT_LEFT = "client left"
"""Reason of a request whose client disconnected before the end."""


class ApiError(Exception):
    """An error that is sent to the client in OpenAI's format."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.kind, self.param, self.code = status, kind, param, code
        self.message = _short(message)
        self.headers = dict(headers or {})

    @property
    def body(self) -> dict[str, Any]:
        """Body of the response."""
        return {"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}}

    def response(self, scope: Any) -> JSONResponse:
        """Return the response, and note the reason for the log."""
        scope[ERROR_NOTE] = self.message
        return JSONResponse(self.body, self.status, self.headers)


def server_error(status: int, message: str, code: str, **options: Any) -> ApiError:
    """Return an error that is not the client's fault."""
    return ApiError(status, message, kind="server_error", code=code, **options)


PARTS_OF_OTHERS = (
    "file",
    "input_file",
    "input_image",
    "image",
    "input_text",
    "input_audio",
    "video_url",
    "image_url",
    "text",
)
"""Types of parts that other servers and endpoints have."""

CODES = {"unreachable": "invalid_image_url", "data_url": "invalid_image_url", "base64": "invalid_base64"}
"""OpenAI's error codes for kinds of image errors; any other is ``invalid_image``."""


@contextmanager
def as_api_errors(param: str) -> Iterator[None]:
    """Raise an `ApiError` about ``param`` in place of an `ImageError`."""
    try:
        yield
    except ImageError as error:
        code = CODES.get(error.kind, "invalid_image")
        raise ApiError(400, f"{param} {error.reason}", param=param, code=code) from error


async def on_api_error(request: Request, error: Exception) -> JSONResponse:
    """Respond to an `ApiError`."""
    assert isinstance(error, ApiError)
    return error.response(request.scope)


async def on_http_error(request: Request, error: Exception) -> JSONResponse:
    """Respond to an unknown path or method."""
    assert isinstance(error, HTTPException)
    message = f"{request.method} {request.url.path}: {error.detail}"
    if error.status_code == 404:
        message += hint_for(request.url.path)
    return ApiError(error.status_code, message, code="not_found", headers=error.headers).response(request.scope)


KNOWN_PATHS = (
    "/v1/chat/completions",
    "/v1/responses",
    "/v1/estimate",
    "/v1/models",
    "/health",
    "/metrics",
    "/openapi.json",
)


def hint_for(path: str) -> str:
    """Return what to use in place of an unknown path."""
    if f"/v1{path}" in KNOWN_PATHS:
        return f": use /v1{path} (clients take the base URL with /v1)"
    if path.startswith("/v1/"):
        return f": this server has {', '.join(known for known in KNOWN_PATHS if known.startswith('/v1/'))}"
    return ""


async def on_any_error(request: Request, error: Exception) -> JSONResponse:
    """Respond to an unexpected error; the details are in the log only."""
    return server_error(500, "the server failed on this request; the reason is in its log", "internal_error").response(
        request.scope
    )


def validation_error(error: ValidationError, known: Sequence[str] = ()) -> ApiError:
    """Return the first of pydantic's errors in one line.

    Args:
        error: Error of a validated body.
        known: Names of the body's own fields, to suggest the nearest for an unknown one.
    """
    first = _most_telling(error)
    where, kind = _where(first["loc"]), first["type"]
    if kind == "json_invalid":
        return ApiError(400, f"the body is not valid JSON: {first['ctx']['error']}", code="invalid_json")
    if kind == "extra_forbidden":
        name = str(first["loc"][-1])
        near = get_close_matches(name, known, n=1, cutoff=SIMILAR) if len(first["loc"]) == 1 else []
        hint = f": did you mean {near[0]}?" if near else ""
        return ApiError(400, f"unknown parameter {where}{hint}", param=where, code="unknown_parameter")
    if kind == "union_tag_invalid" and first["ctx"]["tag"] in PARTS_OF_OTHERS:
        supported = first["ctx"]["expected_tags"].replace(", ", " and ")
        message = f"{where}: parts of type {first['ctx']['tag']!r} are not supported: send parts of type {supported}; "
        message += "render the pages of a PDF as images first"
        return ApiError(400, message, param=where or None, code="invalid_value")
    code = "missing_required_parameter" if kind == "missing" else "invalid_value"
    message = first["msg"].removeprefix("Value error, ")
    return ApiError(400, f"{where}: {message}" if where else message, param=where or None, code=code)


def _most_telling(error: ValidationError) -> Any:
    """Return the first error; where several forms are allowed, the error of the most similar form."""
    errors = error.errors(include_url=False, include_input=False)
    same = [other for other in errors if other["loc"][:1] == errors[0]["loc"][:1]]
    return max(same, key=lambda other: (not other["type"].endswith("_type"), len(other["loc"])))


def _where(location: Sequence[int | str]) -> str:
    """Write a place as OpenAI does: ``messages[0].content``; without the names of our own classes."""
    path = ""
    for before, step in zip([None, *location], location, strict=False):
        if isinstance(step, int):
            path += f"[{step}]"
        elif not isinstance(before, int) and step.isidentifier() and step not in ("str", "list"):
            path += f".{step}" if path else step  # after an index comes which kind of part this is
    return _short(path, 100)


def _short(text: str, longest: int = LONGEST_MESSAGE) -> str:
    text = " ".join(text[: 4 * longest].split())
    return text if len(text) <= longest else f"{text[: longest - 3]}..."
