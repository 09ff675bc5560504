"""A scene as data: colored shapes without overlap, before painting."""

import random
import string
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from ..geometry import Box, box_to_square
from .effects import Color
from .options import Size
from .positions import Mark
from .seeding import split_of

_BASIC_COLORS: dict[str, Color] = {
    "red": (218, 38, 42),
    "orange": (246, 138, 24),
    "yellow": (246, 220, 48),
    "green": (44, 156, 72),
    "blue": (44, 88, 212),
    "purple": (132, 52, 172),
    "pink": (246, 150, 192),
    "brown": (122, 74, 40),
    "grey": (140, 142, 146),
    "black": (24, 24, 28),
}

_MORE_COLORS: dict[str, Color] = {
    "teal": (24, 150, 150),
    "navy": (24, 36, 110),
    "olive": (128, 128, 24),
    "tan": (206, 172, 126),
    "lime": (160, 224, 40),
    "magenta": (214, 30, 150),
    "maroon": (116, 12, 44),
    "turquoise": (70, 220, 210),
    "lavender": (176, 156, 232),
    "azure": (104, 176, 246),
    "mint": (152, 232, 176),
}

COLORS = _BASIC_COLORS | _MORE_COLORS

_BASIC_SHAPES: dict[str, str] = {
    "circle": "circles",
    "square": "squares",
    "triangle": "triangles",
    "star": "stars",
    "diamond": "diamonds",
    "cross": "crosses",
    "heart": "hearts",
    "ring": "rings",
}

_MORE_SHAPES: dict[str, str] = {
    "arrow": "arrows",
    "house": "houses",
    "bolt": "bolts",
    "moon": "moons",
    "bow": "bows",
    "flag": "flags",
    "crown": "crowns",
    "tree": "trees",
    "fish": "fish",
    "drop": "drops",
    "leaf": "leaves",
    "flower": "flowers",
    "bottle": "bottles",
    "bowl": "bowls",
}

SHAPES = _BASIC_SHAPES | _MORE_SHAPES
"""Every shape with its plural."""

_WIDER = {*_MORE_COLORS, *_MORE_SHAPES}
"""Colors and shapes that only the option ``wider`` uses: no held-out benchmark has them."""

_COVERAGE = {
    "circle": 0.79,
    "square": 0.81,
    "triangle": 0.45,
    "star": 0.31,
    "diamond": 0.38,
    "cross": 0.56,
    "heart": 0.56,
    "ring": 0.63,
    "arrow": 0.4,
    "house": 0.7,
    "bolt": 0.22,
    "moon": 0.37,
    "bow": 0.45,
    "flag": 0.31,
    "crown": 0.53,
    "tree": 0.38,
    "fish": 0.32,
    "drop": 0.45,
    "leaf": 0.67,
    "flower": 0.42,
    "bottle": 0.39,
    "bowl": 0.39,
}
"""Share of its box's square that each shape fills."""

_GAP = 4
"""Minimum pixels between two objects, and between an object and the edge."""

_SMALLEST = 24
"""Side in pixels below which shapes are hard to distinguish."""

_ATTEMPTS = 20

_LETTERS = string.ascii_uppercase + string.ascii_lowercase


Pair = tuple[str, str]
"""A color and a shape."""


@dataclass(frozen=True)
class SceneObject:
    """One colored shape.

    Attributes:
        color: A key of ``COLORS``.
        shape: A key of ``SHAPES``.
        large: Whether it was drawn from the range of large sides.
        degrees: Rotation.
        box: The box that its ink stays within, in whole pixels.
    """

    color: str
    shape: str
    large: bool
    degrees: float
    box: Box

    @property
    def name(self) -> str:
        """Color and shape, such as ``red circle``."""
        return f"{self.color} {self.shape}"

    @property
    def side(self) -> float:
        """Width or height, whichever is larger, in pixels."""
        return max(self.box[2] - self.box[0], self.box[3] - self.box[1])

    @property
    def area(self) -> float:
        """Approximate number of pixels that it covers."""
        return _COVERAGE[self.shape] * self.side**2

    @property
    def center(self) -> tuple[float, float]:
        """Middle of the box, (x, y) in pixels."""
        return (self.box[0] + self.box[2]) / 2, (self.box[1] + self.box[3]) / 2


@dataclass(frozen=True)
class Scene:
    """Objects from left to right on an image of ``size`` (height, width)."""

    size: Size
    objects: tuple[SceneObject, ...]


@lru_cache
def combinations(split: str, wider: bool = False) -> tuple[Pair, ...]:
    """Return the pairs of a split: training lacks some, held-out scenes use all of them.

    For a pair that training lacks, a model must combine its knowledge of the color and of the shape. With ``wider``
    there are more colors and shapes, and all pairs with one of these, so each occurs in more combinations.
    """
    pairs = [(color, shape) for color in COLORS for shape in SHAPES]
    basic = [pair for pair in pairs if not _WIDER & {*pair} and (split == "heldout" or _is_trained(pair))]
    return tuple(basic + [pair for pair in pairs if _WIDER & {*pair}] if wider else basic)


def _is_trained(pair: Pair) -> bool:
    return split_of(" ".join(pair)) == "train"


def lay_out(rng: random.Random, size: Size, pairs: Sequence[Pair], most: int) -> Scene:
    """Place 1 to ``most`` objects of these pairs; an object without room is left out."""
    count = rng.randint(1, most)
    # Few pairs give several equal objects, which counting and relations need.
    few = rng.sample(pairs, rng.randint(1, count))
    objects: list[SceneObject] = []
    for _ in range(count):
        item = _place(rng, size, rng.choice(few), objects)
        if item is not None:
            objects.append(item)
    return Scene(size, tuple(sorted(objects, key=lambda item: item.center)))


def marks(scene: Scene) -> list[list[Mark]]:
    """Return one line for each object: four letters and its name, such as "FKPO red circle".

    The letters encode its box (x0, y0, x1, y1) on the padded square in steps of one 52nd from ``A`` to ``z``.
    """
    height, width = scene.size
    lines = []
    for item in scene.objects:
        box = box_to_square(item.box, width, height)
        letters = "".join(_LETTERS[min(max(int(value * len(_LETTERS)), 0), len(_LETTERS) - 1)] for value in box)
        lines.append([Mark(f"{letters} {item.name}", *item.center)])
    return lines


def _place(rng: random.Random, size: Size, pair: Pair, others: list[SceneObject]) -> SceneObject | None:
    height, width = size
    large = rng.random() < 0.4
    side = _side(rng, min(size), large)
    columns, rows = width - side - 2 * _GAP + 1, height - side - 2 * _GAP + 1
    for _ in range(_ATTEMPTS):
        x, y = _GAP + int(rng.random() * columns), _GAP + int(rng.random() * rows)
        box = (x, y, x + side, y + side)
        if not any(_near(box, other.box) for other in others):
            return SceneObject(*pair, large, rng.uniform(-8, 8), box)
    return None


def _side(rng: random.Random, shorter: int, large: bool) -> int:
    least, most = (0.34, 0.42) if large else (0.19, 0.25)
    return max(_SMALLEST, round(rng.uniform(least, most) * shorter))


def _near(a: Box, b: Box) -> bool:
    return a[0] < b[2] + _GAP and b[0] < a[2] + _GAP and a[1] < b[3] + _GAP and b[1] < a[3] + _GAP
