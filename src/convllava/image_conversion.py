"""PIL, numpy and torch images of any mode to upright PIL images in RGB."""

from contextlib import suppress
from typing import IO, Any, Literal

import numpy as np
from PIL import Image
from PIL.ExifTags import Base
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""The turn that makes an image with this EXIF orientation upright."""

_SWAPS_SIDES = range(5, 9)  # EXIF orientations that exchange height and width

_ORIENTATION_KEYS = ("exif", "Raw profile type exif", "XML:com.adobe.xmp", "xmp")
"""Keys of `Image.info` that can hold an orientation."""

_PNG_SIGNATURE_BYTES = 8
_LATE_METADATA = (b"eXIf", b"XML:com.adobe.xmp\0", b"Raw profile type exif\0")

_PALE = 183
"""Luminance (of 255) from which a color has a contrast below 2:1 on white."""

_MOST_DARK = 1e-3
"""Maximum share of darker pixels in a pale drawing: the noise of lossy compression, but no mark."""

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
    """Return the EXIF orientation of an image, 1 (upright) to 8, without decoding it where that is possible.

    It is 1 if it is missing or cannot be read: damaged metadata do not make an image unusable.
    """
    if isinstance(image, PngImageFile) and image.tile and _has_late_metadata(image):
        with suppress(Exception):  # a damaged image is reported when it is decoded
            image.load()
    for _ in range(2):  # on damaged metadata the first try raises, the second returns what could be read
        with suppress(Exception):
            # the override for PNG decodes the image in any case
            found = Image.Image.getexif(image).get(Base.Orientation, 1)
            return int(found) if found in _TURNS else 1
    return 1


def _has_late_metadata(image: PngImageFile) -> bool:
    """Return whether an undecoded PNG has metadata behind its pixels, from the names of its chunks."""
    file = image.fp
    if file is None:
        return False
    start = file.tell()
    try:
        position, pixels_passed = _PNG_SIGNATURE_BYTES, False
        while len(head := _read_at(file, position, 32)) >= 12:
            name = head[4:8]
            if pixels_passed and (name == _LATE_METADATA[0] or head[8:].startswith(_LATE_METADATA[1:])):
                return True
            pixels_passed |= name == b"IDAT"
            position += 12 + int.from_bytes(head[:4], "big")
        return False
    finally:
        file.seek(start)


def _read_at(file: IO[bytes], position: int, length: int) -> bytes:
    file.seek(position)
    return file.read(length)


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Return (height, width) of an image, decoded or not, after the rotation that its EXIF orientation asks for."""
    # Pillow reports the size of an undecoded TIFF upright, and removes the orientation when it decodes.
    swapped = not isinstance(image, TiffImageFile) and orientation(image) in _SWAPS_SIDES
    return (image.width, image.height) if swapped else (image.height, image.width)


def to_rgb(image: Image.Image, name: str | None = None) -> Image.Image:
    """Return an image upright and in RGB, whatever its mode; the current frame of several. Returns itself if it is so.

    Transparent parts become white: images with an alpha channel (logos, diagrams, screenshots) are made to
    be seen on a page. They become black where everything visible is so pale that it would vanish on white.

    Raises:
        ImageError: The file is damaged, or the mode has no defined colors (for example La).
    """
    try:
        _decode(image)
        turned = _upright(image)
        return _convert(turned, name or _describe(turned))
    except ImageError:
        raise
    except Exception as error:  # on damaged files Pillow's decoders raise nearly everything
        reason = f"is damaged ({error}): save or fetch it again"
        raise ImageError("damaged", name or _describe(image), reason) from error


def _decode(image: Image.Image) -> None:
    if isinstance(image, TiffImageFile) and image.filename and orientation(image) in _SWAPS_SIDES:
        name, image.filename = image.filename, ""  # Pillow 13 would map the file into memory with its sides swapped
        image.load()
        image.filename = name
    else:
        image.load()


def _upright(image: Image.Image) -> Image.Image:
    """Return a decoded image turned as its orientation asks for, without the orientation; itself if it is upright."""
    turn = _TURNS.get(orientation(image))
    if turn is None:
        return image
    turned = image.transpose(turn)
    for key in _ORIENTATION_KEYS:
        turned.info.pop(key, None)
    return turned


def _convert(image: Image.Image, name: str) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I"):
        return _from_16_bit(np.asarray(image)).convert("RGB")
    if image.mode == "F":
        return _from_float(np.asarray(image), name).convert("RGB")
    try:
        return _on_ground(image) if image.has_transparency_data else image.convert("RGB")
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


def _on_ground(image: Image.Image) -> Image.Image:
    """Return an image with transparent parts on white, or on black if nothing of it could be seen on white."""
    with_alpha = image.convert("RGBA")
    alpha = with_alpha.getchannel("A")
    if alpha.getextrema()[0] == 255:
        return with_alpha.convert("RGB")  # no ground is seen
    ground = "black" if _is_pale(with_alpha, alpha) else "white"
    return Image.alpha_composite(Image.new("RGBA", with_alpha.size, ground), with_alpha).convert("RGB")


def _is_pale(image: Image.Image, alpha: Image.Image) -> bool:
    """Return whether the visible pixels, those at least half as opaque as the most opaque one, are pale."""
    most = max(level for level, count in enumerate(alpha.histogram()) if count)
    visible = alpha.point([255 * (2 * level >= most > 0) for level in range(256)])
    counts = image.convert("L").histogram(visible)
    return sum(counts[:_PALE]) < _MOST_DARK * sum(counts)


def pad_to_square(image: Image.Image, color: tuple[int, int, int]) -> Image.Image:
    """Center an RGB image on a square of its longer side, at integer offsets."""
    width, height = image.size
    if width == height:
        return image
    side = max(width, height)
    square = Image.new("RGB", (side, side), color)
    square.paste(image, ((side - width) // 2, (side - height) // 2))
    return square


def to_pil(image: Any) -> Image.Image:
    """Return a PIL image for a PIL, numpy or torch one: (H, W), (H, W, C) or (C, H, W), C = 1, 3 or 4.

    Raises:
        ValueError: Not an image: another type, shape or range of values.
    """
    if isinstance(image, Image.Image):
        return image
    import torch  # here, as it takes seconds and most images are none

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
