"""Choice, size and place of the shapes of a scene."""

import random
from dataclasses import dataclass
from functools import lru_cache

from ...geometry import Box
from ..effects import Color
from ..objects import Pair, SceneObject
from ..options import Size
from ..seeding import stable_hash

COLORS: dict[str, tuple[Color, ...]] = {
    "red": ((255, 0, 0), (218, 38, 42), (200, 30, 30), (230, 60, 50)),
    "orange": ((255, 165, 0), (255, 140, 0), (246, 138, 24)),
    "yellow": ((255, 255, 0), (246, 220, 48), (255, 215, 0)),
    "green": ((0, 128, 0), (44, 156, 72), (0, 180, 0), (34, 139, 34), (0, 255, 0), (0, 200, 0)),
    "blue": ((0, 0, 255), (44, 88, 212), (30, 60, 200), (30, 100, 220)),
    "purple": ((128, 0, 128), (132, 52, 172), (110, 40, 160)),
    "pink": ((255, 192, 203), (246, 150, 192), (255, 105, 180)),
    "brown": ((165, 42, 42), (122, 74, 40), (139, 69, 19)),
    "gray": ((128, 128, 128), (140, 142, 146), (110, 110, 110), (169, 169, 169)),
    "black": ((0, 0, 0), (24, 24, 28)),
    "white": ((255, 255, 255), (248, 248, 246)),
    "cyan": ((0, 255, 255), (0, 220, 230)),
    "teal": ((0, 128, 128), (24, 150, 150)),
    "navy": ((0, 0, 128), (24, 36, 110)),
    "magenta": ((255, 0, 255), (214, 30, 150)),
    "lime": ((160, 224, 40), (191, 255, 0)),
    "maroon": ((128, 0, 0), (116, 12, 44)),
    "olive": ((128, 128, 0), (128, 128, 24)),
}
"""Every color with the tones that it is painted in."""

SHAPES: dict[str, str] = {
    "circle": "circles",
    "square": "squares",
    "triangle": "triangles",
    "rectangle": "rectangles",
    "ellipse": "ellipses",
    "star": "stars",
    "diamond": "diamonds",
    "cross": "crosses",
    "heart": "hearts",
    "ring": "rings",
    "pentagon": "pentagons",
    "hexagon": "hexagons",
    "arrow": "arrows",
    "moon": "moons",
    "house": "houses",
    "bolt": "bolts",
    "flag": "flags",
    "crown": "crowns",
    "tree": "trees",
    "fish": "fish",
    "drop": "drops",
    "leaf": "leaves",
    "flower": "flowers",
    "bottle": "bottles",
    "bowl": "bowls",
    "bow": "bows",
}
"""Every shape with its plural."""

PLAIN_SHAPES = ("circle", "square", "triangle", "rectangle", "ellipse")
PLAIN_COLORS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "gray", "black", "white")

OTHER_NAMES = {"ellipse": "oval", "ring": "donut", "moon": "crescent", "bolt": "lightning bolt"}
"""Names that some questions use instead."""

STRETCHED = {"rectangle": (1.35, 3.0), "ellipse": (1.3, 2.6)}
"""Ratio of the longer to the shorter side of shapes that are never as wide as high."""

_GAP = 4
"""Minimum pixels between two objects, and between an object and the edge."""

SMALLEST = 16
"""Side in pixels below which shapes are hard to distinguish."""

_ATTEMPTS = 20

_LACKED_SHARE = 10
"""One pair of color and shape in ten is in no training scene."""


@dataclass(frozen=True)
class Drawn(SceneObject):
    """A shape with the number of pixels that it covers."""

    pixels: int = 0

    @property
    def area(self) -> float:
        """Number of pixels that it covers."""
        return float(self.pixels)


@lru_cache
def pairs_of(split: str, plain: bool) -> tuple[Pair, ...]:
    """Return the pairs of color and shape of a split: training lacks some, held-out scenes use all of them."""
    colors, shapes = (PLAIN_COLORS, PLAIN_SHAPES) if plain else (tuple(COLORS), tuple(SHAPES))
    pairs = [(color, shape) for color in colors for shape in shapes]
    return tuple(pair for pair in pairs if split == "heldout" or stable_hash("lacked", *pair) % _LACKED_SHARE)


def arrange(rng: random.Random, size: Size, pairs: tuple[Pair, ...], most: int) -> list[Drawn]:
    """Place 1 to ``most`` shapes without overlap: anywhere, in a row, in a column or on a grid."""
    count = rng.randint(1, most)
    few = rng.sample(pairs, min(len(pairs), rng.randint(1, count) if rng.random() < 0.6 else count))
    chosen = [rng.choice(few) for _ in range(count)]
    found = _on_grid(rng, size, chosen) if rng.random() < 0.3 else _anywhere(rng, size, chosen)
    return found or _anywhere(rng, size, chosen[:1]) or [_in_the_middle(rng, size, chosen[0])]


def _anywhere(rng: random.Random, size: Size, chosen: list[Pair]) -> list[Drawn]:
    height, width = size
    span = _sides(rng, min(size), len(chosen))
    common = rng.uniform(*span) if rng.random() < 0.2 else None
    objects: list[Drawn] = []
    for color, shape in chosen:
        side = common or rng.uniform(*span)
        across, down = _extent(rng, shape, side)
        if across > width - 2 * _GAP or down > height - 2 * _GAP:
            across = down = min(across, down)
            if shape in STRETCHED:
                continue
        for _ in range(_ATTEMPTS):
            x = _GAP + int(rng.random() * (width - across - 2 * _GAP + 1))
            y = _GAP + int(rng.random() * (height - down - 2 * _GAP + 1))
            box = (x, y, x + across, y + down)
            if not any(_near(box, other.box) for other in objects):
                objects.append(Drawn(color, shape, side > sum(span) / 2, 0.0, box))
                break
    return objects


def _on_grid(rng: random.Random, size: Size, chosen: list[Pair]) -> list[Drawn]:
    """Place shapes at equal distances, all of about one size."""
    height, width = size
    rows = max(1, min(len(chosen), round((len(chosen) * height / width) ** 0.5)))
    columns = -(-len(chosen) // rows)
    room = min(height / rows, width / columns)
    side = rng.uniform(0.35, 0.85) * (room - 2 * _GAP)
    if side < SMALLEST:
        return []
    objects = []
    for index, (color, shape) in enumerate(chosen):
        row, column = divmod(index, columns)
        across, down = _extent(rng, shape, side)
        if max(across, down) > room - _GAP:
            across, down = (int(value * side / max(across, down)) for value in (across, down))
        x = int((column + 0.5) * width / columns - across / 2)
        y = int((row + 0.5) * height / rows - down / 2)
        objects.append(Drawn(color, shape, False, 0.0, (x, y, x + across, y + down)))
    return objects


def _in_the_middle(rng: random.Random, size: Size, pair: Pair) -> Drawn:
    height, width = size
    side = min(height, width) // 2
    shape = pair[1] if pair[1] not in STRETCHED else "circle"
    x, y = (width - side) // 2, (height - side) // 2
    return Drawn(pair[0], shape, True, 0.0, (x, y, x + side, y + side))


def _sides(rng: random.Random, shorter: int, count: int) -> tuple[float, float]:
    """Draw the range of sides in pixels: small, medium, large or all sizes in one scene."""
    most = shorter - 2 * _GAP
    largest = max(SMALLEST, min(most, shorter * (0.85 if count == 1 else 0.6 if count < 4 else 0.42)))
    low, high = rng.choice(((0.0, 0.3), (0.15, 0.5), (0.4, 1.0), (0.0, 1.0), (0.1, 0.7)))
    span = largest - SMALLEST
    return SMALLEST + low * span, SMALLEST + max(high * span, 2)


def _extent(rng: random.Random, shape: str, side: float) -> tuple[int, int]:
    """Return width and height of a shape whose longer side is about ``side`` pixels."""
    if shape in STRETCHED:
        ratio = rng.uniform(*STRETCHED[shape])
        shorter = max(10.0, side / ratio**0.5)
        longer = shorter * ratio
        return (round(longer), round(shorter)) if rng.random() < 0.7 else (round(shorter), round(longer))
    if shape in ("triangle", "diamond", "heart", "arrow", "house") and rng.random() < 0.25:
        return round(side), max(SMALLEST, round(side * rng.uniform(0.7, 1.0)))
    return round(side), round(side)


def _near(a: Box, b: Box) -> bool:
    return a[0] < b[2] + _GAP and b[0] < a[2] + _GAP and a[1] < b[3] + _GAP and b[1] < a[3] + _GAP
