"""The bundled type faces; samples use no others, so that they are the same on every machine."""

from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from pathlib import Path

from PIL import ImageFont

FONT_DIRECTORY = Path(__file__).parent / "fonts"

CHARACTERS = "".join(map(chr, range(0x20, 0x7F))) + "£€"
"""The characters of all texts: every face has a glyph for each."""


@dataclass(frozen=True)
class Face:
    """One font file.

    Attributes:
        name: File name without its ending.
        split: Split of the samples that use it.
    """

    name: str
    split: str

    @property
    def bold(self) -> bool:
        """Whether this is the bold cut of its family."""
        return self.name.endswith("-bold")


_TRAIN = (
    "open-sans-regular",
    "open-sans-bold",
    "inter-regular",
    "barlow-condensed-regular",
    "barlow-condensed-bold",
    "noto-serif-regular",
    "noto-serif-bold",
    "crimson-pro-regular",
    "zilla-slab-regular",
    "zilla-slab-bold",
    "jetbrains-mono-regular",
    "jetbrains-mono-bold",
    "cousine-regular",
    "vt323-regular",
    "patrick-hand-regular",
    "arimo-regular",
    "arimo-bold",
    "cabin-regular",
    "exo-2-regular",
    "fira-sans-regular",
    "karla-regular",
    "manrope-regular",
    "montserrat-regular",
    "nunito-sans-regular",
    "poppins-regular",
    "public-sans-regular",
    "public-sans-bold",
    "rubik-regular",
    "titillium-web-regular",
    "archivo-narrow-regular",
    "alegreya-regular",
    "cormorant-garamond-regular",
    "eb-garamond-regular",
    "spectral-regular",
    "tinos-regular",
    "tinos-bold",
    "bitter-regular",
    "bitter-bold",
    "anonymous-pro-regular",
    "inconsolata-regular",
    "space-mono-regular",
    "caveat-regular",
    "heebo-regular",
    "dosis-regular",
    "hind-regular",
    "instrument-sans-regular",
    "mukta-regular",
    "signika-regular",
    "antonio-regular",
    "antonio-bold",
    "anton-regular",
    "asap-condensed-regular",
    "barlow-semi-condensed-regular",
    "fjalla-one-regular",
    "khand-regular",
    "league-gothic-regular",
    "pragati-narrow-regular",
    "roboto-condensed-regular",
    "roboto-condensed-bold",
    "smooch-sans-regular",
    "sofia-sans-condensed-regular",
    "yanone-kaffeesatz-regular",
    "besley-regular",
    "brygada-1918-regular",
    "domine-regular",
    "frank-ruhl-libre-regular",
    "gelasio-regular",
    "libre-bodoni-regular",
    "libre-caslon-text-regular",
    "literata-regular",
    "newsreader-regular",
    "old-standard-tt-regular",
    "aleo-regular",
    "hepta-slab-regular",
    "podkova-regular",
    "rokkitt-regular",
    "cutive-mono-regular",
    "dm-mono-regular",
    "noto-sans-mono-regular",
    "overpass-mono-regular",
    "red-hat-mono-regular",
    "roboto-mono-regular",
    "sometype-mono-regular",
    "special-elite-regular",
    "spline-sans-mono-regular",
    "victor-mono-regular",
    "xanh-mono-regular",
    "dejavu-sans-regular",
    "dejavu-sans-bold",
    "dejavu-sans-condensed-regular",
    "dejavu-sans-mono-regular",
    "dejavu-serif-regular",
)

_HELDOUT = (
    "work-sans-regular",
    "work-sans-bold",
    "oswald-regular",
    "libre-baskerville-regular",
    "roboto-slab-regular",
    "courier-prime-regular",
)

FACES = (*(Face(name, "train") for name in _TRAIN), *(Face(name, "heldout") for name in _HELDOUT))
"""The faces of both splits in a fixed order: a sample draws a face by its index."""


@lru_cache
def faces(split: str) -> tuple[Face, ...]:
    """Return the faces that samples of a split may use."""
    return tuple(face for face in FACES if face.split == split)


@lru_cache
def bold_sibling(face: Face) -> Face:
    """Return the bold cut of a face, or the face itself if none is bundled."""
    family = face.name.rpartition("-")[0]
    return next((other for other in FACES if other.name == f"{family}-bold"), face)


@lru_cache(maxsize=1024)
def load_font(name: str, size: int) -> ImageFont.FreeTypeFont:
    """Return a bundled face at a size in pixels per em.

    The basic layout engine needs no shaping library, so a line has the same width on every machine.

    Raises:
        OSError: The file is missing.
    """
    return ImageFont.truetype(BytesIO(_font_bytes(name)), size, layout_engine=ImageFont.Layout.BASIC)


@lru_cache
def _font_bytes(name: str) -> bytes:
    return (FONT_DIRECTORY / f"{name}.ttf").read_bytes()
