"""Settings of a server."""

import re
from dataclasses import dataclass, field

from ..image_options import ImageOptions

_ORIGIN = re.compile(r"https?://[^/\s]+")
_ROOT_PATH = re.compile(r"(/[\w.~-]+)*")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Limits and access of a server.

    Args:
        model_name: Name of the model in requests.
        api_key: Bearer token that requests must have; None requires none.
        max_batch: Maximum requests decoded at a time.
        max_queue: Maximum queued requests; further ones get HTTP 429.
        request_timeout: Seconds from the arrival of a request to the end of its answer.
        body_timeout: Seconds until the body of a request must be complete.
        drain_timeout: Seconds for running requests to finish after SIGTERM.
        max_body_bytes: Maximum size of a request; base64 makes its images a third larger.
        max_bodies_bytes: Maximum size of all requests that are received at a time, together.
        max_images: Maximum images in a request.
        max_image_pixels: Maximum pixels of an image as sent: 64 Mi hold the 48 megapixels of a telephone.
        max_request_pixels: Maximum pixels of all images of a request as sent.
        decode_timeout: Seconds to decode all images of a request.
        max_queue_pixels: Maximum pixels of all resized images in the queue, 12 bytes of memory each.
        image_options: Image options of requests that do not set their own; by default the checkpoint's.
        prefix_cache_bytes: Memory for keys and values of the latest dialogues, whose next turn then costs less.
        auto_resolution: Whether sizes that requests leave open are chosen so that images fit the context; for models
            that were trained on images of any size.
        remote_images: Whether images are fetched by http(s) URL, from public addresses only.
        allowed_hosts: Host names that requests may be addressed to; empty for any. They keep web pages from reaching
            a server on the user's machine through a name that resolves to it.
        cors_origins: Origins of web pages that may use the API from a browser, or "*" for any.
        root_path: Path under which a proxy publishes the server, such as "/vision"; empty for the root.
    """

    model_name: str
    api_key: str | None = None
    max_batch: int = 32
    max_queue: int = 64
    request_timeout: float = 300.0
    body_timeout: float = 30.0
    drain_timeout: float = 30.0
    max_body_bytes: int = 32 << 20
    max_bodies_bytes: int = 256 << 20
    max_images: int = 16
    max_image_pixels: int = 1 << 26
    max_request_pixels: int = 1 << 28
    decode_timeout: float = 15.0
    max_queue_pixels: int = 1 << 26
    image_options: ImageOptions = field(default_factory=ImageOptions)
    prefix_cache_bytes: int = 128 << 20
    auto_resolution: bool = False
    remote_images: bool = False
    allowed_hosts: tuple[str, ...] = ()
    cors_origins: tuple[str, ...] = ()
    root_path: str = ""

    def __post_init__(self) -> None:
        for name in (
            "max_batch",
            "max_images",
            "max_image_pixels",
            "max_request_pixels",
            "max_queue_pixels",
            "max_body_bytes",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("request_timeout", "body_timeout", "drain_timeout", "decode_timeout"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be more than 0 seconds, got {getattr(self, name)}")
        if self.max_queue < 0 or self.prefix_cache_bytes < 0:
            raise ValueError("max_queue and prefix_cache_bytes must not be negative")
        if self.api_key is not None and not self.api_key.strip():
            raise ValueError("the API key is empty: set it, or omit it to require no key")
        for origin in self.cors_origins:
            if origin != "*" and not _ORIGIN.fullmatch(origin):
                raise ValueError(f"{origin!r} is not the origin of a page: give http(s)://HOST[:PORT], or * for any")
        if not _ROOT_PATH.fullmatch(self.root_path):
            raise ValueError(f"root_path {self.root_path!r} must be like /vision: a slash first, none at the end")
