"""From predictions to a score that says how it was made."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .benchmarks import Benchmark, Outcome, Record, Scoring, find_benchmark
from .bootstrap import Interval, interval
from .predictions import Line, PredictionFile, read_lines, write_json


@dataclass(frozen=True)
class Score:
    """The figure of one benchmark and how it was made.

    Attributes:
        value: In the benchmark's own unit.
        interval: 95 %, by bootstrap over the units.
        samples: Answers scored, errors among them.
        units: What was drawn in the bootstrap, and how many there are.
        unresolved: Answers that nothing could be read out of; they are wrong.
        errors: Questions that could not be answered (longer than the context, damaged image); they are wrong.
        scoring: Profile, judge and the like.
        run: Protocol, model and versions, as the run wrote them.
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


def score_file(
    path: Path, scoring: Scoring | None = None, judge: Any = None, *, warnings: Sequence[str] = ()
) -> tuple[Score, Outcome, list[Record]]:
    """Score a predictions file without a model.

    Args:
        path: ``NAME.predictions.jsonl``.
        scoring: Profile; the default is the paper's.
        judge: A `judge.Judge`, or None for exact matching.
        warnings: To go into the score.

    Raises:
        ValueError: The file holds no predictions, or those of several benchmarks or models.
    """
    lines = list(read_lines(path))
    if not lines:
        raise ValueError(f"{path} holds no predictions")
    names = sorted({line["benchmark"] for line in lines})
    makers = {(line.get("model_fingerprint"), line.get("protocol_hash")) for line in lines}
    if len(names) > 1 or len(makers) > 1:
        raise ValueError(f"{path} mixes predictions ({len(names)} benchmarks, {len(makers)} models or protocols)")
    card = PredictionFile(path.parent, names[0]).read_card()
    return score_lines(find_benchmark(names[0]), lines, scoring or Scoring(), judge, card, warnings)


def score_lines(
    benchmark: Benchmark,
    lines: Sequence[Line],
    scoring: Scoring,
    judge: Any,
    card: Mapping[str, Any] | None,
    warnings: Sequence[str] = (),
) -> tuple[Score, Outcome, list[Record]]:
    """Score answers; also return what became of each."""
    records = [_record(line) for line in lines]
    said: dict[str, Any] = {"judge": "none (exact matching)" if benchmark.judge else None}
    if judge is not None and benchmark.judge is not None:
        records, said["judge"] = judge.judge(benchmark, records, scoring)
    outcome = benchmark.outcome(records, scoring)
    judged = zip(records, outcome.verdicts, strict=True)
    score = Score(
        benchmark=benchmark.name,
        metric=benchmark.metric,
        value=outcome.value,
        interval=interval(outcome.columns, outcome.statistic),
        higher_is_better=benchmark.higher_is_better,
        samples=len(records),
        units={"kind": benchmark.unit, "number": len(outcome.units)},
        unresolved=sum(not verdict.resolved and record.error is None for record, verdict in judged),
        errors=sum(record.error is not None for record in records),
        empty=sum(record.error is None and not record.prediction.strip() for record in records),
        per_category=outcome.per_category,
        figures=outcome.figures,
        scoring={**asdict(scoring), **said},
        run=dict(card) if card is not None else None,
        warnings=[*(card or {}).get("warnings", []), *_own_warnings(benchmark, records, card), *warnings],
    )
    return score, outcome, records


def _record(line: Line) -> Record:
    return Record(line["sample_id"], line["row"], line["prediction"] or "", line["error"])


def _own_warnings(benchmark: Benchmark, records: Sequence[Record], card: Mapping[str, Any] | None) -> list[str]:
    if card is None:
        return ["there is no protocol file beside the predictions: nobody can say how they were made"]
    whole = card["protocol"]["data"]["questions"]
    if len(records) == whole:
        return []
    return [f"{len(records)} of {whole} questions of {benchmark.title} are scored: not the benchmark's figure"]
