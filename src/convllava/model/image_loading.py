"""Any image (path, URL, PIL, numpy, torch; any mode) to an upright PIL image in RGB."""

import base64
import binascii
import os
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import numpy as np
import torch
from PIL import Image, ImageOps

SHORTEST_BASE64 = 80
"""Shorter texts cannot be a whole image: a mistyped path is then called a missing file."""

URL_TIMEOUT = 30.0
"""Seconds to wait for an image from the network."""


def open_image(source: str | Path) -> Image.Image:
    """Read an image by path, http(s) URL, ``data:`` URL or base64 text; its mode stays as it is.

    transformers' own loader converts to RGB at once: transparent grounds turn black, 16-bit levels white.

    Raises:
        ValueError: No such file, no answer, or not an image.
    """
    name = _short(str(source))
    try:
        with Image.open(_locate(source)) as image:
            image.load()
            return image
    except FileNotFoundError as error:
        raise ValueError(f"no image file {name}") from error
    except (URLError, TimeoutError) as error:
        raise ValueError(f"cannot fetch image {name}: {error}") from error
    except Image.DecompressionBombError as error:
        raise ValueError(f"image {name} is too large to be safe: {error}") from error
    except (OSError, SyntaxError) as error:  # PIL reports broken PNG chunks as SyntaxError
        raise ValueError(f"{name} is not an image that can be read: {error}") from error


def _locate(source: str | Path) -> Path | BytesIO:
    text = str(source)
    if text.startswith(("http://", "https://")):
        with urlopen(text, timeout=URL_TIMEOUT) as answer:
            return BytesIO(answer.read())
    if text.startswith("data:image/"):
        return BytesIO(base64.b64decode(text.partition(",")[2]))
    if not os.path.isfile(text) and len(text) >= SHORTEST_BASE64:
        with suppress(binascii.Error, ValueError):
            return BytesIO(base64.b64decode(text, validate=True))
    return Path(text)


def _short(text: str) -> str:
    return text if len(text) <= 100 else f"{text[:40]}...{text[-20:]}"


def to_rgb(image: Image.Image) -> Image.Image:
    """Return an image upright and in RGB, whatever its mode; of several frames the one it stands at.

    Transparent parts become white: images with an alpha channel (logos, diagrams, screenshots) are made to
    be seen on a page, and black ink on PIL's default black ground would vanish.

    Raises:
        ValueError: The file is cut off, or the mode has no defined colors (for example La).
    """
    try:
        image.load()
        image = ImageOps.exif_transpose(image)
        return _convert(image)
    except (OSError, SyntaxError) as error:
        raise ValueError(f"cannot read {_describe(image)}: {error}") from error


def _convert(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I"):
        return _from_16_bit(np.asarray(image)).convert("RGB")
    if image.mode == "F":
        return _from_float(np.asarray(image)).convert("RGB")
    try:
        return _on_white(image) if image.has_transparency_data else image.convert("RGB")
    except ValueError as error:
        raise ValueError(f"cannot convert {_describe(image)}: save it as RGB first") from error


def _describe(image: Image.Image) -> str:
    name = getattr(image, "filename", "")
    described = f"an image of {image.width}x{image.height} pixels, mode {image.mode}"
    return f"{name}, {described}" if name else described


def _from_16_bit(levels: np.ndarray) -> Image.Image:
    """Keep the high byte: PIL itself clips 16-bit levels at 255, which turns nearly everything white."""
    return Image.fromarray((levels.astype(np.int64).clip(0, 0xFFFF) >> 8).astype(np.uint8))


def _from_float(levels: np.ndarray) -> Image.Image:
    """Read floats as fractions of full brightness."""
    if not (levels.min() >= 0.0 and levels.max() <= 1.0):
        raise ValueError(
            f"an image of floats has values from 0 to 1, got {levels.min():g} to {levels.max():g}: "
            "scale it or pass 8-bit integers"
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
        return _from_float(levels.astype(np.float32))
    if levels.min() < 0 or levels.max() > 255:
        raise ValueError(f"an integer image has values from 0 to 255, got {levels.min()} to {levels.max()}: scale it")
    return Image.fromarray(levels.astype(np.uint8))


def _channels_last(levels: np.ndarray) -> np.ndarray:
    shape = levels.shape
    if levels.ndim == 3 and shape[2] not in (1, 3, 4) and shape[0] in (1, 3, 4):
        levels = np.moveaxis(levels, 0, 2)
    if levels.ndim == 3 and levels.shape[2] == 1:
        levels = levels[:, :, 0]
    if levels.size == 0 or not (levels.ndim == 2 or (levels.ndim == 3 and levels.shape[2] in (3, 4))):
        raise ValueError(f"an image has shape (H, W), (H, W, C) or (C, H, W) with C = 1, 3 or 4, got {tuple(shape)}")
    return np.ascontiguousarray(levels)
