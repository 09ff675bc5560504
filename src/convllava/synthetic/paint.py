"""Painting of scenes: each shape is drawn large and scaled down, so that edges are smooth."""

import math
import random
from collections.abc import Callable
from dataclasses import replace

from PIL import Image, ImageDraw

from .effects import WHITE, Color, wear
from .objects import COLORS, Scene, SceneObject

_SCALE = 4
"""Factor by which a shape is drawn larger than in the image."""

_LEAST_CONTRAST = 110
"""Minimum distance in RGB between an object and the backdrop."""

_HALF_COVERED = [0] * 128 + [255] * 128
"""Table from coverage to ink: a pixel belongs to an object that covers at least half of it."""

Point = tuple[float, float]


def paint(rng: random.Random, scene: Scene, noise: float) -> tuple[Image.Image, Scene]:
    """Return the image (RGB) and the scene with each box tight around the object's pixels."""
    colors = [_jitter(rng, COLORS[item.color], noise) for item in scene.objects]
    image = _backdrop(rng, scene, colors, noise)
    objects = [_paint_object(image, item, color) for item, color in zip(scene.objects, colors, strict=True)]
    return wear(image, rng, noise), replace(scene, objects=tuple(objects))


def _paint_object(image: Image.Image, item: SceneObject, color: Color) -> SceneObject:
    side = round(item.side)
    mask = Image.new("L", (side * _SCALE, side * _SCALE))
    OUTLINES[item.shape](ImageDraw.Draw(mask), side * _SCALE, math.radians(item.degrees))
    mask = mask.reduce(_SCALE)
    x, y = round(item.box[0]), round(item.box[1])
    image.paste(color, (x, y), mask)
    ink = mask.point(_HALF_COVERED).getbbox()
    if ink is None:
        raise ValueError(f"a {item.shape} of {side} pixels has no ink: make the scene larger")
    return replace(item, box=(x + ink[0], y + ink[1], x + ink[2], y + ink[3]))


def _backdrop(rng: random.Random, scene: Scene, colors: list[Color], noise: float) -> Image.Image:
    height, width = scene.size
    first = _backdrop_color(rng, colors) if rng.random() < noise + 0.3 else WHITE
    image = Image.new("RGB", (width, height), first)
    if rng.random() < 0.4 * noise:
        second = _jitter(rng, first, 1.0)
        shade = Image.linear_gradient("L").rotate(rng.choice((0, 90, 180, 270))).resize((width, height))
        image.paste(second, (0, 0), shade)
    return image


def _backdrop_color(rng: random.Random, colors: list[Color]) -> Color:
    for _ in range(20):
        level = rng.choice((rng.randint(200, 255), rng.randint(200, 255), rng.randint(0, 255)))
        color = _jitter(rng, (level, level, level), 2.0)
        if all(math.dist(color, other) > _LEAST_CONTRAST for other in colors):
            return color
    return WHITE


def _jitter(rng: random.Random, color: Color, strength: float) -> Color:
    step = round(12 * strength)
    red, green, blue = (max(0, min(255, value + rng.randint(-step, step))) for value in color)
    return red, green, blue


def polygon(*points: Point) -> Callable[[ImageDraw.ImageDraw, int, float], None]:
    """Return a function that paints a polygon given on the square from -1 to 1, y downwards."""

    def draw(canvas: ImageDraw.ImageDraw, side: int, angle: float) -> None:
        cos, sin = math.cos(angle), math.sin(angle)
        # The corners must be on the canvas after the rotation.
        reach = max(max(abs(x * cos - y * sin), abs(x * sin + y * cos)) for x, y in points)
        scale = side / 2 / max(1.0, reach)
        turned = [(x * cos - y * sin, x * sin + y * cos) for x, y in points]
        canvas.polygon([((x * scale) + side / 2, (y * scale) + side / 2) for x, y in turned], fill=255)

    return draw


def _circle(canvas: ImageDraw.ImageDraw, side: int, angle: float) -> None:
    canvas.ellipse((0, 0, side - 1, side - 1), fill=255)


def _ring(canvas: ImageDraw.ImageDraw, side: int, angle: float) -> None:
    _circle(canvas, side, angle)
    canvas.ellipse((side * 0.28, side * 0.28, side * 0.72, side * 0.72), fill=0)


def _moon(canvas: ImageDraw.ImageDraw, side: int, angle: float) -> None:
    _circle(canvas, side, angle)
    x, y, reach = 0.5 + 0.27 * math.cos(angle), 0.5 + 0.27 * math.sin(angle), 0.42
    canvas.ellipse(tuple(side * end for end in (x - reach, y - reach, x + reach, y + reach)), fill=0)


def _star_points() -> list[Point]:
    radii = (1.0, 0.42) * 5
    return [(r * math.sin(math.pi * i / 5), -r * math.cos(math.pi * i / 5)) for i, r in enumerate(radii)]


def _heart_points() -> list[Point]:
    turns = [math.tau * step / 48 for step in range(48)]
    y = [13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t) for t in turns]
    return [(math.sin(t) ** 3, -(value + 2.5) / 14.5) for t, value in zip(turns, y, strict=True)]


def _drop_points() -> list[Point]:
    turns = [math.tau * step / 48 for step in range(48)]
    return [(0.85 * math.sin(t) * math.sin(t / 2), -math.cos(t)) for t in turns]


def _leaf_points() -> list[Point]:
    """Return a lens along the diagonal."""
    along = [step / 12 - 1 for step in range(25)]
    lens = [(x, 0.5 * (1 - x * x)) for x in along] + [(-x, -0.5 * (1 - x * x)) for x in along]
    return [(x - y, x + y) for x, y in lens]


def _flower_points() -> list[Point]:
    turns = [math.tau * step / 60 for step in range(60)]
    return [((0.7 + 0.3 * math.cos(5 * t)) * math.sin(t), -(0.7 + 0.3 * math.cos(5 * t)) * math.cos(t)) for t in turns]


def _bowl_points() -> list[Point]:
    turns = [math.pi * step / 24 for step in range(25)]
    return [(math.cos(t), math.sin(t) - 0.5) for t in turns]


def _mirrored(*points: Point) -> Callable[[ImageDraw.ImageDraw, int, float], None]:
    """Return a function that paints a symmetric polygon given by its right half from top to bottom."""
    return polygon(*points, *((-x, y) for x, y in reversed(points)))


_ARM = 0.34

OUTLINES: dict[str, Callable[[ImageDraw.ImageDraw, int, float], None]] = {
    "circle": _circle,
    "ring": _ring,
    "moon": _moon,
    "arrow": _mirrored((0, -1), (0.9, 0), (0.35, 0), (0.35, 1)),
    "house": _mirrored((0, -1), (0.9, -0.2), (0.9, 0.95)),
    "tree": _mirrored((0, -1), (0.55, -0.3), (0.3, -0.3), (0.85, 0.5), (0.18, 0.5), (0.18, 1)),
    "crown": _mirrored((0, -0.9), (0.45, 0), (1, -0.75), (0.8, 0.8)),
    "bottle": _mirrored((0.2, -1), (0.2, -0.45), (0.5, -0.1), (0.5, 1)),
    "bow": _mirrored((0, -0.15), (1, -0.75), (1, 0.75), (0, 0.15)),
    "flag": polygon((-0.8, -1), (0.9, -0.5), (-0.5, 0), (-0.5, 1), (-0.8, 1)),
    "fish": polygon(
        *((-1, 0), (-0.6, -0.4), (-0.1, -0.5), (0.4, -0.15), (1, -0.6)),
        *((0.8, 0), (1, 0.6), (0.4, 0.15), (-0.1, 0.5), (-0.6, 0.4)),
    ),
    "drop": polygon(*_drop_points()),
    "leaf": polygon(*_leaf_points()),
    "flower": polygon(*_flower_points()),
    "bowl": polygon(*_bowl_points()),
    "bolt": polygon((0.4, -1), (-0.8, 0.3), (-0.1, 0.3), (-0.4, 1), (0.8, -0.3), (0.1, -0.3)),
    "square": polygon((-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)),
    "triangle": polygon((0, -0.95), (1, 0.85), (-1, 0.85)),
    "diamond": polygon((0, -1), (0.75, 0), (0, 1), (-0.75, 0)),
    "star": polygon(*_star_points()),
    "heart": polygon(*_heart_points()),
    "cross": polygon(
        *((-_ARM, -1), (_ARM, -1), (_ARM, -_ARM), (1, -_ARM), (1, _ARM), (_ARM, _ARM)),
        *((_ARM, 1), (-_ARM, 1), (-_ARM, _ARM), (-1, _ARM), (-1, -_ARM), (-_ARM, -_ARM)),
    ),
}
