"""The fast way from an image to pixels: beside the exact one, and only when asked for.

Three things make it fast. A JPEG that will be shown smaller is decoded at a half, a quarter or an eighth of its size
(libjpeg scales blocks in the frequency domain); resizing runs on 8-bit tensors; several images are prepared by
several threads, also ahead of the model. The price: values differ a little from those of the exact way, which equal
the CLIP image processor's to the last bit.
"""

import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from .image_loading import to_rgb

_ORIENTATION = 0x0112  # EXIF tag
_LYING = range(5, 9)  # its values that swap height and width

MARGIN = 1.25
"""A JPEG is decoded at least so many times as large as it is shown: two filters close to each other blur fine print."""


def open_lazily(source: str | Path) -> Image.Image | None:
    """Open a local JPEG without decoding it, or return None: anything else has to be read in the ordinary way."""
    if not os.path.isfile(source):
        return None
    try:
        image = Image.open(source)
    except (OSError, SyntaxError, Image.DecompressionBombError):
        return None  # the ordinary way says what is wrong
    if image.format == "JPEG":
        return image
    image.close()
    return None


def decode(image: Image.Image, height: int, width: int) -> Image.Image:
    """Return an upright RGB image, decoded no larger than it has to be for the size at which it is shown.

    Only a JPEG that nobody has decoded yet may become smaller than it is, and never smaller than height x width with
    a margin.

    Raises:
        ValueError: The file is damaged.
    """
    if image.format == "JPEG" and getattr(image, "tile", None):  # not decoded yet
        sides = (height, width) if _lies(image) else (width, height)
        image.draft(None, (math.ceil(MARGIN * sides[0]), math.ceil(MARGIN * sides[1])))
    try:
        return to_rgb(image)
    except ValueError:
        image.close()  # a file that was read to its end is closed already
        raise


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Return (height, width) of an image as it is to be seen, from its header."""
    return (image.width, image.height) if _lies(image) else (image.height, image.width)


def _lies(image: Image.Image) -> bool:
    return image.getexif().get(_ORIENTATION, 1) in _LYING


def resize(image: Image.Image, height: int, width: int) -> Tensor:
    """Resize an RGB image with the antialiased bicubic kernel of the exact way; uint8 (3, H, W).

    At most one level from Pillow's result: both work on 8 bits, and round in another order.
    """
    levels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]  # (1, 3, H, W) in channels-last memory
    if levels.shape[-2:] != (height, width):
        levels = F.interpolate(levels, (height, width), mode="bicubic", antialias=True)
    return levels[0]


def resize_padded(image: Image.Image, own_size: tuple[int, int], side: int, color: tuple[int, int, int]) -> Tensor:
    """Resize an RGB image in the middle of its square, as the exact way does; uint8 (3, side, side).

    The exact way puts the whole image at whole pixels. In one that was decoded smaller these are fractions: it
    is put on whole pixels of a slightly larger ground, of which the right part is then resized.

    Args:
        image: Perhaps decoded smaller than it is.
        own_size: (height, width) that it has in its file.
        side: Of the square, in pixels.
        color: Of the ground.
    """
    longer = max(own_size)
    starts, sides, places = [], [], []  # along the width, then the height
    for length, own in zip(image.size, reversed(own_size), strict=True):
        scale = length / own
        offset = (longer - own) // 2 * scale
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


def in_threads(work: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
    """Apply a function to every item, several at a time; Pillow and torch let go of the interpreter meanwhile."""
    threads = min(len(items), os.cpu_count() or 1)
    if threads < 2:
        return [work(item) for item in items]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(work, items))


def prepare_ahead(
    image_processor: Any, sources: Iterable[Any], *, ahead: int = 2, **options: Any
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield ``pixel_values`` (1, 3, H, W) and ``image_sizes`` (1, 2) of each image, in order.

    The next ones are prepared in threads of their own while the caller works on one.

    Args:
        image_processor: Fast or exact.
        sources: Paths, URLs or images; read as they are needed.
        ahead: Images that are prepared before they are asked for, at least 1.
        options: Image options.

    Raises:
        ValueError: ``ahead`` is less than 1, or an image cannot be used; when its turn comes.
    """
    if ahead < 1:
        raise ValueError(f"ahead must be at least 1, got {ahead}")

    def prepare(source: Any) -> tuple[Tensor, Tensor]:
        return image_processor.prepare([image_processor.fetch_images(source)], **options)

    waiting: deque[Future[tuple[Tensor, Tensor]]] = deque()
    with ThreadPoolExecutor(min(ahead, os.cpu_count() or 1)) as pool:
        try:
            for source in sources:
                waiting.append(pool.submit(prepare, source))
                if len(waiting) > ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
