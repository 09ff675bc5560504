"""Text drawn from cached glyph sets: one numpy scatter for all characters of a page in one face and size.

A glyph set holds the ink of every character of a face at a size as lists of pixels. It is rendered once; a page then
costs one gather and one scatter for each set, whatever the number of its characters.
"""

from functools import lru_cache
from io import BytesIO
from math import ceil
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ...geometry import Box
from ..fonts import CHARACTERS, FONT_DIRECTORY

SIZES = (*range(12, 19), 20, 22, 24, 27, 30, 34, 38, 43, 48, 56, 66, 80, 96)
"""Sizes in pixels per em that text is drawn in: few enough that most glyph sets are in the cache."""

_INDEX = np.zeros(256, dtype=np.intp)
_INDEX[np.frombuffer(CHARACTERS.encode("cp1252"), dtype=np.uint8)] = np.arange(len(CHARACTERS))

_FAR = 1 << 20
"""Edge of a character without ink."""

_FAINTEST = 10
"""Coverage (of 255) below which a pixel of a glyph is left out."""

_PADDING = 0.5
"""Room at each side of a glyph while it is rendered, in ems; slanted letters overhang their advance."""


class Style(NamedTuple):
    """A variant of a face that is made from its regular cut.

    Attributes:
        slant: Horizontal shear, 0 for upright.
        width: Horizontal scale, below 1 for condensed.
        weight: Thickness added at each side of a stroke, in ems.
        smooth: Whether outlines are drawn without hinting and with fractional advances, as in a PDF viewer.
    """

    slant: float = 0.0
    width: float = 1.0
    weight: float = 0.0
    smooth: bool = False


PLAIN = Style()


class GlyphSet:
    """The characters of a face in one style and size.

    Attributes:
        size: Pixels per em.
        advance: Advance of each character in pixels, float (97,).
        edges: Ink of each character relative to its origin on the baseline, int (4, 97): left, top, right, bottom.
        ascent: Pixels from the highest ink to the baseline.
        descent: Pixels from the baseline to the lowest ink.
    """

    def __init__(self, face: str, style: Style, size: int) -> None:
        self.size = size
        strip, origins, baseline, self.advance = _render(face, style, size)
        turned = np.ascontiguousarray(strip.T)
        inked = np.flatnonzero(turned > _FAINTEST)
        columns, rows = np.divmod(inked, strip.shape[0])
        owner = np.searchsorted(origins - ceil(_PADDING * size), columns, side="right") - 1
        self._value = turned.reshape(-1)[inked]
        self._dx = (columns - origins[owner]).astype(np.int16)
        self._dy = (rows - baseline).astype(np.int16)
        self._count = np.bincount(owner, minlength=len(origins))
        self._start = np.cumsum(self._count) - self._count
        self.edges = self._find_edges()
        self.ascent, self.descent = -int(self.edges[1].min()), int(self.edges[3].max())
        self._width_of = dict(zip(CHARACTERS, self.advance.tolist(), strict=True))

    def _find_edges(self) -> np.ndarray:  # -> (4, 97)
        # A character without ink has edges that leave every minimum and maximum as it is.
        edges = np.repeat(np.array([[_FAR], [_FAR], [-_FAR], [-_FAR]]), len(self._count), axis=1)
        inked = np.flatnonzero(self._count)
        starts = self._start[inked]
        edges[0, inked] = np.minimum.reduceat(self._dx, starts)
        edges[1, inked] = np.minimum.reduceat(self._dy, starts)
        edges[2, inked] = np.maximum.reduceat(self._dx, starts) + 1
        edges[3, inked] = np.maximum.reduceat(self._dy, starts) + 1
        return edges

    def codes(self, text: str) -> np.ndarray:  # -> (characters,)
        """Return the index of each character.

        Raises:
            UnicodeEncodeError: A character is not one of ``CHARACTERS``.
        """
        return _INDEX[np.frombuffer(text.encode("cp1252"), dtype=np.uint8)]

    def width(self, text: str) -> float:
        """Return the advance of a text in pixels.

        Raises:
            KeyError: A character is not one of ``CHARACTERS``.
        """
        return sum(map(self._width_of.__getitem__, text))

    def offsets(self, codes: np.ndarray, spacing: float = 0.0) -> np.ndarray:  # -> (characters + 1,)
        """Return where each character begins and where the last ends, in pixels from the start of the text."""
        found = np.zeros(len(codes) + 1)
        np.cumsum(self.advance[codes] + spacing, out=found[1:])
        return found

    def ink(self, codes: np.ndarray, x: np.ndarray, baseline: int) -> Box:
        """Return the box of the ink of characters whose origins are at ``x`` (characters,), whole pixels."""
        left, top, right, bottom = self.edges[:, codes]
        if not len(x) or right.max() == -_FAR:
            return 0.0, 0.0, 0.0, 0.0
        ends = int((x + left).min()), int((x + right).max())
        return ends[0], baseline + int(top.min()), ends[1], baseline + int(bottom.max())

    def draw(self, mask: np.ndarray, codes: np.ndarray, x: np.ndarray, baselines: np.ndarray) -> None:
        """Draw characters onto a mask (H, W), 255 = ink; the origin of each is at ``x`` on its baseline."""
        flat, width = mask.reshape(-1), mask.shape[1]
        # Letters that touch share pixels, and numpy keeps the last of equal indices: neighbors go in separate passes.
        for parity in (0, 1):
            chosen = codes[parity::2]
            count = self._count[chosen]
            ends = np.cumsum(count)
            if not len(ends) or not ends[-1]:
                continue
            source = np.arange(ends[-1]) + np.repeat(self._start[chosen] - ends + count, count)
            origin = baselines[parity::2].astype(np.int64) * width + x[parity::2]
            target = np.repeat(origin, count) + self._dy[source].astype(np.int32) * width + self._dx[source]
            flat[target] = np.maximum(flat[target], self._value[source])


@lru_cache(maxsize=5000)
def glyph_set(face: str, style: Style, size: int) -> GlyphSet:
    """Return the glyphs of a face in a style and a size of ``SIZES``."""
    return GlyphSet(face, style, size)


def nearest_size(size: float) -> int:
    """Return the entry of ``SIZES`` that is nearest."""
    return min(SIZES, key=lambda known: abs(known - size))


@lru_cache
def _font_bytes(name: str) -> bytes:
    return (FONT_DIRECTORY / f"{name}.ttf").read_bytes()


def _render(face: str, style: Style, size: int) -> tuple[np.ndarray, np.ndarray, int, np.ndarray]:
    """Return all characters side by side (H, W), the x of each origin, the baseline's y and the advances."""
    scale = 1 if style == PLAIN else 3 if size <= 24 else 2
    font = ImageFont.truetype(BytesIO(_font_bytes(face)), size * scale, layout_engine=ImageFont.Layout.BASIC)
    stroke = round(style.weight * size * scale)
    lengths = np.array([font.getlength(character) for character in CHARACTERS])
    advance = (lengths + stroke) * style.width / scale
    # One call draws all characters with wide gaps: a call for each takes four times as long.
    gap = " " * ceil(2 * _PADDING * size * scale / style.width / lengths[0])
    pitch = lengths + len(gap) * lengths[0]
    starts = np.cumsum(pitch) - pitch + _PADDING * size * scale / style.width
    above, below = ceil(1.2 * size), ceil(0.5 * size)
    width = ceil((starts[-1] + pitch[-1]) * style.width / scale)
    strip = Image.new("L", (round(width * scale / style.width), (above + below) * scale))
    place = (round(starts[0]) + stroke / 2, above * scale)
    ImageDraw.Draw(strip).text(place, gap.join(CHARACTERS), 255, font, "ls", stroke_width=stroke)
    if scale > 1:
        sheared = _shear(np.array(strip), style.slant / style.width, above * scale)
        strip = Image.fromarray(sheared).resize((width, above + below), Image.Resampling.BOX)
    if not style.smooth:
        advance = np.round(advance)
    origins = np.rint((starts - starts[0] + round(starts[0])) * style.width / scale).astype(int)
    return np.asarray(strip), origins, above, advance


def _shear(strip: np.ndarray, slant: float, baseline: int) -> np.ndarray:  # (H, W) -> (H, W)
    """Move each row to the right by ``slant`` times its height above the baseline, in place."""
    for row in range(len(strip) if slant else 0):
        shift = round(slant * (baseline - row))
        if shift:
            strip[row] = np.roll(strip[row], shift)
    return strip
