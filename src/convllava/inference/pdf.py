"""Pages of PDF files as images."""

from typing import BinaryIO

import pypdfium2
from PIL import Image

PDF_MARK = b"%PDF-"

DPI = 144
"""A page of A4 becomes 1191 x 1684 pixels: small print stays legible, and 1536 pixels lose little of it."""

MAX_SIDE = 4096
"""Pixels on the longer side of a page; posters and absurd page sizes are rendered more coarsely."""

_POINTS_PER_INCH = 72


def render_page(stream: BinaryIO, name: str, page: int) -> Image.Image:
    """Render one page, counted from 1, in RGB on white. Not thread-safe, as the library below is not.

    Raises:
        ValueError: Not a readable PDF, or no such page.
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
