"""From a prediction file to a score that contains its protocol."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..support import write_json
from .benchmark import Benchmark, LoadOptions
from .metrics import PROFILES
from .outcome import (
    Interval,
    Outcome,
    Prediction,
    Scoring,
    bootstrap_interval,
    cluster_labels,
    sums_of_clusters,
)
from .own_data import benchmark_of
from .predictions import Line, PredictionFile, prediction_of, read_lines
from .prompts import PROMPT_PROFILES

if TYPE_CHECKING:
    from .judge import Judge


@dataclass(frozen=True)
class Score:
    """The figure of one benchmark and how it was obtained; content of ``NAME.score.json``.

    Attributes:
        value: The figure, in the benchmark's unit.
        interval: 95 % confidence interval, by bootstrap over the units.
        samples: Number of predictions, including errors.
        units: Kind and number of the units that were resampled: samples, or images, questions or documents with all
            their samples.
        unresolved: Number of texts that no answer could be extracted from; they score 0.
        errors: Number of samples that could not be answered (too long for the context, damaged image); they score 0.
        empty: Number of empty answers.
        scoring: Profile and judge.
        run: Protocol, model and versions of the run.
    """

    benchmark: str
    metric: str
    value: float
    interval: Interval
    higher_is_better: bool
    samples: int
    units: dict[str, Any]
    unresolved: int
    errors: int
    empty: int
    per_category: dict[str, float]
    figures: dict[str, Any]
    scoring: dict[str, Any]
    run: dict[str, Any] | None
    warnings: list[str]

    def write(self, folder: Path) -> Path:
        """Write ``NAME.score.json`` and return its path."""
        path = folder / f"{self.benchmark}.score.json"
        write_json(path, asdict(self))
        return path


@dataclass(frozen=True)
class ScoredPredictions:
    """A score with its predictions and their verdicts.

    Attributes:
        labels: Number of the cluster that each of the outcome's units is drawn with in a bootstrap.
    """

    score: Score
    outcome: Outcome
    predictions: list[Prediction]
    labels: dict[str, int]


def score_file(path: Path, scoring: Scoring | None = None, judge: "Judge | None" = None) -> ScoredPredictions:
    """Score a predictions file without a model.

    Args:
        path: The file ``NAME.predictions.jsonl``.
        scoring: Settings of the score; by default the paper's profile.
        judge: Judge model; None for the parsing rules alone.

    Raises:
        ValueError: The file has no predictions, or those of several benchmarks or models.
    """
    lines = list(read_lines(path))
    if not lines:
        raise ValueError(f"{path} holds no predictions")
    names = sorted({line["benchmark"] for line in lines})
    runs = {(line.get("model_fingerprint"), line.get("protocol_hash")) for line in lines}
    if len(names) > 1 or len(runs) > 1:
        raise ValueError(f"{path} mixes predictions ({len(names)} benchmarks, {len(runs)} models or protocols)")
    run = PredictionFile(path.parent, names[0]).read_protocol()
    return score_lines(benchmark_of(names[0], run), lines, scoring or Scoring(), judge, run)


def score_lines(
    benchmark: Benchmark, lines: Sequence[Line], scoring: Scoring, judge: "Judge | None", run: Mapping[str, Any] | None
) -> ScoredPredictions:
    """Score the lines of a predictions file.

    Args:
        benchmark: The benchmark.
        lines: Its predictions.
        scoring: Settings of the score.
        judge: Judge model; None for the parsing rules alone.
        run: Content of the protocol file, if there is one.

    Raises:
        ValueError: The benchmark cannot be scored without a judge, or every sample failed.
    """
    predictions = [prediction_of(line) for line in lines]
    _check_some_answered(benchmark, predictions)
    judge_entry: Any = "none (exact matching)" if benchmark.judge else None
    if judge is not None and benchmark.judge is not None:
        predictions, judge_entry = judge.judge(benchmark, predictions, scoring)
    try:
        outcome = benchmark.outcome(predictions, scoring)
    except KeyError as error:
        raise ValueError(
            f"{benchmark.title}: the row of a prediction has no {error}, which its score needs: answer it again"
        ) from error
    labels = _clusters(benchmark, outcome, predictions)
    clusters = sums_of_clusters(outcome.units, outcome.columns, labels)
    judged = zip(predictions, outcome.verdicts, strict=True)
    score = Score(
        benchmark=benchmark.name,
        metric=benchmark.metric,
        value=outcome.value,
        interval=bootstrap_interval(clusters, outcome.statistic),
        higher_is_better=benchmark.higher_is_better,
        samples=len(predictions),
        units={
            "kind": _kind_of_cluster(benchmark, predictions, len(outcome.units), len(clusters)),
            "number": len(clusters),
        },
        unresolved=sum(not verdict.resolved and prediction.error is None for prediction, verdict in judged),
        errors=sum(prediction.error is not None for prediction in predictions),
        empty=sum(prediction.error is None and not prediction.text.strip() for prediction in predictions),
        per_category=outcome.per_category,
        figures=outcome.figures,
        scoring={**asdict(scoring), "judge": judge_entry},
        run=dict(run) if run is not None else None,
        warnings=[*(run or {}).get("warnings", []), *_warnings(benchmark, predictions, run), *outcome.warnings],
    )
    return ScoredPredictions(score, outcome, predictions, labels)


def choose_profiles(profile: str, prompts: str | None = None, ocr_tokens: bool = False) -> tuple[Scoring, LoadOptions]:
    """Return the settings of scoring and of the prompts.

    Args:
        profile: Scoring rules: "paper", "current", or "llava" for LLaVA's prompts with the paper's rules.
        prompts: Source of the prompts' texts; by default that of the profile.
        ocr_tokens: Whether TextVQA's OCR tokens are shown.

    Raises:
        ValueError: A profile is unknown.
    """
    if profile == "llava":
        profile, prompts = "paper", prompts or "llava"
    texts = prompts or profile
    if profile not in PROFILES:
        raise ValueError(f"--profile must be one of {', '.join((*PROFILES, 'llava'))}, got {profile!r}")
    if texts not in PROMPT_PROFILES:
        raise ValueError(f"--prompts must be one of {', '.join(PROMPT_PROFILES)}, got {texts!r}")
    return Scoring(profile), LoadOptions(texts, ocr_tokens)


def _check_some_answered(benchmark: Benchmark, predictions: Sequence[Prediction]) -> None:
    """Check that the model has answered a sample: a figure of errors alone says nothing about it."""
    if predictions and all(prediction.error is not None for prediction in predictions):
        raise ValueError(
            f"{benchmark.title}: no score, all of {len(predictions)} samples failed; the first, "
            f"{predictions[0].sample_id}: {predictions[0].error}"
        )


def _clusters(benchmark: Benchmark, outcome: Outcome, predictions: Sequence[Prediction]) -> dict[str, int]:
    """Return the number of the cluster of each unit.

    Raises:
        ValueError: The benchmark's units have other names in `Outcome.units` than in `Benchmark.unit_of`.
    """
    units = [benchmark.unit_of(prediction) for prediction in predictions]
    labels = cluster_labels(units, [benchmark.shared_by(prediction) for prediction in predictions])
    unknown = [unit for unit in outcome.units if unit not in labels]
    if unknown or len(outcome.units) != len(labels):
        raise ValueError(
            f"{benchmark.name}: Outcome.units has {len(outcome.units)} units ({', '.join(unknown[:3])} ...) and "
            f"Benchmark.unit_of names {len(labels)}: override unit_of so that it names the units of the outcome"
        )
    return labels


def _kind_of_cluster(benchmark: Benchmark, predictions: Sequence[Prediction], num_units: int, num_clusters: int) -> str:
    if num_clusters == len(predictions):
        return "samples"
    kinds = [kind for prediction in predictions for kind in benchmark.shared_by(prediction)]
    return benchmark.unit if num_clusters == num_units or not kinds else max(kinds, key=kinds.index)


def _warnings(benchmark: Benchmark, predictions: Sequence[Prediction], run: Mapping[str, Any] | None) -> list[str]:
    warnings = []
    if run is None:
        warnings.append("there is no protocol file next to the predictions: model and protocol are unknown")
    elif len(predictions) != (num_questions := run["protocol"]["data"]["questions"]):
        warnings.append(
            f"{len(predictions)} of {num_questions} questions of {benchmark.title} are scored: not the benchmark's "
            "figure"
        )
    if not any(benchmark.shared_by(prediction) for prediction in predictions):
        warnings.append(
            "the predictions do not say which questions share an image (an earlier version wrote them): the interval "
            "takes all samples as independent and may be too narrow; answer again for the right one"
        )
    return warnings
