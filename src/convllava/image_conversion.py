"""PIL, numpy and torch images of any mode to upright PIL images in RGB."""

from typing import Any, Literal

import numpy as np
import torch
from PIL import Image, ImageOps
from PIL.ExifTags import Base
from PIL.TiffImagePlugin import TiffImageFile

_SWAPS_SIDES = range(5, 9)  # EXIF orientations that exchange height and width

ImageErrorKind = Literal[
    "missing", "unreachable", "data_url", "base64", "empty", "unreadable", "damaged", "too_large", "animated", "colors"
]


class ImageError(ValueError):
    """An image that cannot be used.

    Attributes:
        kind: The cause, for callers that map it to a code of their own.
        name: The image: a path, a URL (shortened), or a description of one in memory.
        reason: The cause in words, to be read after the name, with the way out.
    """

    def __init__(self, kind: ImageErrorKind, name: str, reason: str) -> None:
        super().__init__(kind, name, reason)
        self.kind: ImageErrorKind = kind
        self.name, self.reason = name, reason

    def __str__(self) -> str:
        return f"{self.name} {self.reason}"


def orientation(image: Image.Image) -> int:
    """Return the EXIF orientation of an image, 1 (upright) to 8, from its header."""
    exif = Image.Image.getexif(image)  # the override for PNG decodes the image to look behind its pixels
    return int(exif.get(Base.Orientation, 1))


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Return (height, width) of an image, decoded or not, after the rotation that its EXIF orientation asks for."""
    # Pillow reports the size of an undecoded TIFF upright, and removes the orientation when it decodes.
    swapped = not isinstance(image, TiffImageFile) and orientation(image) in _SWAPS_SIDES
    return (image.width, image.height) if swapped else (image.height, image.width)


def to_rgb(image: Image.Image, name: str | None = None) -> Image.Image:
    """Return an image upright and in RGB, whatever its mode; the current frame of several. Returns itself if it is so.

    Transparent parts become white: images with an alpha channel (logos, diagrams, screenshots) are made to
    be seen on a page, and black ink on PIL's default black ground would vanish.

    Raises:
        ImageError: The file is damaged, or the mode has no defined colors (for example La).
    """
    try:
        image.load()
        turned = image if image.getexif().get(Base.Orientation, 1) == 1 else ImageOps.exif_transpose(image)
        return _convert(turned, name or _describe(turned))
    except ImageError:
        raise
    except Exception as error:  # on damaged files Pillow's decoders raise nearly everything
        reason = f"is damaged ({error}): save or fetch it again"
        raise ImageError("damaged", name or _describe(image), reason) from error


def _convert(image: Image.Image, name: str) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I"):
        return _from_16_bit(np.asarray(image)).convert("RGB")
    if image.mode == "F":
        return _from_float(np.asarray(image), name).convert("RGB")
    try:
        return _on_white(image) if image.has_transparency_data else image.convert("RGB")
    except ValueError as error:
        raise ImageError("colors", name, f"cannot be converted from mode {image.mode}: save it as RGB first") from error


def _describe(image: Image.Image) -> str:
    name = getattr(image, "filename", "")
    described = f"an image of {image.width}x{image.height} pixels, mode {image.mode}"
    return f"{name}, {described}," if name else described


def _from_16_bit(levels: np.ndarray) -> Image.Image:
    """Return the high bytes (H, W): PIL itself clips 16-bit levels at 255, which turns nearly everything white."""
    return Image.fromarray((levels.astype(np.int64).clip(0, 0xFFFF) >> 8).astype(np.uint8))


def _from_float(levels: np.ndarray, name: str) -> Image.Image:
    """Return the image of floats (H, W) or (H, W, C) that are fractions of full brightness."""
    if not (levels.min() >= 0.0 and levels.max() <= 1.0):
        raise ImageError(
            "colors",
            name,
            f"has floats, which must be from 0 to 1, got {levels.min():g} to {levels.max():g}: scale it or use "
            "8-bit integers",
        )
    return Image.fromarray(np.rint(levels * 255.0).astype(np.uint8))


def _on_white(image: Image.Image) -> Image.Image:
    with_alpha = image.convert("RGBA")
    white = Image.new("RGBA", with_alpha.size, "white")
    return Image.alpha_composite(white, with_alpha).convert("RGB")


def to_pil(image: Any) -> Image.Image:
    """Return a PIL image for a PIL, numpy or torch one: (H, W), (H, W, C) or (C, H, W), C = 1, 3 or 4.

    Raises:
        ValueError: Not an image: another type, shape or range of values.
    """
    if isinstance(image, Image.Image):
        return image
    if isinstance(image, torch.Tensor):
        image = image.detach().cpu()
        image = image.float().numpy() if image.is_floating_point() else image.numpy()
    if not isinstance(image, np.ndarray):
        raise ValueError(f"an image is a PIL image, a numpy array or a torch tensor, got {type(image).__name__}")
    return _from_levels(_channels_last(image))


def _from_levels(levels: np.ndarray) -> Image.Image:
    """Return the image of an array (H, W) or (H, W, 3 | 4)."""
    if levels.dtype == np.bool_:
        return Image.fromarray(levels.astype(np.uint8) * np.uint8(255))
    if levels.dtype == np.uint16:
        return _from_16_bit(levels)
    if np.issubdtype(levels.dtype, np.floating):
        return _from_float(levels.astype(np.float32), "an array")
    if levels.min() < 0 or levels.max() > 255:
        raise ValueError(f"an integer image has values from 0 to 255, got {levels.min()} to {levels.max()}: scale it")
    return Image.fromarray(levels.astype(np.uint8))


def _channels_last(levels: np.ndarray) -> np.ndarray:
    """Return an array (H, W), (H, W, C) or (C, H, W) as (H, W) or (H, W, C)."""
    shape = levels.shape
    if levels.ndim == 3 and shape[2] not in (1, 3, 4) and shape[0] in (1, 3, 4):
        levels = np.moveaxis(levels, 0, 2)
    if levels.ndim == 3 and levels.shape[2] == 1:
        levels = levels[:, :, 0]
    if levels.size == 0 or not (levels.ndim == 2 or (levels.ndim == 3 and levels.shape[2] in (3, 4))):
        raise ValueError(f"an image has shape (H, W), (H, W, C) or (C, H, W) with C = 1, 3 or 4, got {tuple(shape)}")
    return np.ascontiguousarray(levels)
