"""The synthetic benchmarks of ``eval.synthetic`` as all others: drawn, not read."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...synthetic import SyntheticDataset
from .. import held_out, synthetic
from ..prompts import Part, PromptProfile, images_first
from ..sources.table import LoadedImage
from .base import Benchmark, EvalSample, EvalSet, LoadOptions, Outcome, Record, Row, Scoring, Verdict, ratio

_LOOKED_AT = range(3)
"""Samples that are compared with those on record before a run."""


class DrawnBenchmark(Benchmark):
    """A synthetic benchmark; its definition, and what counts as right, are those of ``eval.synthetic``."""

    own_prompt_format = True

    def __init__(self, name: str, definition: synthetic.Benchmark) -> None:
        self.definition = definition
        self.name, self.title = name, name.replace("-", " ")
        self.metric = definition.metric
        self.higher_is_better = definition.higher_is_better

    def is_there(self, data: Path) -> bool:
        return True

    def load(self, data: Path, options: LoadOptions) -> EvalSet:
        """Return the samples, which are drawn one by one as they are asked for."""
        return _DrawnSet(self.name, self.definition)

    def parts(self, row: Row, images: int, options: LoadOptions) -> list[Part]:
        return images_first(str(row["question"]), images)

    def max_new_tokens(self, prompts: PromptProfile) -> int | None:
        return None

    def verdict(self, record: Record, scoring: Scoring) -> Verdict:
        if record.error is not None:
            return Verdict(0.0, None, resolved=False)
        right = synthetic.is_right_answer(record.prediction, record.row["answer"], _size(record.row))
        return Verdict(float(right), record.prediction, bool(record.prediction.strip()))

    def outcome(self, records: Sequence[Record], scoring: Scoring) -> Outcome:
        count = self.definition.count
        counts = [count(record.prediction, record.row["answer"], _size(record.row)) for record in records]
        columns = np.array(counts, dtype=float).reshape(-1, 2)
        verdicts = [self.verdict(record, scoring) for record in records]
        return Outcome(verdicts, [record.sample_id for record in records], columns, ratio, {})


def _size(row: Row) -> tuple[int, int]:
    return row["width"], row["height"]


class _DrawnSet:
    """Samples that are drawn when they are asked for."""

    def __init__(self, name: str, definition: synthetic.Benchmark) -> None:
        self._source: SyntheticDataset = definition.samples()
        self.ids: Sequence[str] = [f"{name}/{index}" for index in range(len(self._source))]
        self.data = {
            "drawn": definition.kind,
            "options": definition.options,
            "seed": self._source.seed,
            "split": self._source.split,
            "questions": len(self._source),
        }
        is_on_record = name in synthetic.BENCHMARKS  # others are drawn for a study, with options of their own
        self.warnings = held_out.warnings_about(name, _LOOKED_AT) if is_on_record else []

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> EvalSample:
        drawn = self._source[index]
        image: Any = drawn.images[0]
        row = {
            "question": synthetic.question_of(drawn),
            "answer": synthetic.truth_of(drawn),
            "width": image.width,
            "height": image.height,
        }
        return EvalSample(self.ids[index], row, (LoadedImage(image),))

    def image_sizes(self, index: int) -> list[tuple[int, int]]:
        return [(width, height) for height, width in self._source.image_sizes(index)]


def all_drawn() -> list[DrawnBenchmark]:
    """Return the synthetic benchmarks in the order of their definitions."""
    return [DrawnBenchmark(name, definition) for name, definition in synthetic.BENCHMARKS.items()]
