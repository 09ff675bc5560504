"""Degradations of printed and photographed pages: colors, blur, noise, rotation, JPEG."""

import random
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageFilter

Color = tuple[int, int, int]

BLACK: Color = (0, 0, 0)
WHITE: Color = (255, 255, 255)


class Inks(NamedTuple):
    """The colors of a printed page."""

    paper: Color
    ink: Color


def draw_inks(rng: random.Random, noise: float) -> Inks:
    """Draw the colors of paper and ink: mostly dark on light, at times colored, faint or inverse.

    At noise 0 it is always black on white.
    """
    if rng.random() >= 0.3 + 0.7 * noise or noise == 0:
        return Inks(WHITE, BLACK)
    light = _near_gray(rng, rng.randint(190, 255), tint=30)
    # The eye needs a step in brightness, not in hue: at least 90 of 255 even in the faintest print.
    darkest = max(0, min(light) - 90)
    dark = _near_gray(rng, int(darkest * rng.random() ** 2), tint=60)
    return Inks(dark, light) if rng.random() < 0.2 * noise else Inks(light, dark)


def print_mask(mask: Image.Image, inks: Inks) -> Image.Image:
    """Color a drawing (mode L, 255 = ink) into an RGB image."""
    ink, paper = Image.new("RGB", mask.size, inks.ink), Image.new("RGB", mask.size, inks.paper)
    return Image.composite(ink, paper, mask)


def wear(image: Image.Image, rng: random.Random, noise: float) -> Image.Image:
    """Blur, speckle and compress an RGB image, each with a probability that grows with ``noise`` (0..1)."""
    if noise == 0:
        return image
    if rng.random() < 0.4 * noise:
        # At radii below a pixel a box looks like a Gaussian, at a third of the cost.
        image = image.filter(ImageFilter.BoxBlur(rng.uniform(0.2, 0.4 + 0.5 * noise)))
    if rng.random() < 0.8 * noise:
        image = _speckle(image, rng, rng.uniform(1, 24 * noise))
    if rng.random() < 0.2 * noise:
        image = _through_jpeg(image, rng.randint(35, 90))
    return image


def turn(mask: Image.Image, degrees: float) -> Image.Image:
    """Rotate a drawing (mode L) about its center."""
    return mask.rotate(degrees, Image.Resampling.BILINEAR)


@dataclass(frozen=True)
class _Tile:
    side: int
    values: np.ndarray


@lru_cache(maxsize=4)
def _noise_tile(side: int) -> _Tile:
    # Drawing normal numbers costs more than all other effects together, so a fixed field is cut at random.
    values = np.random.Generator(np.random.PCG64(side)).standard_normal((side, side), dtype=np.float32)
    return _Tile(side, values)


def _speckle(image: Image.Image, rng: random.Random, sigma: float) -> Image.Image:
    width, height = image.size
    tile = _noise_tile(512 if max(width, height) <= 512 else 2048 if max(width, height) <= 2048 else 4096)
    top, left = rng.randint(0, tile.side - height), rng.randint(0, tile.side - width)
    grain = (tile.values[top : top + height, left : left + width] * sigma).astype(np.int16)
    pixels = np.asarray(image, dtype=np.int16) + grain[:, :, None]
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def _through_jpeg(image: Image.Image, quality: int) -> Image.Image:
    buffer = BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer, formats=("JPEG",)).convert("RGB")


def _near_gray(rng: random.Random, level: int, tint: int) -> Color:
    red, green, blue = (max(0, min(255, level + rng.randint(-tint, tint) // 2)) for _ in range(3))
    return red, green, blue
