"""Colors and grounds of pages: plain, shaded, textured or like a photo."""

import colorsys
import random
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageChops, ImageOps

from ..effects import BLACK, WHITE, Color
from ..options import Size

_TILE = 1152
"""Side of a texture in pixels, at least that of the largest page."""

_BILINEAR = Image.Resampling.BILINEAR

_LEAST_STEP = 90
"""Minimum difference in brightness between ink and paper, of 255."""


class Palette(NamedTuple):
    """Colors of a page.

    Attributes:
        paper: Color of the ground.
        shade: Second color of a ground that is not plain.
        ground: ``plain``, ``gradient`` or the name of a texture.
        ink: Color of text.
        accent: Color of headings and filled panels.
        faint: Color of notes.
        line: Color of rules.
        tint: Color of panels that text in ``ink`` stands on.
        on_accent: Color of text on ``accent``.
    """

    paper: Color
    shade: Color
    ground: str
    ink: Color
    accent: Color
    faint: Color
    line: Color
    tint: Color
    on_accent: Color


def draw_palette(rng: random.Random, noise: float) -> Palette:
    """Draw colors: half of all pages are black or nearly black on white or nearly white."""
    kind = rng.random()
    if kind < 0.3 or noise == 0:
        paper, ink, ground = WHITE, BLACK, "plain"
    elif kind < 0.36:
        return _vivid(rng)
    else:
        dark = rng.random() < 0.16
        paper = _color(rng, rng.randint(0, 90) if dark else rng.randint(205, 255), 0.6 if dark else 0.25)
        kind = rng.random()
        ground = "plain" if kind < 0.7 else "gradient" if kind < 0.78 else rng.choice(tuple(_TEXTURES))
        ink = _ink_for(rng, paper)
    light = brightness(paper) > 127
    shade = _shifted(paper, rng.randint(-38, 12) if light else rng.randint(-12, 38))
    accent = _color(rng, rng.randint(30, 110) if light else rng.randint(170, 255), 0.8)
    tint = _shifted(paper, -rng.randint(8, 30) if light else rng.randint(8, 30))
    faint = ink if rng.random() < 0.6 else _mix(ink, paper, rng.uniform(0, 0.3))
    line = _mix(ink, paper, rng.choice((0.0, 0.0, 0.3, 0.5, 0.7)))
    return Palette(paper, shade, ground, ink, accent, faint, line, tint, WHITE if light else BLACK)


def _vivid(rng: random.Random) -> Palette:
    """Return the colors of a sign: white, black or yellow on a full color."""
    paper = rng.choice(_SIGN_COLORS)
    inks = [ink for ink in (WHITE, BLACK, (255, 230, 0)) if abs(brightness(ink) - brightness(paper)) > _LEAST_STEP]
    ink = rng.choice(inks)
    tint = _shifted(paper, 20 if brightness(ink) < brightness(paper) else -20)
    on_ink = BLACK if brightness(ink) > 127 else WHITE
    return Palette(paper, _shifted(paper, -25), "plain", ink, ink, ink, ink, tint, on_ink)


_SIGN_COLORS = (
    *((200, 0, 0), (220, 20, 30), (0, 90, 180), (0, 60, 140), (0, 128, 0), (0, 110, 60), (255, 200, 0), (255, 255, 0)),
    *((255, 140, 0), (90, 40, 120), (120, 70, 30), (30, 30, 30), (0, 130, 130), (173, 216, 230), (211, 211, 211)),
)


def brightness(color: Color) -> float:
    """Return the brightness of a color, from 0 to 255."""
    return 0.3 * color[0] + 0.59 * color[1] + 0.11 * color[2]


def draw_ground(rng: random.Random, palette: Palette, size: Size) -> Image.Image:
    """Return the empty page (RGB) of ``size`` (height, width)."""
    height, width = size
    if palette.ground == "plain":
        return Image.new("RGB", (width, height), palette.paper)
    if palette.ground == "gradient":
        gray = Image.linear_gradient("L").rotate(rng.choice((0, 90, 180, 270))).resize((width, height), _BILINEAR)
    else:
        gray = cut_texture(rng, palette.ground, size)
    return colorize(gray, palette.paper, palette.shade)


def cut_texture(rng: random.Random, name: str, size: Size) -> Image.Image:
    """Return a random piece of a texture (mode L) of ``size`` (height, width)."""
    height, width = size
    texture = _texture(name)
    if max(size) > _TILE:
        texture = texture.resize((max(size), max(size)))
    left, top = rng.randint(0, texture.width - width), rng.randint(0, texture.height - height)
    piece = texture.crop((left, top, left + width, top + height))
    return ImageOps.mirror(piece) if rng.random() < 0.5 else piece


def colorize(gray: Image.Image, dark: Color, light: Color) -> Image.Image:
    """Return a gray image in colors between that of black and that of white."""
    colored = gray.copy()
    colored.putpalette(np.linspace(dark, light, 256).round().astype(np.uint8).tobytes())
    return colored.convert("RGB")


def photo_like(rng: random.Random, size: Size) -> Image.Image:
    """Return a ground (RGB) like an unsharp photo of a table, a wall or a room, of ``size`` (height, width)."""
    first = _color(rng, rng.randint(10, 240), 0.7)
    gray = cut_texture(rng, rng.choice(tuple(_TEXTURES)), size)
    image = colorize(gray, first, _color(rng, rng.randint(10, 240), 0.7))
    if rng.random() < 0.5:
        other = cut_texture(rng, "clouds", size)
        tint = colorize(other, _color(rng, rng.randint(60, 255), 0.5), WHITE)
        image = ImageChops.multiply(image, tint)
    return image


def _ink_for(rng: random.Random, paper: Color) -> Color:
    light = brightness(paper)
    span = light - _LEAST_STEP if light > 127 else 255 - light - _LEAST_STEP
    step = int(max(0, span) * rng.random() ** 2.5)
    level = step if light > 127 else 255 - step
    return _color(rng, level, rng.choice((0, 0, 0, 0.6, 0.9)))


def _color(rng: random.Random, level: int, saturation: float) -> Color:
    """Draw a color of about that brightness."""
    red, green, blue = colorsys.hsv_to_rgb(rng.random(), saturation * rng.random(), 1.0)
    scale = level / max(1e-6, brightness((red, green, blue)))  # type: ignore[arg-type]
    return _clip(red * scale, green * scale, blue * scale)


def _shifted(color: Color, step: int) -> Color:
    return _clip(*(value + step for value in color))


def _mix(first: Color, second: Color, share: float) -> Color:
    return _clip(*(a + share * (b - a) for a, b in zip(first, second, strict=True)))


def _clip(red: float, green: float, blue: float) -> Color:
    return tuple(max(0, min(255, round(value))) for value in (red, green, blue))  # type: ignore[return-value]


def _clouds(rng: np.random.Generator, octaves: tuple[int, ...]) -> np.ndarray:  # -> (_TILE, _TILE), 0..1
    total = np.zeros((_TILE, _TILE), dtype=np.float32)
    for octave in octaves:
        small = Image.fromarray(rng.random((octave, octave), dtype=np.float32))
        total += np.asarray(small.resize((_TILE, _TILE), Image.Resampling.BICUBIC)) / octave**0.7
    total -= total.min()
    return total / total.max()


def _wood(rng: np.random.Generator) -> np.ndarray:
    warp = _clouds(rng, (3, 7))
    rows = np.linspace(0, 40, _TILE, dtype=np.float32)[:, None]
    return 0.5 + 0.5 * np.sin(rows + 14 * warp) * (0.6 + 0.4 * _clouds(rng, (2, 40)))


def _weave(rng: np.random.Generator) -> np.ndarray:
    waves = np.sin(np.arange(_TILE, dtype=np.float32) * 1.3)
    return 0.5 + 0.25 * waves[:, None] + 0.25 * waves[None, :] * _clouds(rng, (5, 9))


def _grain(rng: np.random.Generator) -> np.ndarray:
    return np.clip(0.5 + 0.2 * rng.standard_normal((_TILE, _TILE), dtype=np.float32), 0, 1)


def _stripes(rng: np.random.Generator) -> np.ndarray:
    across = np.arange(_TILE)[None, :] + np.arange(_TILE)[:, None]
    return ((across // 24) % 2).astype(np.float32)


def _bokeh(rng: np.random.Generator) -> np.ndarray:
    side = _TILE // 8
    field = np.zeros((side, side), dtype=np.float32)
    y, x = np.mgrid[:side, :side]
    for _ in range(70):
        radius, light = rng.uniform(3, 16), rng.uniform(0.1, 0.6)
        field[(x - rng.uniform(0, side)) ** 2 + (y - rng.uniform(0, side)) ** 2 < radius**2] += light
    big = np.asarray(Image.fromarray(field).resize((_TILE, _TILE), Image.Resampling.BICUBIC))
    return np.clip(big, 0, 1)


_TEXTURES = {
    "clouds": lambda rng: _clouds(rng, (2, 4, 9)),
    "crumpled": lambda rng: np.abs(2 * _clouds(rng, (4, 11, 30)) - 1),
    "paper": lambda rng: _clouds(rng, (3, 90, 400)),
    "wood": _wood,
    "weave": _weave,
    "grain": _grain,
    "stripes": _stripes,
    "bokeh": _bokeh,
}
"""Makers of textures (_TILE, _TILE) with values from 0 to 1."""


@lru_cache
def _texture(name: str) -> Image.Image:
    values = _TEXTURES[name](np.random.Generator(np.random.PCG64(len(name))))
    return Image.fromarray((255 * np.clip(values, 0, 1)).astype(np.uint8))
