"""Held-out synthetic benchmarks: words, type faces and seeds that no training source draws."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..data.samples import Sample
from ..geometry import box_from_square, find_boxes
from ..synthetic import SyntheticDataset
from .metrics import edit_distance, exact_match, grounding_hit

HELD_OUT_SEED = 2024
HELD_OUT_COUNT = 500

Size = tuple[int, int]
"""(width, height) of the image, in pixels."""


@dataclass(frozen=True)
class Benchmark:
    """A kind of held-out sample and the figure that sums up the answers.

    Attributes:
        metric: Name of the figure.
        count: (prediction, truth, size) to two numbers; the figure is the sum of the first over that of the second.
        higher_is_better: Whether more is better.
    """

    kind: str
    options: dict[str, Any]
    metric: str
    count: Callable[[str, str, Size], tuple[float, float]]
    higher_is_better: bool = True

    def samples(self, limit: int | None = None) -> SyntheticDataset:
        """Return the samples, or only the first ``limit``."""
        count = min(limit or HELD_OUT_COUNT, HELD_OUT_COUNT)
        return SyntheticDataset(self.kind, count=count, seed=HELD_OUT_SEED, split="heldout", **self.options)


def question_of(sample: Sample) -> str:
    """Return the text of a sample's question."""
    return _text(sample, role="user")


def truth_of(sample: Sample) -> str:
    """Return the right answer."""
    return _text(sample, role="assistant")


def is_right_answer(prediction: str, truth: str, size: Size) -> bool:
    """Judge one answer: a box by its overlap, any other by exact match."""
    boxes = find_boxes(truth)
    if not boxes:
        return exact_match(prediction, truth)
    return grounding_hit(prediction, box_from_square(boxes[0], *size), *size)


def _edits(prediction: str, truth: str, size: Size) -> tuple[float, float]:
    return edit_distance(prediction, truth), len(truth)


def _right(prediction: str, truth: str, size: Size) -> tuple[float, float]:
    return is_right_answer(prediction, truth, size), 1


def _text(sample: Sample, role: str) -> str:
    message = next(message for message in sample.messages if message["role"] == role)
    return "".join(part["text"] for part in message["content"] if part["type"] == "text")


_LINES: dict[str, Any] = {"sizes": [[64, 64], [64, 128], [64, 192]], "cap": [0.4, 0.75], "noise": 0.3}
_SHAPES: list[list[int]] = [[128, 128], [128, 192], [192, 128]]
_SCENES: dict[str, Any] = {"sizes": _SHAPES}
_PAGES: list[list[int]] = [[256, 256], [256, 320], [320, 256]]
_DOCUMENTS: dict[str, Any] = {"sizes": _PAGES, "font_size": [28, 42], "tasks": ["field"], "noise": 0.3}
_LARGE: list[list[int]] = [[512, 512], [512, 768], [768, 512], [512, 1024], [1024, 512]]
_FULL_LAYOUTS = ["receipt", "price_list", "table", "invoice", "letter"]
_FULL: dict[str, Any] = {**_DOCUMENTS, "sizes": _LARGE, "layouts": _FULL_LAYOUTS}

BENCHMARKS: dict[str, Benchmark] = {
    "synthetic-lines": Benchmark("line", _LINES, "character error rate", _edits, higher_is_better=False),
    "synthetic-scenes": Benchmark("scene", _SCENES, "exact match", _right),
    "synthetic-grounding": Benchmark("grounding", _SCENES, "IoU >= 0.5", _right),
    "synthetic-documents": Benchmark("document", _DOCUMENTS, "exact match", _right),
    "synthetic-pages": Benchmark("document", _FULL, "exact match", _right),
    "synthetic-transcripts": Benchmark(
        "document",
        {**_FULL, "tasks": ["transcribe"]},
        "character error rate",
        _edits,
        higher_is_better=False,
    ),
}
