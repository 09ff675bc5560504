"""Crops of receipts: lines, bands of a few rows, scaled pages."""

import math
import random
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageOps, ImageStat

from convllava.images import DATA_SET_LIMITS, undecoded

from .receipt import PixelBox, Row, TextLine, enclosing_box

_MARGIN = 0.12
"""Margin around a line, in heights of its box: annotated boxes are tight."""

_LONGEST_BAND = 4
"""Maximum rows of a band."""


def open_page(path: Path) -> Image.Image:
    """Open an image in gray or RGB without rotating it: boxes are in its stored pixels."""
    with undecoded(path, limits=DATA_SET_LIMITS) as image:
        image.load()
        return image if image.mode in ("L", "RGB") else image.convert("RGB")


def cut_line(page: Image.Image, line: TextLine, height: int) -> Image.Image:
    """Return one line scaled to ``height`` pixels, filled with paper to the right up to a multiple of the height.

    The multiple keeps the letters' proportions: a model that rounds images to whole positions need not stretch them.
    """
    x0, y0, x1, y1 = line.box
    margin = round(_MARGIN * (y1 - y0))
    cut = page.crop(_within(page, (x0 - margin, y0 - margin, x1 + margin, y1 + margin)))
    width = max(1, round(cut.width * height / cut.height))
    scaled = cut.resize((width, height), Image.Resampling.BICUBIC)
    filled = height * math.ceil(width / height)
    return ImageOps.expand(scaled, (0, 0, filled - width, 0), fill=_paper(cut))


def cut_band(page: Image.Image, rows: Sequence[Row]) -> Image.Image:
    """Return the crop of consecutive rows, as wide as their text."""
    lines = [line for row in rows for line in row]
    x0, y0, x1, y1 = enclosing_box(lines)
    margin = round(_MARGIN * max(line.box[3] - line.box[1] for line in lines))
    return page.crop(_within(page, (x0 - margin, y0 - margin, x1 + margin, y1 + margin)))


def band_around(rng: random.Random, first: int, last: int, count: int) -> tuple[int, int]:
    """Draw a band of rows, as (first, last), with up to three more rows on each side of the given ones."""
    return max(0, first - rng.randint(0, 3)), min(count - 1, last + rng.randint(0, 3))


def any_band(rng: random.Random, count: int) -> tuple[int, int]:
    """Draw a short band of rows, as (first, last)."""
    first = rng.randrange(count)
    return first, min(count - 1, first + rng.randint(0, _LONGEST_BAND - 1))


def scale_page(page: Image.Image, max_width: int) -> Image.Image:
    """Return an image scaled down to at most ``max_width`` pixels."""
    if page.width <= max_width:
        return page
    return page.resize((max_width, round(page.height * max_width / page.width)), Image.Resampling.LANCZOS)


def scale_line(line: TextLine, factor: float) -> TextLine:
    """Return a line whose box is scaled by ``factor`` and has at least one pixel in each direction."""
    x0, y0, x1, y1 = (round(value * factor) for value in line.box)
    return TextLine((x0, y0, max(x1, x0 + 1), max(y1, y0 + 1)), line.text)


def _within(page: Image.Image, box: PixelBox) -> PixelBox:
    return max(0, box[0]), max(0, box[1]), min(page.width, box[2]), min(page.height, box[3])


def _paper(image: Image.Image) -> int | tuple[int, ...]:
    """Return the median color, which is the paper's: print covers less than half of a line."""
    median = ImageStat.Stat(image).median
    return int(median[0]) if image.mode == "L" else tuple(int(value) for value in median)
