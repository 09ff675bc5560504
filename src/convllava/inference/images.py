"""Images as users name them: in addition to what `convllava.images` opens, standard input and pages of PDF files."""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import pypdfium2
from PIL import Image

from .. import images

STANDARD_INPUT = "-"
STANDARD_INPUT_NAME = "standard input"

LIMITS = replace(images.LOCAL_LIMITS, readable=f"{images.LOCAL_LIMITS.readable.replace(' or', ',')} or PDF")

PDF_SIGNATURE = b"%PDF-"

DPI = 144
"""Dots an inch of a rendered page. A page of A4 becomes 1191 x 1684 pixels: small print
stays legible, and 1536 pixels lose little of it."""

MAX_SIDE = 4096
"""Maximum pixels on the longer side of a rendered page; larger pages are rendered more coarsely."""

_POINTS_PER_INCH = 72


def open_image(source: Any, page: int | None = None) -> Image.Image:
    """Return an image upright and in RGB.

    Args:
        source: A path, an http(s) or data URL, "-" (standard input), or a PIL, numpy or torch image.
        page: Page of a PDF, counted from 1; by default the first.

    Raises:
        ValueError: It is missing, not an image, damaged or too large, or the page is missing.
    """
    return open_images([source], page)[0]


def open_images(sources: Sequence[Any], page: int | None = None, *, lazily: bool = False) -> list[Image.Image]:
    """Open several images.

    Args:
        sources: Images as :func:`open_image` takes them.
        page: Page of those that are PDFs, of which there must then be one.
        lazily: Leave upright local JPEGs undecoded: fast preprocessing decodes them no larger than they are shown.
            For images that are shown once.

    Raises:
        ValueError: Same as :func:`open_image`.
    """
    opened = [_open(source, page, lazily) for source in sources]
    if page is not None and not any(is_pdf for _, is_pdf in opened):
        names = ", ".join(map(_name, sources)) or "no image"
        raise ValueError(f"page {page} was asked for but there is no PDF among the images ({names})")
    return [image for image, _ in opened]


def _open(source: Any, page: int | None, lazily: bool) -> tuple[Image.Image, bool]:
    """Return the image and whether it is a page of a PDF."""
    if not isinstance(source, str | Path):
        return images.open_image(source, limits=LIMITS, lazily=lazily), False
    name = _name(source)
    if name == STANDARD_INPUT_NAME:
        source = images.read_stream(sys.stdin.buffer, name, LIMITS)
    elif lazily and (jpeg := images.undecoded_jpeg(source, LIMITS)) is not None:
        return jpeg, False
    with images.open_stream(source, name=name, limits=LIMITS) as stream:
        head = stream.read(len(PDF_SIGNATURE))
        stream.seek(0)
        if head == PDF_SIGNATURE:
            return render_page(stream, name, 1 if page is None else page), True
        return images.open_image(stream, name=name, limits=LIMITS), False


def _name(source: Any) -> str:
    is_standard_input = isinstance(source, str | Path) and str(source) == STANDARD_INPUT
    return STANDARD_INPUT_NAME if is_standard_input else images.short_name(source)


def render_page(stream: BinaryIO, name: str, page: int) -> Image.Image:
    """Render one page, counted from 1, in RGB on white. Not thread-safe, as pypdfium2 is not.

    Raises:
        ValueError: It is not a readable PDF, or has no such page.
    """
    try:
        document = pypdfium2.PdfDocument(stream)
    except pypdfium2.PdfiumError as error:
        raise ValueError(f"{name} is a PDF that cannot be read, damaged or locked ({error}): save it again") from error
    try:
        document.init_forms()  # shows what was filled in
        number = len(document)
        if not 1 <= page <= number:
            raise ValueError(f"{name} has no page {page}: its pages are 1 to {number}")
        return _render(document[page - 1])
    except pypdfium2.PdfiumError as error:
        raise ValueError(f"page {page} of {name} cannot be rendered ({error}): save the PDF again") from error
    finally:
        document.close()


def _render(page: pypdfium2.PdfPage) -> Image.Image:
    longest = max(page.get_size())
    scale = min(DPI / _POINTS_PER_INCH, MAX_SIDE / max(longest, 1))
    return page.render(scale=scale).to_pil().convert("RGB")
