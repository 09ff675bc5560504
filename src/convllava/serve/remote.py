"""Images by URL, for servers that allow it: from public addresses only, whatever names and redirects say.

A name is resolved once and the connection goes to the address that was checked, so that a second answer of the
name server cannot lead elsewhere. Redirects are followed by the same rules.
"""

import http.client
import ipaddress
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import SplitResult, urljoin, urlsplit

from .errors import ApiError

MAX_REDIRECTS = 3
MAX_BYTES = 24 << 20
SECONDS = 15.0
"""For everything: names, connections, redirects and the image."""

_CHUNK = 1 << 16
_PORTS = {"http": 80, "https": 443}

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def resolve(host: str, port: int) -> list[str]:
    """Return the addresses of a host."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(sockaddr[0]) for *_, sockaddr in found]


def is_public(address: Address) -> bool:
    """Tell whether an address belongs to the open internet; of an IPv4 address in IPv6 clothes, the former counts."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo[1] if address.teredo else None)
        if inner is not None:
            return is_public(inner)
        if address in _NAT64:
            return is_public(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    return address.is_global and not (address.is_multicast or address.is_reserved or address.is_unspecified)


_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


@dataclass(frozen=True)
class Fetcher:
    """Fetches images; what the network looks like can be replaced, for tests."""

    resolve: Callable[[str, int], list[str]] = resolve
    is_allowed: Callable[[Address], bool] = is_public
    seconds: float = SECONDS
    max_bytes: int = MAX_BYTES

    def __call__(self, url: str, param: str) -> bytes:
        """Return what a URL points to.

        Raises:
            ApiError: Not http(s), not public, too large, too slow, or not there.
        """
        deadline = time.monotonic() + self.seconds
        for _ in range(MAX_REDIRECTS + 1):
            parts = _split(url, param)
            try:
                response = self._get(parts, param, deadline)
                try:
                    if response.status not in (301, 302, 303, 307, 308):
                        return self._read(response, param, deadline)
                    url = urljoin(url, response.getheader("Location") or "")
                finally:
                    response.close()
            except (OSError, http.client.HTTPException, ValueError) as error:
                raise _refusal(param, "cannot be fetched") from error
        raise _refusal(param, f"is redirected more than {MAX_REDIRECTS} times")

    def _get(self, parts: SplitResult, param: str, deadline: float) -> http.client.HTTPResponse:
        host, port = parts.hostname, parts.port or _PORTS[parts.scheme]
        assert host is not None
        address = self._address(host, port, param)
        connection = http.client.HTTPConnection(host, port)
        sock = socket.create_connection((address, port), timeout=_left(deadline))
        if parts.scheme == "https":
            sock = ssl.create_default_context().wrap_socket(sock, server_hostname=host)
        connection.sock = sock
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        try:
            connection.request("GET", path, headers={"User-Agent": "convllava", "Accept": "image/*"})
            return connection.getresponse()
        finally:
            connection.close()  # the response keeps what it still has to read

    def _address(self, host: str, port: int, param: str) -> str:
        addresses = self.resolve(host, port)
        for address in addresses:
            if not self.is_allowed(ipaddress.ip_address(address.partition("%")[0])):
                raise _refusal(param, "does not lead to a public address")
        if not addresses:
            raise _refusal(param, "has an unknown host")
        return addresses[0]

    def _read(self, response: http.client.HTTPResponse, param: str, deadline: float) -> bytes:
        if response.status != 200:
            raise _refusal(param, f"cannot be fetched (status {response.status})")
        data = bytearray()
        while chunk := response.read1(_CHUNK):
            data += chunk
            _left(deadline)
            if len(data) > self.max_bytes:
                raise _refusal(param, f"has more than the {self.max_bytes} bytes allowed")
        return bytes(data)


def _split(url: str, param: str) -> SplitResult:
    if not url.isascii() or any(c <= " " or c == "\x7f" for c in url):
        raise _refusal(param, "holds characters that a URL cannot have")
    try:
        parts = urlsplit(url)
        known = parts.scheme in _PORTS and parts.hostname is not None and (parts.port or 1) > 0
    except ValueError as error:
        raise _refusal(param, "is not a URL") from error
    if not known or parts.username is not None or parts.password is not None:
        raise _refusal(param, "must be an http(s) URL without a password")
    return parts


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _refusal(param: str, reason: str) -> ApiError:
    return ApiError(400, f"{param} {reason}", param=param, code="invalid_image_url")
