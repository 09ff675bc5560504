"""The bundled type faces: samples are drawn with these alone, so that they look the same everywhere."""

from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from pathlib import Path

from PIL import ImageFont

FONT_DIRECTORY = Path(__file__).parent / "fonts"

CHARACTERS = "".join(map(chr, range(0x20, 0x7F))) + "£€"
"""All that can be written: every face has a glyph for each."""


@dataclass(frozen=True)
class Face:
    """One font file.

    ``style`` is what a layout asks for (``sans``, ``serif``, ``mono``, ``slab``, ``condensed``, ``receipt``,
    ``hand``); ``split`` says which samples may be set in it.
    """

    name: str
    style: str
    split: str
    bold: bool = False


FACES = (
    Face("open-sans-regular", "sans", "train"),
    Face("open-sans-bold", "sans", "train", bold=True),
    Face("inter-regular", "sans", "train"),
    Face("barlow-condensed-regular", "condensed", "train"),
    Face("barlow-condensed-bold", "condensed", "train", bold=True),
    Face("noto-serif-regular", "serif", "train"),
    Face("noto-serif-bold", "serif", "train", bold=True),
    Face("crimson-pro-regular", "serif", "train"),
    Face("zilla-slab-regular", "slab", "train"),
    Face("zilla-slab-bold", "slab", "train", bold=True),
    Face("jetbrains-mono-regular", "mono", "train"),
    Face("jetbrains-mono-bold", "mono", "train", bold=True),
    Face("cousine-regular", "mono", "train"),
    Face("vt323-regular", "receipt", "train"),
    Face("patrick-hand-regular", "hand", "train"),
    Face("arimo-regular", "sans", "train"),
    Face("arimo-bold", "sans", "train", bold=True),
    Face("cabin-regular", "sans", "train"),
    Face("exo-2-regular", "sans", "train"),
    Face("fira-sans-regular", "sans", "train"),
    Face("karla-regular", "sans", "train"),
    Face("manrope-regular", "sans", "train"),
    Face("montserrat-regular", "sans", "train"),
    Face("nunito-sans-regular", "sans", "train"),
    Face("poppins-regular", "sans", "train"),
    Face("public-sans-regular", "sans", "train"),
    Face("public-sans-bold", "sans", "train", bold=True),
    Face("rubik-regular", "sans", "train"),
    Face("titillium-web-regular", "sans", "train"),
    Face("archivo-narrow-regular", "condensed", "train"),
    Face("alegreya-regular", "serif", "train"),
    Face("cormorant-garamond-regular", "serif", "train"),
    Face("eb-garamond-regular", "serif", "train"),
    Face("spectral-regular", "serif", "train"),
    Face("tinos-regular", "serif", "train"),
    Face("tinos-bold", "serif", "train", bold=True),
    Face("bitter-regular", "slab", "train"),
    Face("bitter-bold", "slab", "train", bold=True),
    Face("anonymous-pro-regular", "mono", "train"),
    Face("inconsolata-regular", "mono", "train"),
    Face("space-mono-regular", "mono", "train"),
    Face("caveat-regular", "hand", "train"),
    Face("heebo-regular", "sans", "train"),
    Face("dosis-regular", "sans", "train"),
    Face("hind-regular", "sans", "train"),
    Face("instrument-sans-regular", "sans", "train"),
    Face("mukta-regular", "sans", "train"),
    Face("signika-regular", "sans", "train"),
    Face("antonio-regular", "condensed", "train"),
    Face("antonio-bold", "condensed", "train", bold=True),
    Face("anton-regular", "condensed", "train"),
    Face("asap-condensed-regular", "condensed", "train"),
    Face("barlow-semi-condensed-regular", "condensed", "train"),
    Face("fjalla-one-regular", "condensed", "train"),
    Face("khand-regular", "condensed", "train"),
    Face("league-gothic-regular", "condensed", "train"),
    Face("pragati-narrow-regular", "condensed", "train"),
    Face("roboto-condensed-regular", "condensed", "train"),
    Face("roboto-condensed-bold", "condensed", "train", bold=True),
    Face("smooch-sans-regular", "condensed", "train"),
    Face("sofia-sans-condensed-regular", "condensed", "train"),
    Face("yanone-kaffeesatz-regular", "condensed", "train"),
    Face("besley-regular", "serif", "train"),
    Face("brygada-1918-regular", "serif", "train"),
    Face("domine-regular", "serif", "train"),
    Face("frank-ruhl-libre-regular", "serif", "train"),
    Face("gelasio-regular", "serif", "train"),
    Face("libre-bodoni-regular", "serif", "train"),
    Face("libre-caslon-text-regular", "serif", "train"),
    Face("literata-regular", "serif", "train"),
    Face("newsreader-regular", "serif", "train"),
    Face("old-standard-tt-regular", "serif", "train"),
    Face("aleo-regular", "slab", "train"),
    Face("hepta-slab-regular", "slab", "train"),
    Face("podkova-regular", "slab", "train"),
    Face("rokkitt-regular", "slab", "train"),
    Face("cutive-mono-regular", "mono", "train"),
    Face("dm-mono-regular", "mono", "train"),
    Face("noto-sans-mono-regular", "mono", "train"),
    Face("overpass-mono-regular", "mono", "train"),
    Face("red-hat-mono-regular", "mono", "train"),
    Face("roboto-mono-regular", "mono", "train"),
    Face("sometype-mono-regular", "mono", "train"),
    Face("special-elite-regular", "receipt", "train"),
    Face("spline-sans-mono-regular", "mono", "train"),
    Face("victor-mono-regular", "mono", "train"),
    Face("xanh-mono-regular", "mono", "train"),
    Face("work-sans-regular", "sans", "heldout"),
    Face("work-sans-bold", "sans", "heldout", bold=True),
    Face("oswald-regular", "condensed", "heldout"),
    Face("libre-baskerville-regular", "serif", "heldout"),
    Face("roboto-slab-regular", "slab", "heldout"),
    Face("courier-prime-regular", "mono", "heldout"),
)


@lru_cache
def faces(split: str) -> tuple[Face, ...]:
    """Return the faces that samples of a split may use."""
    return tuple(face for face in FACES if face.split == split)


@lru_cache
def bold_sibling(face: Face) -> Face:
    """Return the bold cut of a face, or the face itself where none is bundled."""
    family = face.name.rpartition("-")[0]
    return next((other for other in FACES if other.name == f"{family}-bold"), face)


@lru_cache(maxsize=1024)
def load_font(name: str, size: int) -> ImageFont.FreeTypeFont:
    """Open a bundled face at a size in pixels per em; raises ``OSError`` if the file is missing.

    The basic layout engine needs no shaping library, so a line is as wide on one machine as on another.
    """
    return ImageFont.truetype(BytesIO(_font_bytes(name)), size, layout_engine=ImageFont.Layout.BASIC)


@lru_cache
def _font_bytes(name: str) -> bytes:
    return (FONT_DIRECTORY / f"{name}.ttf").read_bytes()
