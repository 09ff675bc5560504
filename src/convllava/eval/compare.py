"""Compare two models on the same samples: the difference with its interval, and the samples that changed."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .outcome import Interval, Prediction, Scoring, paired_interval, paired_test, sums_of_clusters
from .predictions import protocol_differences
from .prompts import answer_of, question_of
from .scoring import Score, ScoredPredictions, score_file

_MODEL_ENTRIES = ("decoding.dtype",)
"""Entries of a protocol that depend on the model and may always differ."""


@dataclass(frozen=True)
class Change:
    """A sample whose credit differs."""

    sample_id: str
    question: str
    answer: str
    predictions: tuple[str, str]
    credits: tuple[float, float]


@dataclass(frozen=True)
class Comparison:
    """Two scores and their difference, which is second minus first.

    Attributes:
        p_value: Probability of a difference at least as large between equally good models (`outcome.paired_test`).
        unit: Word for what is drawn and swapped as one: samples, or the images that several questions share.
    """

    scores: tuple[Score, Score]
    difference: float
    interval: Interval
    p_value: float
    unit: str
    changes: list[Change]

    @property
    def is_clear(self) -> bool:
        """Whether the interval excludes 0."""
        return not self.interval[0] <= 0 <= self.interval[1]


def compare(first: Path, second: Path, scoring: Scoring | None = None, *, allowed: Sequence[str] = ()) -> Comparison:
    """Compare two predictions files of one benchmark.

    Args:
        first, second: The files ``NAME.predictions.jsonl`` of two models.
        scoring: Settings of the score.
        allowed: Entries of the protocol that may differ, such as ``image.resolution``.

    Raises:
        ValueError: Benchmarks, protocols or samples differ; the message names the difference.
    """
    ours, theirs = score_file(first, scoring), score_file(second, scoring)
    _check_protocols(ours.score, theirs.score, first, second, (*_MODEL_ENTRIES, *allowed))
    _check_samples(ours.predictions, theirs.predictions)
    first_sums, second_sums = _paired_sums(ours, theirs)
    return Comparison(
        scores=(ours.score, theirs.score),
        difference=theirs.score.value - ours.score.value,
        interval=paired_interval(second_sums, first_sums, ours.outcome.statistic),
        p_value=paired_test(first_sums, second_sums, ours.outcome.statistic),
        unit=str(theirs.score.units["kind"]),
        changes=_changes(ours, theirs),
    )


def _check_protocols(ours: Score, theirs: Score, first: Path, second: Path, allowed: tuple[str, ...]) -> None:
    if ours.benchmark != theirs.benchmark:
        raise ValueError(f"{first} is {ours.benchmark} and {second} is {theirs.benchmark}: give one benchmark's files")
    if ours.run is None or theirs.run is None:
        incomplete = first if ours.run is None else second
        raise ValueError(f"there is no protocol file next to {incomplete}: the two cannot be compared")
    found = protocol_differences(ours.run["protocol"], theirs.run["protocol"])
    found = [difference for difference in found if not difference.startswith(allowed)]
    if found:
        raise ValueError(
            f"{first} and {second} have different protocols: {'; '.join(found)}; to compare them all the same, name "
            "the entries with --allow"
        )


def _check_samples(ours: list[Prediction], theirs: list[Prediction]) -> None:
    first, second = ({prediction.sample_id for prediction in predictions} for predictions in (ours, theirs))
    if first != second:
        raise ValueError(
            f"the files answer different samples: {len(first - second)} only in the first, {len(second - first)} only "
            "in the second; run both with the same --limit"
        )


def _paired_sums(ours: ScoredPredictions, theirs: ScoredPredictions) -> tuple[np.ndarray, np.ndarray]:
    """Return the counts of both files, (clusters, k) each; samples that share an image are one cluster."""
    is_finer = len(set(ours.labels.values())) > len(set(theirs.labels.values()))
    labels = theirs.labels if is_finer else ours.labels  # predictions of earlier versions do not name their images
    first, second = (sums_of_clusters(each.outcome.units, each.outcome.columns, labels) for each in (ours, theirs))
    return first, second


def _changes(ours: ScoredPredictions, theirs: ScoredPredictions) -> list[Change]:
    pairs = zip(theirs.predictions, theirs.outcome.verdicts, strict=True)
    others = {prediction.sample_id: (prediction, verdict) for prediction, verdict in pairs}
    changes = []
    for prediction, verdict in zip(ours.predictions, ours.outcome.verdicts, strict=True):
        other, other_verdict = others[prediction.sample_id]
        if verdict.credit != other_verdict.credit:
            changes.append(
                Change(
                    prediction.sample_id,
                    question_of(prediction.row),
                    answer_of(prediction.row),
                    (prediction.text, other.text),
                    (verdict.credit, other_verdict.credit),
                )
            )
    return changes
