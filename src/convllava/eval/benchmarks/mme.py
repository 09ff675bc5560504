"""MME: two questions about each image; the figure is the perception sum."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from ..metrics.mme import COGNITION, PERCEPTION, mme_scores
from .base import Outcome, Record, Row, Scoring
from .yes_no import YesNoBenchmark

_COUNTS = 4  # columns of a subtask: right answers, questions, images with both right, images


class MME(YesNoBenchmark):
    """2374 questions of 14 subtasks, at most 2000 points for perception and 800 for cognition."""

    name = "mme"
    title = "MME"
    file = "MME"
    hub = "lmms-lab/MME"
    columns = ("question", "answer", "category", "image_path")
    size = 2374
    known_md5 = frozenset({"b36b43c3f09801f5d368627fb92187c3"})
    metric = "perception points"
    unit = "images"
    drops_request = True

    def from_hub(self, row: Row) -> Row | None:
        question_id = row["question_id"]
        return {
            "index": f"{row['category']}/{question_id}/{row['answer']}",
            "question": row["question"],
            "answer": row["answer"],
            "category": row["category"],
            "image_path": question_id,
        }

    def outcome(self, records: Sequence[Record], scoring: Scoring) -> Outcome:
        verdicts = [self.verdict(record, scoring) for record in records]
        pairs = zip(records, verdicts, strict=True)
        rows = [{**record.row, "prediction": verdict.extracted} for record, verdict in pairs]
        scores = mme_scores(rows, profile=scoring.profile)
        units, columns = _per_image(records, [bool(verdict.credit) for verdict in verdicts])
        figures: dict[str, Any] = {name: scores[name] for name in ("perception", "cognition")}
        figures |= {name: scores[name] for name in ("accuracy", "accuracy_plus")}
        return Outcome(verdicts, units, columns, partial(_points, PERCEPTION), scores["per_category"], figures)


def _per_image(records: Sequence[Record], right: Sequence[bool]) -> tuple[list[str], np.ndarray]:
    """Return the images and their counts (images, subtasks x 4)."""
    images: dict[tuple[str, str], list[bool]] = {}
    for record, own in zip(records, right, strict=True):
        images.setdefault((record.row["category"], str(record.row["image_path"])), []).append(own)
    subtasks = (*PERCEPTION, *COGNITION)
    columns = np.zeros((len(images), len(subtasks) * _COUNTS))
    for line, ((category, _), answers) in zip(columns, images.items(), strict=True):
        if category in subtasks:
            start = subtasks.index(category) * _COUNTS
            both = len(answers) > 1 and all(answers[:2])
            line[start : start + _COUNTS] = sum(answers), len(answers), both, 1
    return [f"{category}/{path}" for category, path in images], columns


def _points(subtasks: Sequence[str], sums: np.ndarray) -> np.ndarray:
    """Return the perception points of sums (..., subtasks x 4), whose first subtasks are these."""
    counts = sums.reshape(*sums.shape[:-1], -1, _COUNTS)[..., : len(subtasks), :]
    right, questions, both, images = (counts[..., number] for number in range(_COUNTS))
    shares = right / np.maximum(questions, 1) + both / np.maximum(images, 1)
    points: np.ndarray = 100 * shares.sum(axis=-1)
    return points
