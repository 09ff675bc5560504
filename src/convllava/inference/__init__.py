"""Inference: load a checkpoint, open images, generate answers.

Its names are imported when they are first used: opening an image or finding a checkpoint needs no torch, whose import
takes seconds.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..model import ConvLlavaProcessor
    from .asking import ask
    from .asking_each import AnswerAbout, EachOptions, ImageOf, ask_each, pages_of
    from .boxes import boxes_in_pixels, draw_boxes
    from .generator import Generator
    from .images import open_image, open_images
    from .loading import load_pretrained, resolve_device, save_merged, stage_warning
    from .prompt import Prompt, prepare, prompt_of
    from .request import (
        Answer,
        ContextOverflowError,
        Event,
        Failed,
        Finished,
        Request,
        TextDelta,
        Timings,
        TokenLogprob,
        question_message,
    )

__all__ = [
    "Answer",
    "AnswerAbout",
    "ContextOverflowError",
    "ConvLlavaProcessor",
    "EachOptions",
    "Event",
    "Failed",
    "Finished",
    "Generator",
    "ImageOf",
    "Prompt",
    "Request",
    "TextDelta",
    "Timings",
    "TokenLogprob",
    "ask",
    "ask_each",
    "boxes_in_pixels",
    "draw_boxes",
    "load_pretrained",
    "open_image",
    "open_images",
    "pages_of",
    "prepare",
    "prompt_of",
    "question_message",
    "resolve_device",
    "save_merged",
    "stage_warning",
]

_MODULES = {
    "asking": ("ask",),
    "asking_each": ("AnswerAbout", "EachOptions", "ImageOf", "ask_each", "pages_of"),
    "boxes": ("boxes_in_pixels", "draw_boxes"),
    "generator": ("Generator",),
    "images": ("open_image", "open_images"),
    "loading": ("load_pretrained", "resolve_device", "save_merged", "stage_warning"),
    "prompt": ("Prompt", "prepare", "prompt_of"),
    "request": (
        *("Answer", "ContextOverflowError", "Event", "Failed", "Finished", "Request", "TextDelta", "Timings"),
        "TokenLogprob",
        "question_message",
    ),
}
_MODULE_OF = {name: f".{module}" for module, names in _MODULES.items() for name in names}
_MODULE_OF["ConvLlavaProcessor"] = "..model"


def __getattr__(name: str) -> Any:
    """Import the module of a name when the name is first used."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULE_OF[name], __name__), name)
