"""Runs a benchmark: every sample answered once, every answer written down at once, one score."""

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..inference import Answer, Generator
from .answering import Answering, by_shape
from .benchmarks import Benchmark, EvalSample, EvalSet, Record, Scoring, find_benchmark
from .distributed import Ranks
from .fingerprint import model_fingerprint
from .predictions import Line, PredictionFile, write_json
from .protocol import (
    ImageOptions,
    RunOptions,
    code_versions,
    describe_protocol,
    prompt_format_of,
    protocol_hash,
    use_prompt_format,
)
from .scoring import Score, score_lines
from .sources import default_folder

OnProgress = Callable[[int, int, float | None], None]
"""Called with (answered, samples, mean credit so far of the answers of this run)."""


@dataclass(frozen=True)
class Source:
    """A model as scores name it."""

    name: str
    fingerprint: str

    @classmethod
    def of(cls, generator: Generator, name: str) -> "Source":
        """Hash the weights of a model."""
        return cls(name, model_fingerprint(generator.model))


def run_benchmark(
    generator: Generator,
    name: str,
    *,
    limit: int | None = None,
    out: Path | None = None,
    on_progress: OnProgress | None = None,
    data: Path | None = None,
    options: RunOptions | None = None,
    scoring: Scoring | None = None,
    judge: Any = None,
    source: Source | None = None,
    ranks: Ranks | None = None,
    **image_options: Any,
) -> Score:
    """Answer a benchmark greedily and score it.

    Args:
        generator: Of the model that is measured; its largest batch is used.
        name: Of the benchmark.
        limit: Only the first samples.
        out: Folder for predictions, protocol and score; what is there already is not answered again.
        on_progress: Called after each answer.
        data: Folder with the benchmark's files; by default VLMEvalKit's.
        options: How questions are put and images shown.
        scoring: How answers are judged.
        judge: A `judge.Judge` for what the rules cannot tell.
        source: Name and fingerprint of the model; hashed if it is not given.
        ranks: The processes that share the run.
        image_options: image_aspect_ratio, resolution, max_visual_tokens in place of the checkpoint's.

    Raises:
        ValueError: There is no such benchmark, its data are missing or damaged, or ``out`` holds the predictions of
            another model or protocol.
    """
    benchmark = find_benchmark(name)
    options = options or RunOptions(image=ImageOptions(**image_options))
    source = source or Source.of(generator, "unnamed")
    with _folder(out) as folder:
        run = Run(generator, benchmark, folder, options, source, ranks or Ranks())
        run.answer(data or default_folder(), limit, scoring or Scoring(), on_progress)
        return run.score(scoring or Scoring(), judge)


class Run:
    """One benchmark on one model: first `answer`, then `score`."""

    def __init__(
        self,
        generator: Generator,
        benchmark: Benchmark,
        folder: Path,
        options: RunOptions,
        source: Source,
        ranks: Ranks,
    ) -> None:
        self._generator, self._benchmark, self._options = generator, benchmark, options
        self._source, self._ranks, self._folder = source, ranks, folder
        self._file = PredictionFile(folder, benchmark.name, ranks.rank)
        self._ids: list[str] = []
        self._card: dict[str, Any] = {}

    def answer(self, data: Path, limit: int | None, scoring: Scoring, on_progress: OnProgress | None = None) -> None:
        """Answer whatever has no answer yet."""
        questions = self._benchmark.load(data, self._options.load)
        self._ids = list(questions.ids[:limit])
        processor = self._generator.processor
        with use_prompt_format(processor, prompt_format_of(self._benchmark, self._options, processor)):
            self._card = self._describe(questions)
            pending = self._pending()
            self._ranks.wait()  # all have read what there is before anybody adds to it
            if self._ranks.is_first:
                self._file.write_card(self._card)
            done = len(self._ids) - len(pending)
            mine = by_shape(questions, pending, processor.image_processor, self._options.image.given())
            self._answer(questions, mine[self._ranks.rank :: self._ranks.world_size], done, scoring, on_progress)
        self._ranks.wait()
        if self._ranks.is_first:
            self._file.finish(questions.ids)
        self._ranks.wait()

    def score(self, scoring: Scoring, judge: Any = None) -> Score:
        """Score the answers and write the score file.

        Raises:
            ValueError: The benchmark cannot be scored without a judge; the predictions are kept.
        """
        if self._benchmark.needs_judge and judge is None:
            raise ValueError(
                f"{self._benchmark.title} is answered but cannot be scored without a judge: convllava eval score "
                f"{self._file.path} --judge-url URL --judge-model NAME"
            )
        lines = self._file.read()
        wanted = [lines[name] for name in self._ids]
        score, _, _ = score_lines(self._benchmark, wanted, scoring, judge, self._card)
        if self._ranks.is_first:
            score.write(self._folder)
        return score

    def _describe(self, questions: EvalSet) -> dict[str, Any]:
        protocol = describe_protocol(self._benchmark, questions, self._generator, self._options)
        return {
            "protocol": protocol,
            "protocol_hash": protocol_hash(protocol),
            "model": {"name": self._source.name, "fingerprint": self._source.fingerprint},
            "versions": code_versions(),
            "warnings": list(questions.warnings),
        }

    def _pending(self) -> list[int]:
        self._file.check(self._card)
        answered = self._file.read()
        return [index for index, name in enumerate(self._ids) if name not in answered]

    def _answer(
        self,
        questions: EvalSet,
        indices: Sequence[int],
        done: int,
        scoring: Scoring,
        on_progress: OnProgress | None,
    ) -> None:
        if not indices:
            return
        started = time.perf_counter()
        tally = _Tally(self._benchmark, scoring, done, len(self._ids), on_progress)
        with self._file.append() as append:

            def take(sample: EvalSample, answer: Answer | str) -> None:
                line = self._line(sample, answer)
                append(line)
                tally(line)

            Answering(self._generator, self._benchmark, self._options, take).run(questions, indices)
        self._note_time(time.perf_counter() - started, len(indices))

    def _line(self, sample: EvalSample, answer: Answer | str) -> Line:
        failed = isinstance(answer, str)
        return {
            "sample_id": sample.sample_id,
            "benchmark": self._benchmark.name,
            "prediction": "" if isinstance(answer, str) else answer.text,
            "error": answer if failed else None,
            "num_image_tokens": 0 if isinstance(answer, str) else answer.num_image_tokens,
            "image_sizes": [] if isinstance(answer, str) else [list(size) for size in answer.image_sizes],
            "model_fingerprint": self._source.fingerprint,
            "protocol_hash": self._card["protocol_hash"],
            "row": sample.row,
        }

    def _note_time(self, seconds: float, samples: int) -> None:
        """Write how long this process took, beside what earlier ones did; not part of the score."""
        if self._ranks.is_first:
            path = self._folder / f"{self._benchmark.name}.timing.json"
            write_json(path, {"seconds": seconds, "samples": samples, "processes": self._ranks.world_size})


class _Tally:
    """Counts what is done and the mean credit so far."""

    def __init__(
        self, benchmark: Benchmark, scoring: Scoring, done: int, total: int, on_progress: OnProgress | None
    ) -> None:
        self._benchmark, self._scoring, self._on_progress = benchmark, scoring, on_progress
        self._done, self._total = done, total
        self._credits = 0.0
        self._judged = 0

    def __call__(self, line: Line) -> None:
        self._done += 1
        if self._on_progress is None:
            return
        if not self._benchmark.needs_judge:
            record = Record(line["sample_id"], line["row"], line["prediction"], line["error"])
            self._credits += self._benchmark.verdict(record, self._scoring).credit
            self._judged += 1
        self._on_progress(self._done, self._total, self._credits / self._judged if self._judged else None)


@contextmanager
def _folder(out: Path | None) -> Iterator[Path]:
    """Give the folder, or one that is removed afterwards."""
    if out is not None:
        yield out
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)
