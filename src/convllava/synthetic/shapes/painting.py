"""Painting of scenes, with smooth or with stepped edges as drawing programs leave them."""

import math
import random
from collections.abc import Sequence
from dataclasses import replace

from PIL import Image, ImageDraw

from ..effects import WHITE, Color
from ..options import Size
from ..pages.ground import colorize, cut_texture
from ..paint import OUTLINES, polygon
from .arrangement import COLORS, Drawn

_LEAST_CONTRAST = 85
"""Minimum distance in RGB between an object and the backdrop."""

_HALF_COVERED = [0] * 128 + [255] * 128

_FULL = {"square", "rectangle"}


def _regular(corners: int) -> list[tuple[float, float]]:
    turns = [math.tau * corner / corners for corner in range(corners)]
    return [(math.sin(turn), -math.cos(turn)) for turn in turns]


_MORE_OUTLINES = {
    "pentagon": polygon(*_regular(5)),
    "hexagon": polygon(*_regular(6)),
    "square": polygon((-1, -1), (1, -1), (1, 1), (-1, 1)),
    "rectangle": polygon((-1, -1), (1, -1), (1, 1), (-1, 1)),
    "ellipse": OUTLINES["circle"],
}


def paint(
    rng: random.Random, objects: Sequence[Drawn], size: Size, noise: float
) -> tuple[Image.Image, list[Drawn], str | None]:
    """Return the image (RGB), the objects with boxes tight around their pixels, and the backdrop's color if plain."""
    tones = [_jitter(rng, rng.choice(COLORS[item.color]), 10 * noise) for item in objects]
    image, name = _backdrop(rng, tones, size, noise)
    scale = 1 if rng.random() < 0.45 else 3
    upright = rng.random() < 0.5
    edge = rng.choice((None, None, None, None, (0, 0, 0), (60, 60, 60)))
    edge = edge if edge and all(math.dist(edge, tone) > _LEAST_CONTRAST for tone in tones) else None
    painted = []
    for item, tone in zip(objects, tones, strict=True):
        degrees = 0.0 if upright or item.shape in ("rectangle", "ellipse") else rng.uniform(-10, 10)
        painted.append(_paint_object(image, item, tone, (scale, degrees, edge)))
    return image, painted, name


def _paint_object(image: Image.Image, item: Drawn, tone: Color, looks: tuple[int, float, Color | None]) -> Drawn:
    scale, degrees, edge = looks
    x0, y0, x1, y1 = (round(end) for end in item.box)
    width, height = x1 - x0, y1 - y0
    scale = 2 if scale > 1 and max(width, height) > 120 else scale
    side = max(width, height) * scale
    mask = Image.new("L", (side, side))
    outline = _MORE_OUTLINES.get(item.shape) or OUTLINES[item.shape]
    outline(ImageDraw.Draw(mask), side, math.radians(degrees))
    if (side, side) != (width, height):
        mask = mask.resize((width, height), Image.Resampling.BOX if scale > 1 else Image.Resampling.NEAREST)
    if edge is not None and min(width, height) > 20:
        image.paste(edge, (x0, y0), mask)
        inner = mask.resize((width - 4, height - 4), Image.Resampling.BILINEAR)
        image.paste(tone, (x0 + 2, y0 + 2), inner)
    else:
        image.paste(tone, (x0, y0), mask)
    solid = mask.point(_HALF_COVERED)
    ink = solid.getbbox() or (0, 0, width, height)
    box = (x0 + ink[0], y0 + ink[1], x0 + ink[2], y0 + ink[3])
    return replace(item, box=box, degrees=degrees, pixels=solid.histogram()[255])


def _backdrop(rng: random.Random, tones: list[Color], size: Size, noise: float) -> tuple[Image.Image, str | None]:
    """Return the empty image and the name of its color, if it is plain and has a clear one."""
    height, width = size
    kind = rng.random()
    name: str | None = "white"
    color = WHITE
    if kind > 0.4 or not _apart(color, tones):
        name, color = _backdrop_color(rng, tones)
    if rng.random() > 0.3 * noise:
        return Image.new("RGB", (width, height), color), name
    other = _jitter(rng, color, 30)
    texture = rng.choice(("clouds", "paper", "wood", "weave", "crumpled", "gradient"))
    if texture == "gradient":
        gray = Image.linear_gradient("L").rotate(rng.choice((0, 90, 180, 270))).resize((width, height))
    else:
        gray = cut_texture(rng, texture, size)
    return colorize(gray, color, other), None


def _backdrop_color(rng: random.Random, tones: list[Color]) -> tuple[str | None, Color]:
    for _ in range(12):
        if rng.random() < 0.4:
            name = rng.choice(tuple(COLORS))
            color = rng.choice(COLORS[name])
            if _apart(color, tones):
                return name, color
        else:
            level = rng.choice((rng.randint(200, 255), rng.randint(200, 255), rng.randint(0, 255)))
            color = _jitter(rng, (level, level, level), 25)
            if _apart(color, tones):
                return None, color
    for color in (WHITE, (0, 0, 0), (128, 128, 128), (200, 220, 255), (60, 60, 90)):
        if _apart(color, tones):
            return None, color
    return None, max(
        ((r, g, b) for r in (0, 128, 255) for g in (0, 128, 255) for b in (0, 128, 255)),
        key=lambda color: min(math.dist(color, tone) for tone in tones),
    )


def _apart(color: Color, tones: list[Color]) -> bool:
    return all(math.dist(color, tone) > _LEAST_CONTRAST for tone in tones)


def _jitter(rng: random.Random, color: Color, step: float) -> Color:
    red, green, blue = (max(0, min(255, round(value + rng.uniform(-step, step)))) for value in color)
    return red, green, blue
