"""From a prediction file to a score that contains its protocol."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..support import write_json
from .benchmark import Benchmark, LoadOptions
from .benchmarks import find_benchmark
from .metrics import PROFILES
from .outcome import Interval, Outcome, Prediction, Scoring, bootstrap_interval
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
        units: Kind and number of the units that were resampled.
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
    """A score with its predictions and their verdicts."""

    score: Score
    outcome: Outcome
    predictions: list[Prediction]


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
    return score_lines(find_benchmark(names[0]), lines, scoring or Scoring(), judge, run)


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
        ValueError: The benchmark cannot be scored without a judge.
    """
    predictions = [prediction_of(line) for line in lines]
    judge_entry: Any = "none (exact matching)" if benchmark.judge else None
    if judge is not None and benchmark.judge is not None:
        predictions, judge_entry = judge.judge(benchmark, predictions, scoring)
    outcome = benchmark.outcome(predictions, scoring)
    judged = zip(predictions, outcome.verdicts, strict=True)
    score = Score(
        benchmark=benchmark.name,
        metric=benchmark.metric,
        value=outcome.value,
        interval=bootstrap_interval(outcome.columns, outcome.statistic),
        higher_is_better=benchmark.higher_is_better,
        samples=len(predictions),
        units={"kind": benchmark.unit, "number": len(outcome.units)},
        unresolved=sum(not verdict.resolved and prediction.error is None for prediction, verdict in judged),
        errors=sum(prediction.error is not None for prediction in predictions),
        empty=sum(prediction.error is None and not prediction.text.strip() for prediction in predictions),
        per_category=outcome.per_category,
        figures=outcome.figures,
        scoring={**asdict(scoring), "judge": judge_entry},
        run=dict(run) if run is not None else None,
        warnings=[*(run or {}).get("warnings", []), *_warnings(benchmark, len(predictions), run)],
    )
    return ScoredPredictions(score, outcome, predictions)


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


def _warnings(benchmark: Benchmark, num_predictions: int, run: Mapping[str, Any] | None) -> list[str]:
    if run is None:
        return ["there is no protocol file next to the predictions: model and protocol are unknown"]
    num_questions = run["protocol"]["data"]["questions"]
    if num_predictions == num_questions:
        return []
    return [
        f"{num_predictions} of {num_questions} questions of {benchmark.title} are scored: not the benchmark's figure"
    ]
