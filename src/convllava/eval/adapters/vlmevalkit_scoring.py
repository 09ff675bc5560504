"""Scores with the known mistakes of VLMEvalKit, to check them against figures that the kit printed.

The kit loses options such as "None" and "NA" (pandas reads them as missing), reads predictions back from an Excel file
(which turns some into "nan" or "0"), and counts MM-Vet's single capabilities twice.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..benchmark import Benchmark
from ..benchmarks.mmmu import MMMU
from ..benchmarks.mmvet import MMVet, group_points, mean_percent
from ..outcome import Outcome, Prediction, Row, Scoring

_PANDAS_MISSING = "#N/A #NA -1.#IND -1.#QNAN -NaN -nan 1.#IND 1.#QNAN <NA> N/A NA NULL NaN None n/a nan null"
KIT_MISSING = frozenset({"", "#N/A N/A", *_PANDAS_MISSING.split()})
"""Texts that pandas reads as missing cells by default."""


def kit_outcome(benchmark: Benchmark, predictions: Sequence[Prediction], scoring: Scoring) -> Outcome:
    """Score predictions as VLMEvalKit does, including its mistakes."""
    read_back = [
        replace(prediction, row=kit_row(prediction.row), text=_kit_text(prediction)) for prediction in predictions
    ]
    if isinstance(benchmark, MMMU):
        benchmark = MMMU(kit_reading=True)
    outcome = benchmark.outcome(read_back, scoring)
    if not isinstance(benchmark, MMVet):
        return outcome
    pairs = zip(predictions, outcome.verdicts, strict=True)
    rows = [{"category": prediction.row["category"], "score": verdict.credit} for prediction, verdict in pairs]
    scores = kit_mmvet_scores(rows)
    figures = {"per_combination": scores["per_combination"]}
    return replace(outcome, per_category=scores["per_capability"], figures=figures)


def kit_row(row: Row) -> Row:
    """Return a row with None for the texts that pandas reads as missing."""
    return {name: None if isinstance(cell, str) and cell in KIT_MISSING else cell for name, cell in row.items()}


def kit_text(text: str) -> str:
    """Return a prediction as the kit reads it back from its Excel file."""
    if text in KIT_MISSING:
        return "nan"
    return "0" if text.startswith("=") else text


def kit_mmvet_scores(rows: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return MM-Vet's figures with the rows of a single capability counted twice for it.

    In the kit, capabilities and combinations of them share their counters.

    Args:
        rows: Rows with category (capabilities joined by commas) and score, from 0 to 1.

    Returns:
        ``overall``, ``per_capability`` and ``per_combination`` in percent.
    """
    rows = list(rows)
    capabilities, combinations = group_points(rows)
    for name in capabilities.keys() & combinations.keys():
        capabilities[name] = combinations[name] = capabilities[name] + combinations[name]
    return {
        "overall": mean_percent([float(row["score"]) for row in rows]),
        "per_capability": {name: mean_percent(points) for name, points in capabilities.items()},
        "per_combination": {name: mean_percent(points) for name, points in combinations.items()},
    }


def _kit_text(prediction: Prediction) -> str:
    return prediction.text if prediction.error is not None else kit_text(prediction.text)
