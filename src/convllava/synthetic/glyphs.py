"""Drawing text from cached glyphs.

Rendering outlines is the most expensive part of drawing text, and a training run needs hundreds of images a second
from the cores it trains on. Every glyph is therefore rendered once per face and size, and text is composed of these.
The bundled faces advance by whole pixels and have no kerning, so the result equals that of the font engine.
"""

from functools import lru_cache
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont

from .fonts import load_font

PixelBox = tuple[int, int, int, int]


class _Glyph(NamedTuple):
    """A character's ink (mode L; None for a space), its box relative to the pen, and the advance of the pen."""

    ink: Image.Image | None
    box: PixelBox
    advance: int


class _Glyphs(dict[str, _Glyph]):
    """The glyphs of a face at a size, rendered on first use."""

    def __init__(self, name: str, size: int) -> None:
        super().__init__()
        self.font = load_font(name, size)

    def __missing__(self, character: str) -> _Glyph:
        glyph = self[character] = _render(self.font, character)
        return glyph


def text_width(name: str, size: int, text: str) -> int:
    """Return the advance of a line of text in pixels."""
    glyphs = _glyphs(name, size)
    return sum(glyphs[character].advance for character in text)


def ink_box(name: str, size: int, text: str, origin: tuple[int, int] = (0, 0)) -> PixelBox:
    """Return the box of a text's ink, in pixels, when its line begins with its top left at ``origin``."""
    x, y = origin
    boxes = []
    glyphs = _glyphs(name, size)
    for character in text:
        glyph = glyphs[character]
        if glyph.ink is not None:
            left, top, right, bottom = glyph.box
            boxes.append((x + left, y + top, x + right, y + bottom))
        x += glyph.advance
    if not boxes:
        raise ValueError(f"{text!r} has no ink: give a text with a visible character")
    lefts, tops, rights, bottoms = zip(*boxes, strict=True)
    return min(lefts), min(tops), max(rights), max(bottoms)


def middles(name: str, size: int, text: str, x: float) -> list[float]:
    """Return the x coordinate of each character's center in pixels, for a line that begins at ``x``."""
    found = []
    glyphs = _glyphs(name, size)
    for character in text:
        advance = glyphs[character].advance
        found.append(x + advance / 2)
        x += advance
    return found


def draw_text(mask: Image.Image, origin: tuple[int, int], text: str, name: str, size: int) -> None:
    """Draw text onto a mask (mode L, 255 = ink), its line's top left at ``origin``."""
    x, y = origin
    glyphs = _glyphs(name, size)
    for character in text:
        glyph = glyphs[character]
        if glyph.ink is not None:
            mask.paste(255, (x + glyph.box[0], y + glyph.box[1]), glyph.ink)
        x += glyph.advance


@lru_cache(maxsize=512)
def _glyphs(name: str, size: int) -> _Glyphs:
    return _Glyphs(name, size)


def _render(font: ImageFont.FreeTypeFont, character: str) -> _Glyph:
    left, top, right, bottom = (round(edge) for edge in font.getbbox(character))
    ink = Image.new("L", (max(1, right - left), max(1, bottom - top)))
    ImageDraw.Draw(ink).text((-left, -top), character, fill=255, font=font)
    advance, box = round(font.getlength(character)), ink.getbbox()
    if box is None:
        return _Glyph(None, (0, 0, 0, 0), advance)
    return _Glyph(ink.crop(box), (left + box[0], top + box[1], left + box[2], top + box[3]), advance)
