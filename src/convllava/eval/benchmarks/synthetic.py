"""Held-out synthetic benchmarks: words, type faces and seeds that no training data use.

The samples are drawn when they are needed, always the same ones (`held_out.py` checks that).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ...data.samples import Sample
from ...geometry import box_from_square, find_boxes
from ...synthetic import SyntheticDataset, sizes_of
from .. import held_out
from ..benchmark import Benchmark, EvalSample, EvalSet, LoadOptions
from ..metrics import edit_distance, exact_match, grounding_hit
from ..outcome import Outcome, Prediction, Row, Scoring, Verdict, failed_verdict, ratio, sample_ids
from ..prompts import PromptPart, PromptProfile, images_first
from ..table import ImageSize, LoadedImage

HELD_OUT_SEED = 2024
TABLE_SEED = 2026
"""Series of the figures in the model card; it is never looked at to choose anything."""

CHOICES_SEED = 2025
"""Series for choices: between recipes, checkpoints or settings."""

NUM_HELD_OUT = 500

_CHECKED_SAMPLES = range(3)
"""Samples that are compared with the recorded ones before a run."""


class SyntheticBenchmark(Benchmark):
    """A benchmark whose samples are drawn.

    Args:
        name: Name of the benchmark.
        kind: Kind of the samples (`SyntheticDataset`).
        options: Options of the kind.
        metric: Name of the figure.
        error_rate: Whether the figure is edits per true character; otherwise it is the share of correct answers.
        seed: Number of the series of samples.
    """

    keeps_prompt_format = True

    def __init__(
        self,
        name: str,
        kind: str,
        options: dict[str, Any],
        metric: str = "exact match",
        *,
        error_rate: bool = False,
        seed: int = HELD_OUT_SEED,
    ) -> None:
        self.name, self.title = name, name.replace("-", " ")
        self.kind, self.options, self.error_rate = kind, options, error_rate
        self.metric, self.seed = metric, seed
        self.higher_is_better = not error_rate

    def variant(self, name: str, **options: Any) -> "SyntheticBenchmark":
        """Return a benchmark that is scored in the same way on samples with other options."""
        changed = {**self.options, **options}
        return SyntheticBenchmark(name, self.kind, changed, self.metric, error_rate=self.error_rate, seed=self.seed)

    def dataset(self, limit: int = NUM_HELD_OUT) -> SyntheticDataset:
        """Return the samples, at most ``limit``."""
        count = min(limit, NUM_HELD_OUT)
        return SyntheticDataset(self.kind, count=count, seed=self.seed, split="heldout", **self.options)

    needs_data = False

    def has_data(self, data: Path) -> bool:
        return True

    def load(self, data: Path, options: LoadOptions) -> EvalSet:
        return _DrawnSet(self)

    def prompt(self, row: Row, num_images: int, options: LoadOptions) -> list[PromptPart]:
        return images_first(str(row["question"]), num_images)

    def max_new_tokens(self, prompts: PromptProfile) -> int | None:
        return None

    def verdict(self, prediction: Prediction, scoring: Scoring) -> Verdict:
        if prediction.error is not None:
            return failed_verdict()
        correct = is_correct(prediction.text, prediction.row["answer"], _size_of(prediction.row))
        return Verdict(float(correct), prediction.text, bool(prediction.text.strip()))

    def outcome(self, predictions: Sequence[Prediction], scoring: Scoring) -> Outcome:
        columns = np.array([self.counts(prediction) for prediction in predictions], dtype=float).reshape(-1, 2)
        return Outcome(self.verdicts(predictions, scoring), sample_ids(predictions), columns, ratio, {})

    def counts(self, prediction: Prediction) -> tuple[float, float]:
        """Return two numbers; the figure is the sum of the first over the sum of the second."""
        truth = prediction.row["answer"]
        if self.error_rate:
            return edit_distance(prediction.text, truth), len(truth)
        return is_correct(prediction.text, truth, _size_of(prediction.row)), 1


def is_correct(answer: str, truth: str, size: ImageSize) -> bool:
    """Return whether an answer is correct: a box by its overlap, any other answer by exact match.

    Args:
        answer: The model's answer.
        truth: The reference answer.
        size: (height, width) of the image in pixels.
    """
    boxes = find_boxes(truth)
    if not boxes:
        return exact_match(answer, truth)
    height, width = size
    return grounding_hit(answer, box_from_square(boxes[0], width, height), width, height)


def question_of(sample: Sample) -> str:
    """Return the question of a drawn sample."""
    return _text(sample, role="user")


def truth_of(sample: Sample) -> str:
    """Return the reference answer of a drawn sample."""
    return _text(sample, role="assistant")


def _text(sample: Sample, role: str) -> str:
    message = next(message for message in sample.messages if message["role"] == role)
    return "".join(part["text"] for part in message["content"] if part["type"] == "text")


def _size_of(row: Row) -> ImageSize:
    return row["height"], row["width"]


class _DrawnSet:
    """Questions that are drawn on access."""

    def __init__(self, benchmark: SyntheticBenchmark) -> None:
        self._dataset = benchmark.dataset()
        self.ids: Sequence[str] = [f"{benchmark.name}/{index}" for index in range(len(self._dataset))]
        self.data = {
            "drawn": benchmark.kind,
            "options": benchmark.options,
            "seed": self._dataset.seed,
            "split": self._dataset.split,
            "questions": len(self._dataset),
        }
        is_recorded = benchmark.name in SYNTHETIC  # variants for a study are not
        self.warnings = held_out.warnings_about(benchmark.name, self._dataset, _CHECKED_SAMPLES) if is_recorded else []

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> EvalSample:
        drawn = self._dataset[index]
        image = drawn.images[0]
        if not isinstance(image, Image.Image):
            raise TypeError(f"a drawn sample has a PIL image, got {type(image).__name__}")
        row = {
            "question": question_of(drawn),
            "answer": truth_of(drawn),
            "width": image.width,
            "height": image.height,
        }
        return EvalSample(self.ids[index], row, (LoadedImage(image),))

    def image_sizes(self, index: int) -> list[ImageSize]:
        return self._dataset.image_sizes(index)


_LINES: dict[str, Any] = {"sizes": [[64, 64], [64, 128], [64, 192]], "cap": [0.4, 0.75], "noise": 0.3}
_SCENES: dict[str, Any] = {"sizes": [[128, 128], [128, 192], [192, 128]]}
_DOCUMENTS: dict[str, Any] = {
    "sizes": [[256, 256], [256, 320], [320, 256]],
    "font_size": [28, 42],
    "tasks": ["field"],
    "noise": 0.3,
}
_PAGES: dict[str, Any] = {
    **_DOCUMENTS,
    "sizes": [[512, 512], [512, 768], [768, 512], [512, 1024], [1024, 512]],
    "layouts": ["receipt", "price_list", "table", "invoice", "letter"],
}
_TRANSCRIPTS: dict[str, Any] = {**_PAGES, "tasks": ["transcribe"]}

_ONE_QUESTION: dict[str, Any] = {"questions": 1, "transcript": 0.0}
_ORDINARY: dict[str, Any] = {
    "sizes": [list(size) for size in sizes_of((6, 48), 2.5)],
    "font_size": [14, 32],
    "noise": 0.4,
}
_LARGE: dict[str, Any] = {
    "sizes": [[512, 512], [512, 768], [768, 512], [512, 1024], [1024, 512]],
    "font_size": [14, 32],
    "noise": 0.4,
    "tasks": ["field"],
    **_ONE_QUESTION,
}
_ALL_SHAPES = ["caption", "count", "color", "shape", "existence", "relation", "neighbor", "size"]


def _series(name: str, seed: int) -> list[SyntheticBenchmark]:
    """Return the benchmarks of composed pages and scenes in one series of samples."""

    def rate(what: str, kind: str, options: dict[str, Any]) -> SyntheticBenchmark:
        full = f"{name}-{what}"
        return SyntheticBenchmark(full, kind, options, "character error rate", error_rate=True, seed=seed)

    def share(what: str, kind: str, options: dict[str, Any], metric: str = "exact match") -> SyntheticBenchmark:
        return SyntheticBenchmark(f"{name}-{what}", kind, options, metric, seed=seed)

    return [
        rate("lines", "lines", {"font_size": [16, 48], "noise": 0.4}),
        share("documents", "documents", {**_ORDINARY, "tasks": ["field"], **_ONE_QUESTION}),
        rate("transcripts", "documents", {**_ORDINARY, "tasks": ["transcribe"]}),
        share("pages", "pages", _LARGE),
        share("scenes", "scenes", {"tasks": _ALL_SHAPES, "questions": 1}),
        share("boxes", "boxes", {"tasks": ["locate"], "questions": 1}, "IoU >= 0.5"),
    ]


SYNTHETIC: dict[str, SyntheticBenchmark] = {
    benchmark.name: benchmark
    for benchmark in (
        SyntheticBenchmark("synthetic-lines", "line", _LINES, "character error rate", error_rate=True),
        SyntheticBenchmark("synthetic-scenes", "scene", _SCENES),
        SyntheticBenchmark("synthetic-grounding", "grounding", _SCENES, "IoU >= 0.5"),
        SyntheticBenchmark("synthetic-documents", "document", _DOCUMENTS),
        SyntheticBenchmark("synthetic-pages", "document", _PAGES),
        SyntheticBenchmark("synthetic-transcripts", "document", _TRANSCRIPTS, "character error rate", error_rate=True),
        *_series("heldout", TABLE_SEED),
        *_series("choices", CHOICES_SEED),
    )
}
"""The synthetic benchmarks by name."""
