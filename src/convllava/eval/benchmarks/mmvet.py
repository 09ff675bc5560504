"""MM-Vet (arXiv 2308.02490): open questions, scored by a judge with points from 0 to 1."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..benchmark import Benchmark, LoadOptions
from ..outcome import Outcome, Prediction, Row, Scoring, Verdict, failed_verdict
from ..prompts import PromptPart, images_first


class MMVet(Benchmark):
    """218 questions; there is no figure without a judge."""

    name = "mmvet"
    title = "MM-Vet"
    file = "MMVet"
    hub = "lmms-lab/MMVet"
    columns = ("question", "answer", "category")
    size = 218
    known_md5 = frozenset({"748aa6d4aa9d4de798306a63718455e3"})
    metric = "judge's points"
    judge = "points"
    needs_judge = True

    def from_hub(self, row: Row) -> Row | None:
        return {
            "index": row["question_id"],
            "question": row["question"],
            "answer": row["answer"],
            "category": row["capability"],
        }

    def prompt(self, row: Row, num_images: int, options: LoadOptions) -> list[PromptPart]:
        return images_first(str(row["question"]), num_images)

    def verdict(self, prediction: Prediction, scoring: Scoring) -> Verdict:
        """Return the judge's points; 0 after an error.

        Raises:
            ValueError: The answer has not been judged.
        """
        if prediction.error is not None:
            return failed_verdict()
        if prediction.judgment is None:
            raise ValueError(
                f"MM-Vet, sample {prediction.sample_id}: there are no points without a judge; give --judge-url and "
                "--judge-model"
            )
        points = float(prediction.judgment)
        return Verdict(points, f"{points:g}")

    def categories(self, row: Row) -> Sequence[str]:
        return capabilities_of(row["category"])

    def outcome(self, predictions: Sequence[Prediction], scoring: Scoring) -> Outcome:
        plain = super().outcome(predictions, scoring)
        pairs = zip(predictions, plain.verdicts, strict=True)
        rows = [{"category": prediction.row["category"], "score": verdict.credit} for prediction, verdict in pairs]
        scores = mmvet_scores(rows)
        figures = {"per_combination": scores["per_combination"]}
        return replace(plain, per_category=scores["per_capability"], figures=figures)


def capabilities_of(category: str) -> list[str]:
    """Return the capabilities (rec, ocr, know, gen, spat, math) in a list separated by commas."""
    return [name.strip() for name in category.split(",")]


def mmvet_scores(rows: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return mean points in percent.

    Args:
        rows: Rows with category (capabilities joined by commas) and score, from 0 to 1.

    Returns:
        ``overall``, ``per_capability`` and ``per_combination`` (capabilities joined by ``_``).
    """
    rows = list(rows)
    capabilities, combinations = group_points(rows)
    return {
        "overall": mean_percent([float(row["score"]) for row in rows]),
        "per_capability": {name: mean_percent(points) for name, points in capabilities.items()},
        "per_combination": {name: mean_percent(points) for name, points in combinations.items()},
    }


def group_points(rows: Iterable[Mapping[str, Any]]) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Return the points of each capability, and those of each combination of capabilities."""
    capabilities: dict[str, list[float]] = {}
    combinations: dict[str, list[float]] = {}
    for row in rows:
        points, names = float(row["score"]), capabilities_of(row["category"])
        for name in names:
            capabilities.setdefault(name, []).append(points)
        combinations.setdefault("_".join(names), []).append(points)
    return capabilities, combinations


def mean_percent(points: Sequence[float]) -> float:
    """Return the mean of points in percent; 0 without any."""
    return 100 * sum(points) / len(points) if points else 0.0
