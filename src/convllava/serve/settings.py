"""Limits and habits of a server, each with its reason."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a server allows.

    Args:
        model_name: Under which the model is offered; requests name it.
        api_key: What clients must present as a bearer token; None lets everybody in.
        max_batch: Requests answered at a time.
        max_queue: Requests that may wait beyond these; the next one is told to come again (429).
        request_timeout: Seconds from a request's arrival to the end of its answer.
        body_timeout: Seconds in which a request must have been sent completely.
        drain_timeout: Seconds that requests under way get to finish when the server is told to stop.
        max_body_bytes: Of one request; images travel in it as base64, a third larger than they are.
        max_bodies_bytes: Of all requests that are being received, together.
        max_images: Images in one request.
        max_image_pixels: Of one image as it is sent: 64 Mi hold the 48 megapixels of a telephone.
        max_queue_pixels: Of all resized images that wait; each takes 12 bytes of memory.
        prefix_cache_bytes: For the latest dialogues, whose next turn then costs only what is new.
        auto_resolution: Choose sizes that requests leave open so that images fit the context, instead of refusing
            large ones; for models that were trained on images of any size.
        remote_images: Fetch images by http(s) URL, from public addresses only.
        allowed_hosts: Names under which the server may be addressed; empty for any. Keeps web pages from
            reaching a server on the user's own machine through a name that resolves to it.
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
    max_queue_pixels: int = 1 << 26
    prefix_cache_bytes: int = 128 << 20
    auto_resolution: bool = False
    remote_images: bool = False
    allowed_hosts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("max_batch", "max_images", "max_image_pixels", "max_queue_pixels", "max_body_bytes"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("request_timeout", "body_timeout", "drain_timeout"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be more than 0 seconds, got {getattr(self, name)}")
        if self.max_queue < 0 or self.prefix_cache_bytes < 0:
            raise ValueError("max_queue and prefix_cache_bytes must not be negative")
        if self.api_key is not None and not self.api_key.strip():
            raise ValueError("the API key is empty: set it, or leave the option out to let everybody in")
