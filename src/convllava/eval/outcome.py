"""From predictions to a figure: the types that every benchmark's scoring uses, and bootstrap intervals."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .metrics import UNKNOWN, Profile, extract_yes_no

Row = dict[str, Any]
"""One row of a benchmark's table, without its images."""

Statistic = Callable[[np.ndarray], np.ndarray]
"""Function from sums over units (..., k) to values (...)."""

Interval = tuple[float, float]

REPLICATES = 1000
PERMUTATIONS = 9999
COVERAGE = 0.95
SEED = 0
_MAX_COUNTS = 1 << 24
"""Resampling counts held in memory at a time."""


@dataclass(frozen=True)
class Scoring:
    """Settings of a score.

    Attributes:
        profile: Version of VLMEvalKit whose parsing rules and metrics apply.
    """

    profile: Profile = "paper"


@dataclass(frozen=True)
class Prediction:
    """A sample with the model's answer.

    Attributes:
        text: The model's answer; empty after an error.
        error: Reason why the sample could not be answered.
        judgment: Reply of a judge: a letter, "Yes" or "No", or points.
        images: Names of the images, equal for samples that show the same image; empty if they are unknown.
    """

    sample_id: str
    row: Row
    text: str
    error: str | None = None
    judgment: str | float | None = None
    images: tuple[str, ...] = ()


@dataclass(frozen=True)
class Verdict:
    """Score of one prediction.

    Attributes:
        credit: Score from 0 to 1.
        extracted: The part of the answer that was scored, for display.
        resolved: Whether an answer could be extracted from the text.
    """

    credit: float
    extracted: str | None = None
    resolved: bool = True


@dataclass(frozen=True)
class Outcome:
    """Score of all predictions of a benchmark.

    Attributes:
        verdicts: One for each prediction, in their order.
        units: Names of the units that are scored as one: samples, questions with all rotations, or pairs of questions.
        columns: Counts of shape (units, k); the figure is ``statistic`` of their sums.
        per_category: Figure of each category.
        figures: Further figures of the benchmark.
        warnings: Notes for the readers of the score.
    """

    verdicts: list[Verdict]
    units: list[str]
    columns: np.ndarray
    statistic: Statistic
    per_category: dict[str, float]
    figures: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    @property
    def value(self) -> float:
        """The benchmark's figure."""
        return float(self.statistic(self.columns.sum(axis=0)))


def percent(sums: np.ndarray) -> np.ndarray:
    """Return 100 times the first column over the second, from shape (..., 2) to (...)."""
    return 100 * ratio(sums)


def ratio(sums: np.ndarray) -> np.ndarray:
    """Return the first column over the second, from shape (..., 2) to (...); 0 where the second is 0."""
    total = sums[..., 1]
    return np.divide(sums[..., 0], total, out=np.zeros(total.shape), where=total != 0)


def mean_outcome(
    predictions: Sequence[Prediction],
    verdicts: list[Verdict],
    categories: Callable[[Row], Sequence[str]],
    statistic: Statistic = percent,
) -> Outcome:
    """Return the outcome of a benchmark whose figure is the mean credit."""
    columns = np.array([[verdict.credit, 1] for verdict in verdicts], dtype=float).reshape(-1, 2)
    sums: dict[str, np.ndarray] = {}
    for prediction, counts in zip(predictions, columns, strict=True):
        for name in categories(prediction.row):
            sums[name] = sums.get(name, np.zeros(2)) + counts
    per_category = {name: float(statistic(total)) for name, total in sums.items()}
    return Outcome(verdicts, sample_ids(predictions), columns, statistic, per_category)


def sample_ids(predictions: Sequence[Prediction]) -> list[str]:
    """Return the ids of predictions, in order."""
    return [prediction.sample_id for prediction in predictions]


def failed_verdict() -> Verdict:
    """Return the verdict on a sample that could not be answered."""
    return Verdict(0.0, None, resolved=False)


def yes_no_verdict(prediction: Prediction, scoring: Scoring) -> Verdict:
    """Score a yes/no answer; a judgment replaces an answer that is neither."""
    if prediction.error is not None:
        return Verdict(0.0, UNKNOWN, resolved=False)
    answer = extract_yes_no(prediction.text, profile=scoring.profile)
    if answer == UNKNOWN and prediction.judgment is not None:
        answer = str(prediction.judgment)
    return Verdict(float(answer == prediction.row["answer"]), answer, answer != UNKNOWN)


def cluster_labels(units: Sequence[str], shared: Sequence[Mapping[str, Iterable[str]]]) -> dict[str, int]:
    """Return a number for each unit, equal for units that share something, directly or by way of others.

    Questions about one image are not independent: a bootstrap that draws them one by one gives too narrow an interval.

    Args:
        units: Name of the unit of each sample.
        shared: Names of what each sample may share with others, such as its images, by kind.
    """
    parents: dict[tuple[str, str], tuple[str, str]] = {}

    def root(node: tuple[str, str]) -> tuple[str, str]:
        parents.setdefault(node, node)
        while parents[node] != node:
            parents[node] = parents[parents[node]]
            node = parents[node]
        return node

    for unit, names_by_kind in zip(units, shared, strict=True):
        for kind, names in names_by_kind.items():
            for name in names:
                parents[root((kind, name))] = root(("", unit))
    numbers: dict[tuple[str, str], int] = {}
    return {unit: numbers.setdefault(root(("", unit)), len(numbers)) for unit in dict.fromkeys(units)}


def sums_of_clusters(units: Sequence[str], columns: np.ndarray, labels: Mapping[str, int]) -> np.ndarray:
    """Return the sums of the counts of each cluster, from shape (units, k) to (clusters, k).

    Args:
        units: Name of each unit.
        columns: Counts of each unit.
        labels: Number of the cluster of each unit (`cluster_labels`).
    """
    sums = np.zeros((len(set(labels.values())), *columns.shape[1:]))
    np.add.at(sums, [labels[unit] for unit in units], columns)
    return sums


def bootstrap_interval(columns: np.ndarray, statistic: Statistic, replicates: int = REPLICATES) -> Interval:
    """Return the 95 % percentile interval of a figure whose units, of shape (units, k), are resampled."""
    return _percentiles(statistic(_resampled_sums(columns, replicates)))


def paired_interval(
    first: np.ndarray, second: np.ndarray, statistic: Statistic, replicates: int = REPLICATES
) -> Interval:
    """Return the interval of first minus second; the same units, of shape (units, k), are drawn for both."""
    return _percentiles(statistic(_resampled_sums(first, replicates)) - statistic(_resampled_sums(second, replicates)))


def paired_test(first: np.ndarray, second: np.ndarray, statistic: Statistic, permutations: int = PERMUTATIONS) -> float:
    """Return the two-sided p value of the hypothesis that two models are equally good.

    A permutation swaps the counts of both models in each unit, of shape (units, k), with probability one half. The
    value is the share of permutations, the observed one included, whose difference is at least the observed one.
    """
    random = np.random.default_rng(SEED)
    total = first.sum(axis=0) + second.sum(axis=0)
    observed = abs(_difference(second.sum(axis=0), total, statistic))
    at_least = 0
    chunk = max(1, _MAX_COUNTS // max(1, len(first)))
    for start in range(0, permutations, chunk):
        swapped = random.integers(0, 2, size=(min(chunk, permutations - start), len(first))).astype(float)
        sums = second.sum(axis=0) + swapped @ (first - second)
        at_least += int((np.abs(_difference(sums, total, statistic)) >= observed - 1e-9).sum())
    return (at_least + 1) / (permutations + 1)


def _difference(sums: np.ndarray, total: np.ndarray, statistic: Statistic) -> np.ndarray:
    """Return the figure of one model minus that of the other, from the sums of one and of both (..., k)."""
    return statistic(sums) - statistic(total - sums)


def _percentiles(values: np.ndarray) -> Interval:
    low, high = np.quantile(values, [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2])
    return float(low), float(high)


def _resampled_sums(columns: np.ndarray, replicates: int) -> np.ndarray:
    """Return sums over resampled units, from shape (units, k) to (replicates, k)."""
    return np.concatenate([counts @ columns for counts in _resampling_counts(len(columns), replicates)])


def _resampling_counts(units: int, replicates: int) -> Iterator[np.ndarray]:
    """Yield how often each unit is drawn, in chunks (replicates, units); equal for equal numbers of units."""
    random = np.random.default_rng(SEED)
    chunk = max(1, _MAX_COUNTS // max(1, units))
    for first in range(0, replicates, chunk):
        size = min(chunk, replicates - first)
        yield random.multinomial(units, np.full(units, 1 / units), size=size).astype(float)
