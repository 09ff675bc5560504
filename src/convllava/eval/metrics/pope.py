"""POPE: is something in the image or not."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .mme import text_of
from .profiles import Profile
from .yes_no import extract_yes_no

SPLITS = ("random", "popular", "adversarial")


def pope_scores(rows: Iterable[Mapping[str, Any]], *, profile: Profile = "paper") -> dict[str, Any]:
    """Return POPE's figures in percent.

    Args:
        rows: With category (the splits a question is part of, joined by commas), answer ("Yes" or "No") and
            prediction. A row counts once for each of its splits.
        profile: Of the yes/no extraction.

    Returns:
        ``overall`` (pooled over the splits; its ``f1`` is the number that the kit calls Overall) and ``per_split``,
        each with accuracy, precision, recall and f1. An answer that is neither is wrong, and for precision and
        recall a no. A ratio with nothing below the line is 0.
    """
    per_split: dict[str, list[tuple[str, str]]] = {}
    for row in rows:
        pair = row["answer"], extract_yes_no(text_of(row["prediction"]), profile=profile)
        for split in splits_of(row["category"]):
            per_split.setdefault(split, []).append(pair)
    pooled = [pair for pairs in per_split.values() for pair in pairs]
    return {"overall": _figures(pooled), "per_split": {split: _figures(pairs) for split, pairs in per_split.items()}}


def splits_of(category: str) -> list[str]:
    """Return the splits that a comma list names."""
    return [split.strip() for split in category.split(",")]


def _figures(pairs: Sequence[tuple[str, str]]) -> dict[str, float]:
    hits = sum(answer == predicted == "Yes" for answer, predicted in pairs)
    claimed = sum(predicted == "Yes" for _, predicted in pairs)
    present = sum(answer == "Yes" for answer, _ in pairs)
    right = sum(answer == predicted for answer, predicted in pairs)
    precision, recall = _ratio(hits, claimed), _ratio(hits, present)
    return {
        "accuracy": 100 * _ratio(right, len(pairs)),
        "precision": 100 * precision,
        "recall": 100 * recall,
        "f1": 100 * _ratio(2 * precision * recall, precision + recall),
    }


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0
