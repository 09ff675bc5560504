"""Images as users name them: in addition to what `convllava.images` opens, standard input and pages of PDF files."""

import logging
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import pypdfium2
from PIL import Image

from .. import images
from ..support import escaped

logger = logging.getLogger(__name__)

STANDARD_INPUT = "-"
STANDARD_INPUT_NAME = "standard input"

LIMITS = replace(images.LOCAL_LIMITS, readable=f"{images.LOCAL_LIMITS.readable.replace(' or', ',')} or PDF")

PDF_SIGNATURE = b"%PDF-"

PDF_HEAD_BYTES = 1024
"""First bytes in which the signature may be: a byte order mark, blank lines or mail headers may come before it."""

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
        page: Page of a PDF or frame of another file that has several, counted from 1; by default the first.

    Raises:
        ValueError: It is missing, not an image, damaged or too large, or the page is missing.
    """
    return open_images([source], page)[0]


def open_images(sources: Sequence[Any], page: int | None = None, *, lazily: bool = False) -> list[Image.Image]:
    """Open several images.

    Args:
        sources: Images as :func:`open_image` takes them.
        page: Page of those files that have several, of which there must then be one.
        lazily: Leave upright local JPEGs undecoded: fast preprocessing decodes them no larger than they are shown.
            For images that are shown once.

    Raises:
        ValueError: Same as :func:`open_image`.
    """
    opened = [_open(source, page, lazily) for source in sources]
    if page is not None and not any(has_pages for _, has_pages in opened):
        names = ", ".join(map(_name, sources)) or "no image"
        raise ValueError(f"page {page} was asked for but there is no PDF or other file with pages ({names})")
    return [image for image, _ in opened]


def _open(source: Any, page: int | None, lazily: bool) -> tuple[Image.Image, bool]:
    """Return the image, and whether it is from a PDF or another file with pages."""
    if not isinstance(source, str | Path):
        return images.open_image(source, limits=LIMITS, lazily=lazily), False
    name = _name(source)
    if name == STANDARD_INPUT_NAME:
        source = images.read_stream(sys.stdin.buffer, name, LIMITS)
    elif lazily and (jpeg := images.undecoded_jpeg(source, LIMITS)) is not None:
        return jpeg, False
    with images.open_stream(source, name=name, limits=LIMITS) as stream:
        head = stream.read(PDF_HEAD_BYTES)
        stream.seek(0)
        if PDF_SIGNATURE in head and not _is_image(stream):
            return render_page(stream, name, page), True
        if page is None:
            return images.open_image(stream, name=name, limits=LIMITS), False
        with images.undecoded(stream, name=name, limits=LIMITS) as image:
            number = images.num_frames(image)
        stream.seek(0)
        return images.open_image(stream, name=name, limits=LIMITS, frame=page if number > 1 else None), number > 1


def _is_image(stream: BinaryIO) -> bool:
    """Return whether a stream is an image, which may have the signature of a PDF in its metadata."""
    try:
        with images.undecoded(stream, limits=LIMITS):
            return True
    except images.ImageError as error:
        return error.kind != "unreadable"
    finally:
        stream.seek(0)


def _name(source: Any) -> str:
    is_standard_input = isinstance(source, str | Path) and str(source) == STANDARD_INPUT
    return STANDARD_INPUT_NAME if is_standard_input else images.short_name(source)


def render_page(stream: BinaryIO, name: str, page: int | None = None) -> Image.Image:
    """Render one page of a PDF in RGB on white. Not thread-safe, as pypdfium2 is not.

    Args:
        stream: The file.
        name: The file in messages.
        page: Page, counted from 1; None takes the first and logs that there are more.

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
        if page is None and number > 1:
            logger.warning(
                "%s has %d pages, of which the first is shown (--page N selects another)", escaped(name), number
            )
        page = 1 if page is None else page
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
