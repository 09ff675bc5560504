"""POPE (arXiv 2305.10355): "Is there a ... in the image?", with absent objects chosen in three ways.

The figure is F1, pooled over the splits random, popular and adversarial.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ..benchmark import Benchmark, LoadOptions
from ..metrics import Profile, extract_yes_no
from ..outcome import Outcome, Prediction, Row, Scoring, Verdict, sample_ids, yes_no_verdict
from ..prompts import SINGLE_WORD, PromptPart, images_first
from ..table import Table


class POPE(Benchmark):
    """5127 questions that count as 9000, since a question of several splits is asked once."""

    name = "pope"
    title = "POPE"
    file = "POPE"
    hub = "lmms-lab/POPE"
    columns = ("question", "answer", "category")
    size = 5127
    known_md5 = frozenset({"c12f5acb142f2ef1f85a26ba2fbe41d5"})
    metric = "F1 (pooled)"
    judge = "yes_no"

    def from_hub(self, row: Row) -> Row | None:
        """Return a row of the hub, which has each question once for each of its splits, with answers in lower case."""
        return {
            "index": f"{row['category']}/{row['question_id']}",
            "question": row["question"],
            "answer": str(row["answer"]).strip().capitalize(),
            "category": row["category"],
        }

    def data_warnings(self, table: Table, num_questions: int) -> list[str]:
        """Return warnings; the hub's 9000 questions are the same set and get none."""
        warnings = super().data_warnings(table, num_questions)
        return [warning for warning in warnings if num_questions != 9000 or "questions" not in warning]

    def prompt(self, row: Row, num_images: int, options: LoadOptions) -> list[PromptPart]:
        request = f"\n{SINGLE_WORD}" if options.prompts == "llava" else ""
        return images_first(str(row["question"]) + request, num_images)

    def verdict(self, prediction: Prediction, scoring: Scoring) -> Verdict:
        return yes_no_verdict(prediction, scoring)

    def outcome(self, predictions: Sequence[Prediction], scoring: Scoring) -> Outcome:
        verdicts = self.verdicts(predictions, scoring)
        pairs = zip(predictions, verdicts, strict=True)
        rows = [{**prediction.row, "prediction": verdict.extracted} for prediction, verdict in pairs]
        scores = pope_scores(rows, profile=scoring.profile)
        columns = np.array([_counts(row) for row in rows], dtype=float).reshape(-1, 3)
        per_category = {split: figures["f1"] for split, figures in scores["per_split"].items()}
        figures = {**scores["overall"], "per_split": scores["per_split"]}
        return Outcome(verdicts, sample_ids(predictions), columns, _f1, per_category, figures)


def pope_scores(rows: Iterable[Mapping[str, Any]], *, profile: Profile = "paper") -> dict[str, Any]:
    """Return POPE's figures in percent.

    Args:
        rows: Rows with category (splits of the question, joined by commas), answer ("Yes" or "No") and prediction. A
            row counts once for each of its splits.
        profile: Version of the yes/no extraction.

    Returns:
        ``overall`` (pooled over the splits; its ``f1`` is VLMEvalKit's "Overall") and ``per_split``, each with
        accuracy, precision, recall and f1. An answer that is neither yes nor no is wrong and counts as a no for
        precision and recall. A ratio whose denominator is 0 is 0.
    """
    per_split: dict[str, list[tuple[str, str]]] = {}
    for row in rows:
        pair = row["answer"], extract_yes_no(str(row["prediction"] or ""), profile=profile)
        for split in _splits_of(row["category"]):
            per_split.setdefault(split, []).append(pair)
    pooled = [pair for pairs in per_split.values() for pair in pairs]
    return {"overall": _figures(pooled), "per_split": {split: _figures(pairs) for split, pairs in per_split.items()}}


def _splits_of(category: str) -> list[str]:
    return [split.strip() for split in category.split(",")]


def _figures(pairs: Sequence[tuple[str, str]]) -> dict[str, float]:
    """Return the figures of (true answer, predicted answer) pairs."""
    hits = sum(answer == predicted == "Yes" for answer, predicted in pairs)
    predicted_yes = sum(predicted == "Yes" for _, predicted in pairs)
    true_yes = sum(answer == "Yes" for answer, _ in pairs)
    correct = sum(answer == predicted for answer, predicted in pairs)
    precision, recall = _ratio(hits, predicted_yes), _ratio(hits, true_yes)
    return {
        "accuracy": 100 * _ratio(correct, len(pairs)),
        "precision": 100 * precision,
        "recall": 100 * recall,
        "f1": 100 * _ratio(2 * precision * recall, precision + recall),
    }


def _ratio(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator else 0.0


def _counts(row: Row) -> tuple[int, int, int]:
    """Return (hits, predicted yes, true yes) of a question, each times the number of its splits."""
    times = len(_splits_of(row["category"]))
    predicted, true = row["prediction"] == "Yes", row["answer"] == "Yes"
    return times * (predicted and true), times * predicted, times * true


def _f1(sums: np.ndarray) -> np.ndarray:
    """Return F1 in percent, from counts (..., 3) to (...)."""
    hits, predicted, true = sums[..., 0], sums[..., 1], sums[..., 2]
    value: np.ndarray = 200 * hits / np.maximum(predicted + true, 1)
    return value
