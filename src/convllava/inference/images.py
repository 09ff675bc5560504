"""Images as users name them: in addition to what `convllava.images` opens, standard input and pages of PDF files."""

import logging
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
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

MAX_PAGES = 64
"""Maximum pages of one file that are opened together; each can take 50 MB."""

_PAGES = re.compile(r"(?P<first>\d{1,9})(?:(?P<dash>\s*-\s*)(?P<last>\d{1,9})?)?")


def open_image(source: Any, page: int | None = None, *, password: str | None = None) -> Image.Image:
    """Return an image upright and in RGB.

    Args:
        source: A path, an http(s) or data URL, "-" (standard input), or a PIL, numpy or torch image.
        page: Page of a PDF or frame of another file that has several, counted from 1; by default the first.
        password: Password of a locked PDF.

    Raises:
        ValueError: It is missing, not an image, damaged or too large, or the page is missing.
    """
    return open_images([source], page, password=password)[0]


def open_images(
    sources: Sequence[Any], page: int | str | None = None, *, lazily: bool = False, password: str | None = None
) -> list[Image.Image]:
    """Open several images.

    Args:
        sources: Images as :func:`open_image` takes them.
        page: Page of those files that have several, of which there must then be one; "2-5", "2-" (to the last) or
            "1,3" for several, each of which becomes an image.
        lazily: Leave upright local JPEGs undecoded: fast preprocessing decodes them no larger than they are shown.
            For images that are shown once.
        password: Password of locked PDFs.

    Raises:
        ValueError: Same as :func:`open_image`; or the pages cannot be parsed or are too many.
    """
    wanted = None if page is None else parse_pages(page)
    opened = [_open(source, wanted, lazily, password) for source in sources]
    if page is not None and not any(has_pages for _, has_pages in opened):
        names = ", ".join(map(_name, sources)) or "no image"
        raise ValueError(f"page {page} was asked for but there is no PDF or other file with pages ({names})")
    return [image for found, _ in opened for image in found]


Pages = list[tuple[int, int | None]]
"""Ranges of pages, first and last, counted from 1; None is the last page of the file."""


def parse_pages(text: int | str) -> Pages:
    """Return the ranges in a text such as "2", "2-5", "2-" or "1,3".

    Raises:
        ValueError: It is not of this form.
    """
    if isinstance(text, int):
        return [(text, text)]
    ranges: Pages = []
    for part in text.split(","):
        found = _PAGES.fullmatch(part.strip())
        if found is None:
            raise ValueError(f"page {text!r} is not a page or a range of pages: write 2, 2-5, 2- or 1,3")
        first = int(found["first"])
        last = int(found["last"]) if found["last"] else None if found["dash"] else first
        if last is not None and last < first:
            raise ValueError(f"page {text!r} is no range of pages: the smaller number comes first")
        ranges.append((first, last))
    return ranges


def _numbers(wanted: Pages, number: int, name: str) -> list[int]:
    """Return the pages of a file with this number of pages, checked."""
    named = [page for pages in wanted for page in pages if page is not None]
    if (missing := next((page for page in named if not 1 <= page <= number), None)) is not None:
        raise ValueError(f"{name} has no page {missing}: its pages are 1 to {number}")
    count = sum((number if last is None else last) - first + 1 for first, last in wanted)
    if count > MAX_PAGES:
        raise ValueError(f"{count} pages of {name} are selected, at most {MAX_PAGES} are shown together: name fewer")
    return [page for first, last in wanted for page in range(first, (number if last is None else last) + 1)]


def num_pages(source: str | Path, *, password: str | None = None) -> int:
    """Return the number of pages of a PDF or of frames of another file, 1 for any other image.

    Raises:
        ValueError: It is missing, not an image, or damaged.
    """
    with images.open_stream(source, limits=LIMITS) as stream:
        if is_pdf(stream):
            with _document(stream, images.short_name(source), password) as document:
                return len(document)
        with images.undecoded(stream, name=images.short_name(source), limits=LIMITS) as image:
            return images.num_frames(image)


def _open(source: Any, wanted: Pages | None, lazily: bool, password: str | None) -> tuple[list[Image.Image], bool]:
    """Return the image or the wanted pages, and whether they are from a PDF or another file with pages."""
    if not isinstance(source, str | Path):
        return [images.open_image(source, limits=LIMITS, lazily=lazily)], False
    name = _name(source)
    if name == STANDARD_INPUT_NAME:
        source = images.read_stream(sys.stdin.buffer, name, LIMITS)
    elif lazily and (jpeg := images.undecoded_jpeg(source, LIMITS)) is not None:
        return [jpeg], False
    with images.open_stream(source, name=name, limits=LIMITS) as stream:
        if is_pdf(stream):
            return render_pages(stream, name, wanted, password=password), True
        if wanted is None:
            return [images.open_image(stream, name=name, limits=LIMITS)], False
        with images.undecoded(stream, name=name, limits=LIMITS) as image:
            number = images.num_frames(image)
        frames: list[int | None] = [*_numbers(wanted, number, name)] if number > 1 else [None]
        found = []
        for frame in frames:
            stream.seek(0)
            found.append(images.open_image(stream, name=name, limits=LIMITS, frame=frame))
        return found, number > 1


def is_pdf(stream: BinaryIO) -> bool:
    """Return whether a stream is a PDF: its signature is near its beginning, and it is not an image that has it."""
    head = stream.read(PDF_HEAD_BYTES)
    stream.seek(0)
    return PDF_SIGNATURE in head and not _is_image(stream)


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


def render_pages(
    stream: BinaryIO, name: str, wanted: Pages | None = None, *, password: str | None = None
) -> list[Image.Image]:
    """Render pages of a PDF in RGB on white. Not thread-safe, as pypdfium2 is not.

    Args:
        stream: The file.
        name: The file in messages.
        wanted: Ranges of pages; None takes the first and logs that there are more.
        password: Password of a locked PDF.

    Raises:
        ValueError: It is not a readable PDF, is locked, or has no such page.
    """
    page = 1
    with _document(stream, name, password) as document:
        try:
            document.init_forms()  # shows what was filled in
            number = len(document)
            if wanted is None and number > 1:
                logger.warning(
                    "%s has %d pages, of which the first is shown (--page N selects others)", escaped(name), number
                )
            rendered = []
            for page in _numbers(wanted or [(1, 1)], number, name):
                rendered.append(_render(document[page - 1]))
            return rendered
        except pypdfium2.PdfiumError as error:
            raise ValueError(f"page {page} of {name} cannot be rendered ({error}): save the PDF again") from error


@contextmanager
def _document(stream: BinaryIO, name: str, password: str | None) -> Iterator[pypdfium2.PdfDocument]:
    try:
        document = pypdfium2.PdfDocument(stream, password=password)
    except pypdfium2.PdfiumError as error:
        if "password" in str(error).lower():
            fault = "needs a password: give it" if password is None else "has another password: give the right one"
            raise ValueError(f"{name} {fault} (--pdf-password, or password= in Python)") from error
        raise ValueError(f"{name} is a PDF that cannot be read, it is damaged ({error}): save it again") from error
    try:
        yield document
    finally:
        document.close()


def _render(page: pypdfium2.PdfPage) -> Image.Image:
    longest = max(page.get_size())
    scale = min(DPI / _POINTS_PER_INCH, MAX_SIDE / max(longest, 1))
    return page.render(scale=scale).to_pil().convert("RGB")
