"""The options that decide at which size an image is shown to the vision encoder."""

from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

ImageAspectRatio = Literal["pad", "native"]
IMAGE_ASPECT_RATIOS: tuple[str, ...] = get_args(ImageAspectRatio)


@dataclass(frozen=True)
class ImageOptions:
    """Options of image preprocessing; None leaves an option as the checkpoint has it.

    Attributes:
        image_aspect_ratio: "pad" centers the image on a square, "native" keeps its own aspect ratio.
        resolution: Side of the square ("pad") or short side ("native") in pixels.
        max_visual_tokens: Maximum visual tokens of one image; applied last, it only shrinks.
        min_visual_tokens: Visual tokens up to which a smaller image is enlarged, at most fourfold.

    Raises:
        ValueError: A value is out of range.
    """

    image_aspect_ratio: str | None = None
    resolution: int | None = None
    max_visual_tokens: int | None = None
    min_visual_tokens: int | None = None

    def __post_init__(self) -> None:
        if self.image_aspect_ratio is not None:
            check_aspect_ratio(self.image_aspect_ratio)
        if self.resolution is not None and self.resolution < 1:
            raise ValueError(f"resolution is at least 1 pixel, got {self.resolution}")
        if self.max_visual_tokens is not None and self.max_visual_tokens < 1:
            raise ValueError(f"max_visual_tokens is at least 1, or None for no limit, got {self.max_visual_tokens}")
        if self.min_visual_tokens is not None and self.min_visual_tokens < 1:
            raise ValueError(f"min_visual_tokens is at least 1, or None for no limit, got {self.min_visual_tokens}")

    def given(self) -> dict[str, Any]:
        """Return the options that are set, as keywords of an image processor."""
        return {name: value for name in IMAGE_OPTIONS if (value := getattr(self, name)) is not None}

    def merged(self, other: "ImageOptions") -> "ImageOptions":
        """Return these options with those that ``other`` sets in their place."""
        return ImageOptions(**(self.given() | other.given()))


IMAGE_OPTIONS = tuple(field.name for field in fields(ImageOptions))
"""Names of the options, which can be given again with every call of an image processor."""


def check_aspect_ratio(image_aspect_ratio: str) -> None:
    """Raise a ValueError for an unknown image_aspect_ratio."""
    if image_aspect_ratio not in IMAGE_ASPECT_RATIOS:
        allowed = ", ".join(map(repr, IMAGE_ASPECT_RATIOS))
        raise ValueError(f"image_aspect_ratio is one of {allowed}, got {image_aspect_ratio!r}")
