"""Fast preprocessing: an alternative to the exact one, used only when asked for.

Three things make it fast. A JPEG that will be shown smaller is decoded at a half, a quarter or an eighth of its size
(libjpeg scales blocks in the frequency domain); resizing runs on 8-bit tensors; several images are prepared in several
threads. The price: values differ a little from the exact ones, which equal the CLIP image processor's to the last bit.
"""

import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ..images import ImageError, to_rgb

Item = TypeVar("Item")
Result = TypeVar("Result")

MARGIN = 1.25
"""Minimum ratio of the decoded to the shown size of a JPEG: two filters close to each other blur fine print."""


def least_size(height: int, width: int) -> tuple[int, int]:
    """Return the least (height, width) at which an image that is shown at height x width is decoded."""
    return math.ceil(MARGIN * height), math.ceil(MARGIN * width)


def decode(image: Image.Image, height: int, width: int) -> Image.Image:
    """Return an RGB image, decoded no larger than needed for the size at which it is shown.

    Only an undecoded JPEG can become smaller than its file, and never smaller than height x width with a margin.

    Args:
        image: Upright, as :func:`~convllava.images.open_image` returns it, lazily or not.
        height, width: Size at which the image is shown, in pixels.

    Raises:
        ImageError: The file is damaged.
    """
    if image.format == "JPEG" and getattr(image, "tile", None):  # not decoded yet
        least_height, least_width = least_size(height, width)
        image.draft(None, (least_width, least_height))
    try:
        return to_rgb(image)
    except ImageError:
        image.close()  # a file that was read to its end is closed already
        raise


def resize(image: Image.Image, height: int, width: int) -> Tensor:
    """Resize an RGB image with the antialiased bicubic kernel of exact preprocessing; uint8 (3, H, W).

    At most one level from Pillow's result: both work on 8 bits, and round in another order.
    """
    levels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]  # (1, 3, H, W) in channels-last memory
    if levels.shape[-2:] != (height, width):
        levels = F.interpolate(levels, (height, width), mode="bicubic", antialias=True)
    return levels[0]


def resize_padded(image: Image.Image, full_size: tuple[int, int], side: int, color: tuple[int, int, int]) -> Tensor:
    """Resize an RGB image in the middle of its square, as exact preprocessing does; uint8 (3, side, side).

    Exact preprocessing puts the image at integer pixels. In an image that was decoded smaller these are fractions: it
    is put on integer pixels of a slightly larger ground, of which the right part is then resized.

    Args:
        image: RGB image, possibly decoded smaller than its file.
        full_size: (height, width) of the image in its file.
        side: Side of the square in pixels.
        color: Color of the padding, 8 bits a channel.
    """
    longer = max(full_size)
    starts, sides, places = [], [], []  # along the width, then the height
    for length, full in zip(image.size, reversed(full_size), strict=True):
        scale = length / full
        offset = (longer - full) // 2 * scale
        places.append(math.ceil(offset))
        starts.append(places[-1] - offset)
        sides.append(longer * scale)
    ends = [start + length for start, length in zip(starts, sides, strict=True)]
    ground = Image.new("RGB", (math.ceil(ends[0]), math.ceil(ends[1])), color)
    ground.paste(image, (places[0], places[1]))
    if ground.size == (longer, longer):  # nothing was decoded smaller
        return resize(ground, side, side)
    shown = ground.resize((side, side), Image.Resampling.BICUBIC, box=(starts[0], starts[1], ends[0], ends[1]))
    return torch.from_numpy(np.array(shown)).permute(2, 0, 1)


def normalize_into(
    target: Tensor, levels: Tensor, mean: Sequence[float], std: Sequence[float], rescale_factor: float
) -> None:
    """Write 8-bit levels (3, H, W), rescaled and normalized, into ``target`` (3, H, W)."""
    for channel, (center, spread) in enumerate(zip(mean, std, strict=True)):
        target[channel].copy_(levels[channel]).mul_(rescale_factor / spread).sub_(center / spread)


def in_threads(work: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """Apply a function to every item, several at a time; Pillow and torch release the interpreter lock meanwhile."""
    threads = min(len(items), os.cpu_count() or 1)
    if threads < 2:
        return [work(item) for item in items]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(work, items))
