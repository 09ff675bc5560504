"""From a checkpoint and a picture to an answer."""

from .ask import ask
from .boxes import boxes_in_pixels, draw_boxes
from .generator import Generator
from .images import open_image, open_images
from .loading import load_pretrained
from .request import Answer, Event, Finished, Request, TextDelta, Timings, question_message

__all__ = [
    "Answer",
    "Event",
    "Finished",
    "Generator",
    "Request",
    "TextDelta",
    "Timings",
    "ask",
    "boxes_in_pixels",
    "draw_boxes",
    "load_pretrained",
    "open_image",
    "open_images",
    "question_message",
]
