"""Boxes in an answer: from its text to pixels, and onto a copy of the image."""

import re
from collections.abc import Sequence

from PIL import Image, ImageDraw

from ..geometry import Box, box_from_square, clip_box, find_boxes

COLORS = ("#e6194b", "#0082c8", "#f58231", "#3cb44b", "#911eb4", "#008080")

_ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")
_NAMED_IMAGE = re.compile(
    rf"\bthe\s+(?P<word>{'|'.join(_ORDINALS)}|last)\s+(?:image|photo)\b"
    r"|\b(?P<ordinal>\d{1,4})(?:st|nd|rd|th)\s+(?:image|photo)\b"
    r"|\b(?:image|photo)\s+(?:number\s+|#\s*)?(?P<number>\d{1,4})\b",
    re.IGNORECASE,
)


def image_of_boxes(question: str, num_images: int) -> int | None:
    """Return the index of the image that boxes in an answer are about, None without images.

    It is the one that the question names ("the second image", "image 2", counted through the dialogue). If it names
    none or several, it is the last one, which was shown last.

    Args:
        question: Text of the last question.
        num_images: Number of images in the dialogue.
    """
    named = {_index(found, num_images) for found in _NAMED_IMAGE.finditer(question)} & set(range(num_images))
    return named.pop() if len(named) == 1 else num_images - 1 if num_images else None


def _index(found: re.Match[str], num_images: int) -> int:
    word = (found["word"] or "").lower()
    if word:
        return num_images - 1 if word == "last" else _ORDINALS.index(word)
    return int(found["ordinal"] or found["number"]) - 1


def boxes_in_pixels(text: str, width: int, height: int) -> tuple[Box, ...]:
    """Return the boxes written in an answer, in order, in pixels of a `width` x `height` image.

    Corners in the wrong order are put right; what lies outside of the image is cut off.
    """
    return tuple(clip_box(box_from_square(_ordered(box), width, height), width, height) for box in find_boxes(text))


def draw_boxes(image: Image.Image, boxes: Sequence[Box]) -> Image.Image:
    """Return a copy of an upright image in RGB with an outline around each box."""
    copy = image.convert("RGB").copy()
    draw = ImageDraw.Draw(copy)
    thickness = max(2, round(max(copy.size) / 250))
    for index, (x0, y0, x1, y1) in enumerate(boxes):
        # the outline is drawn inwards, and pixel x1 is the first one beyond the box
        corners = (x0, y0, max(x0, x1 - 1), max(y0, y1 - 1))
        draw.rectangle(corners, outline=COLORS[index % len(COLORS)], width=thickness)
    return copy


def _ordered(box: Box) -> Box:
    x0, y0, x1, y1 = box
    return min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)
