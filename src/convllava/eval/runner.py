"""Runs a benchmark: every sample answered, every answer written down, one figure."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from ..data.samples import Sample
from ..inference import Answer, Generator, Request
from .synthetic import BENCHMARKS, Benchmark, is_right, question_of, truth_of

OnProgress = Callable[[int, int], None]


@dataclass(frozen=True)
class Score:
    """The figure of one benchmark and how it was made."""

    benchmark: str
    metric: str
    value: float
    samples: int
    higher_is_better: bool


def find_benchmark(name: str) -> Benchmark:
    """Return a benchmark by name.

    Raises:
        ValueError: When there is none; names the nearest.
    """
    if name not in BENCHMARKS:
        near = get_close_matches(name, BENCHMARKS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else "."
        raise ValueError(f"no benchmark {name!r}{hint} Known: {', '.join(BENCHMARKS)}")
    return BENCHMARKS[name]


def run_benchmark(
    generator: Generator,
    name: str,
    *,
    limit: int | None = None,
    out: Path | None = None,
    on_progress: OnProgress | None = None,
    **image_options: Any,
) -> Score:
    """Answer a benchmark greedily and score it.

    Args:
        generator: Of the model that is measured; its largest batch is used.
        limit: Only the first samples.
        out: Folder for ``NAME.predictions.jsonl`` and ``NAME.score.json``.
        on_progress: Called with (answered, samples).
        image_options: image_aspect_ratio, resolution, max_visual_tokens in place of the checkpoint's.
    """
    benchmark = find_benchmark(name)
    dataset = benchmark.samples(limit)
    samples, answers = [], []
    for batch in _batches(dataset, generator.max_batch):
        requests = [Request.of_question(question_of(sample), sample.images, **image_options) for sample in batch]
        answers += generator.generate(requests)
        samples += batch
        if on_progress is not None:
            on_progress(len(samples), len(dataset))
    value = benchmark.score(samples, [answer.text for answer in answers])
    score = Score(name, benchmark.metric, value, len(samples), benchmark.higher_is_better)
    if out is not None:
        _write(out, score, samples, answers)
    return score


def _batches(dataset: Any, size: int) -> Iterator[list[Sample]]:
    for first in range(0, len(dataset), size):
        yield [dataset[index] for index in range(first, min(first + size, len(dataset)))]


def _write(out: Path, score: Score, samples: Sequence[Sample], answers: Sequence[Answer]) -> None:
    out.mkdir(parents=True, exist_ok=True)
    lines = [
        json.dumps(_prediction(score.benchmark, sample, answer), ensure_ascii=False)
        for sample, answer in zip(samples, answers, strict=True)
    ]
    (out / f"{score.benchmark}.predictions.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (out / f"{score.benchmark}.score.json").write_text(json.dumps(asdict(score), indent=2) + "\n", encoding="utf-8")


def _prediction(benchmark: str, sample: Sample, answer: Answer) -> dict[str, Any]:
    return {
        "sample_id": sample.sample_id,
        "benchmark": benchmark,
        "question": question_of(sample),
        "prediction": answer.text,
        "truth": truth_of(sample),
        "right": is_right(sample, answer.text),
        "error": None,
        "num_image_tokens": answer.num_image_tokens,
        "image_sizes": answer.image_sizes,
    }
