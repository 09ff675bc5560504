"""Inference: load a checkpoint, open images, generate answers."""

from ..model import ConvLlavaProcessor
from .ask import ask
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
    "ContextOverflowError",
    "ConvLlavaProcessor",
    "Event",
    "Failed",
    "Finished",
    "Generator",
    "Prompt",
    "Request",
    "TextDelta",
    "Timings",
    "TokenLogprob",
    "ask",
    "boxes_in_pixels",
    "draw_boxes",
    "load_pretrained",
    "open_image",
    "open_images",
    "prepare",
    "prompt_of",
    "question_message",
    "resolve_device",
    "save_merged",
    "stage_warning",
]
