"""MMBench DEV_EN, v1.0 (arXiv 2307.06281): multiple choice with circular evaluation.

Each question is asked in every rotation of its options. It counts if all rotations are answered correctly.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ..benchmark import KIT_URL
from ..metrics import Profile
from ..multiple_choice import ChoiceBenchmark, extract_choice
from ..outcome import Outcome, Prediction, Row, Scoring, percent

ROTATION = 1_000_000
"""Offset between the indices of a question's rotations: rotation k of question i has index i + k * 1,000,000."""


class MMBench(ChoiceBenchmark):
    """1164 questions in 4329 rotations."""

    name = "mmbench"
    title = "MMBench DEV_EN"
    file = "MMBench_DEV_EN"
    hub = "lmms-lab/MMBench"
    hub_config = "en"
    hub_split = "dev"
    size = 4329
    known_md5 = frozenset({"b6caf1133a01c6bb705cf753bb527ed8"})
    url = f"{KIT_URL.replace('VLMEval', 'benchmarks')}/MMBench/MMBench_DEV_EN.tsv"
    metric = "circular accuracy"
    unit = "questions"

    def from_hub(self, row: Row) -> Row | None:
        kept = {name: row[name] for name in ("index", "question", "hint", "answer", *"ABCD", "category")}
        return {**kept, "l2-category": row["L2-category"]}

    def unit_of(self, prediction: Prediction) -> str:
        """Return the index of the unrotated question."""
        return str(int(prediction.row["index"]) % ROTATION)

    def outcome(self, predictions: Sequence[Prediction], scoring: Scoring) -> Outcome:
        verdicts = self.verdicts(predictions, scoring)
        rows = [
            {**prediction.row, "prediction": "", "choices": {}, "choice": verdict.extracted}
            for prediction, verdict in zip(predictions, verdicts, strict=True)
        ]
        scores = circular_scores(rows, profile=scoring.profile)
        hits = scores["hits"]
        columns = np.array([[hit, 1] for hit in hits.values()], dtype=float).reshape(-1, 2)
        shares = {**scores["per_category"], **{f"l2: {k}": v for k, v in scores["per_l2_category"].items()}}
        per_category = {name: 100 * share for name, share in shares.items()}
        figures = {
            "questions": len(hits),
            "plain_accuracy": 100 * sum(verdict.credit for verdict in verdicts) / max(1, len(verdicts)),
        }
        return Outcome(verdicts, [str(index) for index in hits], columns, percent, per_category, figures)


def circular_scores(rows: Iterable[Mapping[str, Any]], *, profile: Profile = "paper") -> dict[str, Any]:
    """Return the shares of questions that are answered correctly in every rotation.

    Args:
        rows: Rows with index, category, answer (a letter), prediction and choices (letter -> text); optionally with
            ``l2-category`` and with ``choice``, a letter that a judge has found.
        profile: Version of the choice extraction.

    Returns:
        ``overall``, ``per_category``, ``per_l2_category`` (fractions; a question has the categories of its unrotated
        row) and ``hits`` (index of the unrotated row -> bool).

    Raises:
        ValueError: An index occurs twice, or the question of a rotation is missing.
    """
    groups = _rotations(rows)
    hits = {index: all(_is_correct(row, profile) for row in group) for index, group in groups.items()}
    return {
        "overall": _share(hits.values()),
        "per_category": _shares(groups, hits, "category"),
        "per_l2_category": _shares(groups, hits, "l2-category"),
        "hits": hits,
    }


def _rotations(rows: Iterable[Mapping[str, Any]]) -> dict[int, list[Mapping[str, Any]]]:
    """Return the rows of each question by its index, the unrotated one first."""
    by_index: dict[int, Mapping[str, Any]] = {}
    for row in rows:
        index = int(row["index"])
        if index in by_index:
            raise ValueError(f"index {index} occurs twice: each rotation of a question needs its own")
        by_index[index] = row
    groups: dict[int, list[Mapping[str, Any]]] = {}
    for index in sorted(by_index):
        question = index % ROTATION
        if index >= ROTATION and question not in groups:
            raise ValueError(f"index {index} is a rotation of question {question}, which is missing")
        groups.setdefault(question, []).append(by_index[index])
    return groups


def _is_correct(row: Mapping[str, Any], profile: Profile) -> bool:
    choices = {letter: text for letter, text in row["choices"].items() if text is not None}
    letter = extract_choice(str(row["prediction"] or ""), choices, profile=profile) or row.get("choice")
    return bool(letter == row["answer"])


def _shares(
    groups: Mapping[int, Sequence[Mapping[str, Any]]], hits: Mapping[int, bool], column: str
) -> dict[str, float]:
    by_label: dict[str, list[bool]] = {}
    for index, group in groups.items():
        if group[0].get(column) is not None:
            by_label.setdefault(group[0][column], []).append(hits[index])
    return {name: _share(group) for name, group in sorted(by_label.items())}


def _share(hits: Iterable[bool]) -> float:
    values = list(hits)
    return sum(values) / len(values) if values else 0.0
