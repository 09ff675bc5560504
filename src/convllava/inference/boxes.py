"""Boxes in an answer: from its text to pixels, and onto a copy of the image."""

from collections.abc import Sequence

from PIL import Image, ImageDraw

from ..geometry import Box, box_from_square, clip_box, find_boxes

COLORS = ("#e6194b", "#0082c8", "#f58231", "#3cb44b", "#911eb4", "#008080")


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
