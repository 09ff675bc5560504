"""Downloads of images, bounded in bytes and seconds, and from public addresses only where a server does them.

For a public download a name is resolved once and the connection goes to the address that was checked, so that a second
answer of the name server cannot lead elsewhere. Redirects follow the same rules.
"""

import http.client
import io
import ipaddress
import socket
import ssl
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import Any
from urllib.error import HTTPError
from urllib.parse import SplitResult, urljoin, urlsplit
from urllib.request import HTTPHandler, HTTPSHandler, Request, build_opener

from .image_conversion import ImageError

MAX_REDIRECTS = 3

_CHUNK = 1 << 16
_PORTS = {"http": 80, "https": 443}
_HEADERS = {"User-Agent": "convllava", "Accept": "image/*, */*;q=0.5"}  # some sites reject Python's own user agent

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def resolve(host: str, port: int) -> list[str]:
    """Return the addresses of a host.

    Raises:
        OSError: The host is unknown.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(sockaddr[0]) for *_, sockaddr in found]


_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


def is_public(address: Address) -> bool:
    """Return whether an address belongs to the open internet; an IPv4 address inside an IPv6 one counts as itself."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo[1] if address.teredo else None)
        if inner is not None:
            return is_public(inner)
        if address.is_site_local:  # deprecated, and still routed inside networks
            return False
        if address in _NAT64:
            return is_public(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    return address.is_global and not (address.is_multicast or address.is_reserved or address.is_unspecified)


@dataclass(frozen=True)
class FetchPolicy:
    """Limits of one download.

    Attributes:
        max_bytes: Maximum size of the body.
        seconds: Time limit of the whole download: names, connections, redirects and body.
        public_only: Whether every address contacted must be public (and proxies are ignored).
        resolve: Replacement for name resolution, for tests.
        is_allowed: Replacement for the test of an address, for tests.
    """

    max_bytes: int = 64 << 20
    seconds: float = 30.0
    public_only: bool = False
    resolve: Callable[[str, int], list[str]] = resolve
    is_allowed: Callable[[Address], bool] = is_public


LOCAL_FETCH = FetchPolicy()
"""Policy for a URL that the user of this machine gives."""

SERVER_FETCH = FetchPolicy(max_bytes=24 << 20, seconds=15.0, public_only=True)
"""Policy for a URL that a client of a server gives."""


def is_url(source: object) -> bool:
    """Return whether a source is an http(s) URL."""
    return isinstance(source, str) and source[:8].lower().startswith(("http://", "https://"))


def fetch(url: str, policy: FetchPolicy = LOCAL_FETCH) -> bytes:
    """Download an image.

    Raises:
        ImageError: The URL is malformed, not allowed or unreachable, or the body is too large or too slow.
    """
    deadline = time.monotonic() + policy.seconds
    name = url if len(url) <= 100 else f"{url[:80]}..."
    try:
        return _fetch_public(url, name, policy, deadline) if policy.public_only else _fetch(url, name, policy, deadline)
    except ImageError:
        raise
    except (OSError, http.client.HTTPException, ValueError) as error:  # ValueError: not a proper URL
        if policy.public_only:  # the details would tell clients about the server's network
            raise ImageError("unreachable", name, "cannot be fetched") from error
        if isinstance(error, HTTPError):
            error.close()
        reason = error if isinstance(error, HTTPError) else getattr(error, "reason", error)
        if isinstance(reason, TimeoutError):
            reason = f"not complete after {policy.seconds:g} seconds"
        raise ImageError("unreachable", name, f"cannot be fetched ({reason}): download it and give its path") from error


def _fetch(url: str, name: str, policy: FetchPolicy, deadline: float) -> bytes:
    """Download with the system's proxies and from any address."""
    opener = build_opener(_Handler(deadline), _SecureHandler(deadline))
    with opener.open(Request(url, headers=_HEADERS), timeout=policy.seconds) as response:
        return _read(response, name, policy, deadline)


class _Reader(io.RawIOBase):
    """Received bytes up to a deadline: a socket's own time limit begins again with every byte of a slow sender."""

    def __init__(self, sock: socket.socket, deadline: float) -> None:
        self._sock, self._deadline = sock, deadline
        self._file = sock.makefile("rb", buffering=0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._sock.settimeout(_remaining(self._deadline))
        return self._file.readinto(buffer)

    def close(self) -> None:
        self._file.close()
        super().close()


class _Socket:
    """The methods of a connected socket that `http.client` uses, with one deadline for all of them."""

    def __init__(self, sock: socket.socket, deadline: float) -> None:
        self._sock, self._deadline = sock, deadline
        self.close = sock.close

    def sendall(self, data: Any) -> None:
        self._sock.settimeout(_remaining(self._deadline))
        self._sock.sendall(data)

    def makefile(self, *args: Any, **options: Any) -> io.BufferedReader:
        return io.BufferedReader(_Reader(self._sock, self._deadline))


def _remaining(deadline: float) -> float:
    remaining = deadline - time.monotonic()
    if remaining <= 0:
        raise TimeoutError("not complete in time")
    return remaining


class _Connection(http.client.HTTPConnection):
    def __init__(self, *args: Any, deadline: float, **options: Any) -> None:
        super().__init__(*args, **options)
        self._deadline = deadline

    def connect(self) -> None:
        self.timeout = _remaining(self._deadline)
        super().connect()
        self.sock: Any = _Socket(self.sock, self._deadline)


class _SecureConnection(http.client.HTTPSConnection):
    def __init__(self, *args: Any, deadline: float, **options: Any) -> None:
        super().__init__(*args, **options)
        self._deadline = deadline

    def connect(self) -> None:
        self.timeout = _remaining(self._deadline)
        super().connect()
        self.sock: Any = _Socket(self.sock, self._deadline)


class _Handler(HTTPHandler):
    def __init__(self, deadline: float) -> None:
        super().__init__()
        self._deadline = deadline

    def http_open(self, req: Request) -> http.client.HTTPResponse:
        return self.do_open(_Connection, req, deadline=self._deadline)  # type: ignore[arg-type]


class _SecureHandler(HTTPSHandler):
    def __init__(self, deadline: float) -> None:
        super().__init__()
        self._deadline = deadline

    def https_open(self, req: Request) -> http.client.HTTPResponse:
        return self.do_open(_SecureConnection, req, deadline=self._deadline)  # type: ignore[arg-type]


def _read(response: http.client.HTTPResponse, name: str, policy: FetchPolicy, deadline: float) -> bytes:
    data = bytearray()
    while chunk := response.read1(_CHUNK):
        data += chunk
        _remaining(deadline)
        if len(data) > policy.max_bytes:
            raise ImageError("too_large", name, f"has more than the {policy.max_bytes} bytes allowed: scale it down")
    return bytes(data)


def _fetch_public(url: str, name: str, policy: FetchPolicy, deadline: float) -> bytes:
    for _ in range(MAX_REDIRECTS + 1):
        parts = _split(url, name)
        with closing(_response(parts, name, policy, deadline)) as response:
            if response.status == 200:
                return _read(response, name, policy, deadline)
            if response.status not in (301, 302, 303, 307, 308):
                raise ImageError("unreachable", name, f"cannot be fetched (status {response.status})")
            url = urljoin(url, response.getheader("Location") or "")
    raise ImageError("unreachable", name, f"is redirected more than {MAX_REDIRECTS} times")


def _response(parts: SplitResult, name: str, policy: FetchPolicy, deadline: float) -> http.client.HTTPResponse:
    host = parts.hostname or ""
    port = parts.port or _PORTS[parts.scheme]
    address = _checked_address(host, port, name, policy)
    connection = http.client.HTTPConnection(host, port)
    sock = socket.create_connection((address, port), timeout=_remaining(deadline))
    if parts.scheme == "https":
        sock.settimeout(_remaining(deadline))
        sock = ssl.create_default_context().wrap_socket(sock, server_hostname=host)
    connection.sock = bounded = _Socket(sock, deadline)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    try:
        connection.request("GET", path, headers=_HEADERS)
        return connection.getresponse()
    finally:
        # the response keeps what it still has to read; connection.close() would close a response of HTTP/1.1 too
        bounded.close()


def _checked_address(host: str, port: int, name: str, policy: FetchPolicy) -> str:
    addresses = policy.resolve(host, port)
    for address in addresses:
        if not policy.is_allowed(ipaddress.ip_address(address.partition("%")[0])):
            raise ImageError("unreachable", name, "does not lead to a public address")
    if not addresses:
        raise ImageError("unreachable", name, "has an unknown host")
    return addresses[0]


def _split(url: str, name: str) -> SplitResult:
    if not (url.isascii() and url.isprintable()) or " " in url:
        raise ImageError("unreachable", name, "has characters that a URL cannot have")
    try:
        parts = urlsplit(url)
        known = parts.scheme in _PORTS and parts.hostname is not None and (parts.port or 1) > 0
    except ValueError as error:
        raise ImageError("unreachable", name, "is not a URL") from error
    if not known or parts.username is not None or parts.password is not None:
        raise ImageError("unreachable", name, "must be an http(s) URL without a password")
    return parts
