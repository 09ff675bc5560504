"""POPE: is something in the image; the figure is F1 pooled over three ways of asking for what is not there."""

from collections.abc import Sequence

import numpy as np

from ..metrics.pope import pope_scores, splits_of
from ..sources import Table
from .base import Outcome, Record, Row, Scoring
from .yes_no import YesNoBenchmark


class POPE(YesNoBenchmark):
    """5127 questions that stand for 9000: those of several splits are asked once."""

    name = "pope"
    title = "POPE"
    file = "POPE"
    hub = "lmms-lab/POPE"
    columns = ("question", "answer", "category")
    size = 5127
    known_md5 = frozenset({"c12f5acb142f2ef1f85a26ba2fbe41d5"})
    metric = "F1 (pooled)"

    def from_hub(self, row: Row) -> Row | None:
        """The hub has each question once for each of its splits, and small letters."""
        return {
            "index": f"{row['category']}/{row['question_id']}",
            "question": row["question"],
            "answer": str(row["answer"]).strip().capitalize(),
            "category": row["category"],
        }

    def check(self, table: Table, count: int) -> list[str]:
        """The hub's 9000 questions are the same set."""
        return [line for line in super().check(table, count) if count != 9000 or "questions" not in line]

    def outcome(self, records: Sequence[Record], scoring: Scoring) -> Outcome:
        verdicts = [self.verdict(record, scoring) for record in records]
        pairs = zip(records, verdicts, strict=True)
        rows = [{**record.row, "prediction": verdict.extracted} for record, verdict in pairs]
        scores = pope_scores(rows, profile=scoring.profile)
        columns = np.array([_counts(row) for row in rows], dtype=float).reshape(-1, 3)
        per_category = {split: figures["f1"] for split, figures in scores["per_split"].items()}
        units = [record.sample_id for record in records]
        figures = {**scores["overall"], "per_split": scores["per_split"]}
        return Outcome(verdicts, units, columns, _f1, per_category, figures)


def _counts(row: Row) -> tuple[int, int, int]:
    """Return hits, claims and presences of one question, once for each of its splits."""
    times = len(splits_of(row["category"]))
    claimed, present = row["prediction"] == "Yes", row["answer"] == "Yes"
    return times * (claimed and present), times * claimed, times * present


def _f1(sums: np.ndarray) -> np.ndarray:
    hits, claimed, present = sums[..., 0], sums[..., 1], sums[..., 2]
    value: np.ndarray = 200 * hits / np.maximum(claimed + present, 1)
    return value
