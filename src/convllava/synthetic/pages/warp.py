"""The way of a page to an image: rotation, resizing, light, blur, noise and JPEG."""

import math
import random
from functools import lru_cache
from io import BytesIO
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageChops, ImageFilter

from ...geometry import Box
from ..options import Size
from .ground import colorize, cut_texture
from .page import Color

_NOISE_LEVELS = (2, 4, 6, 9, 13, 18)
"""Standard deviations of the noise, of 255."""

_NOISE_SIDE = 1152

_MAX_DEGREES = 3.0


class Warp(NamedTuple):
    """An affine map from a page of ``source`` (height, width) to an image of ``target``.

    It rotates about the center by ``degrees`` counterclockwise and then stretches, with the filter ``resample``.
    """

    source: Size
    target: Size
    degrees: float = 0.0
    resample: Image.Resampling = Image.Resampling.BILINEAR

    @property
    def is_identity(self) -> bool:
        """Whether nothing moves."""
        return self.source == self.target and not self.degrees

    @property
    def inset(self) -> tuple[int, int]:
        """Pixels (vertical, horizontal) that the rotation may move out of the page."""
        height, width = self.source
        sin = abs(math.sin(math.radians(self.degrees)))
        return math.ceil(sin * width / 2), math.ceil(sin * height / 2)

    def point(self, x: float, y: float) -> tuple[float, float]:
        """Return where a point of the page is in the image."""
        (height, width), (new_height, new_width) = self.source, self.target
        cos, sin = math.cos(math.radians(self.degrees)), math.sin(math.radians(self.degrees))
        dx, dy = x - width / 2, y - height / 2
        turned = width / 2 + cos * dx + sin * dy, height / 2 - sin * dx + cos * dy
        return turned[0] * new_width / width, turned[1] * new_height / height

    def box(self, box: Box) -> Box:
        """Return the box around the corners of a box."""
        if self.is_identity:
            return box
        x0, y0, x1, y1 = box
        corners = [self.point(x, y) for x in (x0, x1) for y in (y0, y1)]
        xs, ys = zip(*corners, strict=True)
        height, width = self.target
        return max(0.0, min(xs)), max(0.0, min(ys)), min(float(width), max(xs)), min(float(height), max(ys))

    def image(self, image: Image.Image, fill: Color) -> Image.Image:
        """Return the warped image; corners without content are filled."""
        if self.is_identity:
            return image
        (height, width), (new_height, new_width) = self.source, self.target
        if not self.degrees:
            return image.resize((new_width, new_height), self.resample)
        cos, sin = math.cos(math.radians(self.degrees)), math.sin(math.radians(self.degrees))
        sx, sy = width / new_width, height / new_height
        inverse = (
            *(cos * sx, -sin * sy, width / 2 - cos * width / 2 + sin * height / 2),
            *(sin * sx, cos * sy, height / 2 - sin * width / 2 - cos * height / 2),
        )
        return image.transform(
            (new_width, new_height), Image.Transform.AFFINE, inverse, Image.Resampling.BILINEAR, fillcolor=fill
        )


def draw_warp(rng: random.Random, size: Size, noise: float) -> Warp:
    """Draw a warp to an image of ``size`` (height, width): mostly none; stretched, rotated or both."""
    height, width = size
    source = size
    if rng.random() < 0.4 * noise:
        scale = rng.uniform(0.85, 1.2)
        source = round(height * scale * rng.uniform(0.94, 1.06)), round(width * scale * rng.uniform(0.94, 1.06))
    degrees = 0.0
    if rng.random() < 0.16 * noise:
        most = min(_MAX_DEGREES, math.degrees(math.asin(min(1.0, 0.12 * min(size) / max(size)))))
        degrees = rng.uniform(-most, most)
    resample = Image.Resampling.BICUBIC if rng.random() < 0.4 else Image.Resampling.BILINEAR
    return Warp(source, size, degrees, resample)


def wear(image: Image.Image, rng: random.Random, noise: float) -> Image.Image:
    """Return an RGB image with shadows, blur, noise and JPEG artifacts, each at times."""
    if noise == 0:
        return image
    if rng.random() < 0.12 * noise:
        shade = cut_texture(rng, "clouds", (image.height, image.width))
        image = ImageChops.multiply(image, colorize(shade, (255, 255, 255), (150, 150, 150)))
    if rng.random() < 0.35 * noise:
        image = image.filter(ImageFilter.BoxBlur(rng.uniform(0.2, 0.35 + 0.45 * noise)))
    if rng.random() < 0.5 * noise:
        image = _add_noise(image, rng, noise)
    if rng.random() < 0.35 * noise:
        image = _through_jpeg(image, rng.randint(30, 92))
    return image


def _add_noise(image: Image.Image, rng: random.Random, noise: float) -> Image.Image:
    level = _NOISE_LEVELS[int(rng.random() ** 1.5 * len(_NOISE_LEVELS) * min(1.0, 0.3 + noise))]
    tile = _noise_tile(level, rng.random() < 0.6)
    if max(image.size) > tile.width:
        tile = tile.resize((max(image.size), max(image.size)))
    left, top = rng.randint(0, tile.width - image.width), rng.randint(0, tile.height - image.height)
    piece = tile.crop((left, top, left + image.width, top + image.height))
    return ImageChops.add(image, piece, 1.0, -128)


@lru_cache
def _noise_tile(level: int, gray: bool) -> Image.Image:
    generator = np.random.Generator(np.random.PCG64(level))
    shape = (_NOISE_SIDE, _NOISE_SIDE, 1 if gray else 3)
    values = np.clip(128.5 + level * generator.standard_normal(shape, dtype=np.float32), 0, 255).astype(np.uint8)
    return Image.fromarray(np.repeat(values, 3, axis=2) if gray else values)


def _through_jpeg(image: Image.Image, quality: int) -> Image.Image:
    buffer = BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer, formats=("JPEG",)).convert("RGB")
