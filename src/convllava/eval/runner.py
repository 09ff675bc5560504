"""Run a benchmark: every sample is answered once, every answer is written at once, all answers are scored."""

import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..image_options import ImageOptions
from ..inference import Answer, Generator, stage_warning
from ..support import write_json
from .answering import SampleAnswerer, sort_by_shape
from .benchmark import Benchmark, EvalSample, EvalSet
from .benchmarks import find_benchmark
from .outcome import Scoring
from .predictions import Line, PredictionFile, prediction_of
from .protocol import (
    RunOptions,
    code_versions,
    describe_protocol,
    model_fingerprint,
    prompt_format_of,
    protocol_hash,
    rendered_prompt,
    use_prompt_format,
)
from .scoring import Score, score_lines
from .table import default_data_folder

if TYPE_CHECKING:
    from .judge import Judge

OnProgress = Callable[[int, int, float | None], None]
"""Function of (answered samples, all samples, mean credit of the answers so far)."""

_MAX_WAIT = timedelta(hours=24)
"""Time that ranks wait for the slowest one at the end."""


class Ranks:
    """The rank of this process and the number of processes of a run."""

    def __init__(self, rank: int = 0, world_size: int = 1) -> None:
        self.rank, self.world_size = rank, world_size

    @property
    def is_first(self) -> bool:
        """Whether this process writes the files that exist only once."""
        return self.rank == 0

    def wait(self) -> None:
        """Wait until all processes have reached this call."""
        if self.world_size > 1:
            import torch.distributed as dist

            dist.barrier()


@contextmanager
def ranks() -> Iterator[Ranks]:
    """Join the other processes if ``torchrun`` started several."""
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    if world_size == 1:
        yield Ranks()
        return
    import torch.distributed as dist

    dist.init_process_group("gloo", timeout=_MAX_WAIT)  # used for barriers only
    try:
        yield Ranks(dist.get_rank(), world_size)
    finally:
        dist.destroy_process_group()


def rank_device() -> str | None:
    """Return the GPU of this process under ``torchrun``; None leaves the choice to the loader."""
    import torch

    local_rank = os.environ.get("LOCAL_RANK")
    return f"cuda:{local_rank}" if local_rank is not None and torch.cuda.is_available() else None


@dataclass(frozen=True)
class ModelId:
    """Name and fingerprint of a model in predictions and scores."""

    name: str
    fingerprint: str

    @classmethod
    def of(cls, generator: Generator, name: str) -> "ModelId":
        """Compute the fingerprint of the generator's model."""
        return cls(name, model_fingerprint(generator.model))


def run_benchmark(
    generator: Generator,
    name: str,
    *,
    limit: int | None = None,
    out: Path | None = None,
    data: Path | None = None,
    options: RunOptions | None = None,
    scoring: Scoring | None = None,
    on_progress: OnProgress | None = None,
    ranks: Ranks | None = None,
    **image_options: Any,
) -> Score:
    """Answer a benchmark greedily and score it.

    Args:
        generator: The generator of the model; its largest batch is used.
        name: Name of the benchmark.
        limit: Number of samples; by default all.
        out: Folder for predictions, protocol and score; samples with a prediction there are not answered again. By
            default a temporary folder.
        data: Folder with the benchmark's file; by default VLMEvalKit's.
        options: Options of prompts and images.
        scoring: Settings of the score.
        on_progress: Function that is called after each answer.
        ranks: Processes that share the run.
        **image_options: Fields of `ImageOptions`, if ``options`` is not given.

    Raises:
        ValueError: The benchmark is unknown, its data are missing or damaged, or ``out`` has predictions of another
            model or protocol.
    """
    benchmark = find_benchmark(name)
    options = options or RunOptions(image=ImageOptions(**image_options))
    with _folder(out) as folder:
        run = BenchmarkRun(generator, benchmark, folder, options, ModelId.of(generator, "unnamed"), ranks)
        run.answer(data or default_data_folder(), limit, scoring or Scoring(), on_progress)
        return run.score(scoring or Scoring())


class BenchmarkRun:
    """One benchmark on one model: first `answer`, then `score`.

    Args:
        generator: The generator of the model.
        benchmark: The benchmark.
        folder: Folder for predictions, protocol and score.
        options: Options of prompts and images.
        model: Name and fingerprint of the model.
        ranks: Processes that share the run; by default this one.

    Raises:
        ValueError: The model cannot have these image options, such as a resolution below its output stride.
    """

    def __init__(
        self,
        generator: Generator,
        benchmark: Benchmark,
        folder: Path,
        options: RunOptions,
        model: ModelId,
        ranks: Ranks | None = None,
    ) -> None:
        generator.processor.image_processor.resized_shape(1, 1, **options.image.given())
        self._generator, self.benchmark, self.options = generator, benchmark, options
        self._model, self._ranks, self.folder = model, ranks or Ranks(), folder
        self._file = PredictionFile(folder, benchmark.name, self._ranks.rank)
        self._ids: list[str] = []
        self._run: dict[str, Any] = {}

    def answer(self, data: Path, limit: int | None, scoring: Scoring, on_progress: OnProgress | None = None) -> None:
        """Answer all samples that have no prediction yet.

        Raises:
            ValueError: The data are missing or damaged, or there are predictions of another model or protocol.
        """
        questions = self.benchmark.load(data, self.options.load)
        self._ids = list(questions.ids[:limit])
        checkpoint_format = self._generator.processor.prompt_format
        with use_prompt_format(self._generator, prompt_format_of(self.benchmark, self.options, checkpoint_format)):
            self._run = self._describe(questions)
            pending = self._pending()
            self._ranks.wait()  # every rank has read the predictions before any rank adds one
            if self._ranks.is_first:
                self._file.write_protocol(self._run)
            num_done = len(self._ids) - len(pending)
            order = sort_by_shape(questions, pending, self._generator, self.options.image.given())
            progress = _Progress(self.benchmark, scoring, num_done, len(self._ids), on_progress)
            self._answer(questions, order[self._ranks.rank :: self._ranks.world_size], progress)
        self._ranks.wait()
        if self._ranks.is_first:
            self._file.finish(questions.ids)
        self._ranks.wait()

    def score(self, scoring: Scoring, judge: "Judge | None" = None) -> Score:
        """Score the answers and write the score file.

        Raises:
            ValueError: The benchmark cannot be scored without a judge, or every sample failed; the predictions are
                kept.
        """
        if self.benchmark.needs_judge and judge is None:
            raise ValueError(self.how_to_judge)
        lines = self._file.read()
        score = score_lines(self.benchmark, [lines[name] for name in self._ids], scoring, judge, self._run).score
        if self._ranks.is_first:
            score.write(self.folder)
        return score

    @property
    def how_to_judge(self) -> str:
        """The message about answers that cannot be scored without a judge."""
        return (
            f"{self.benchmark.title} is answered but cannot be scored without a judge: convllava eval score "
            f"{self._file.path} --judge-url URL --judge-model NAME"
        )

    def _describe(self, questions: EvalSet) -> dict[str, Any]:
        protocol = describe_protocol(self.benchmark, questions, self._generator, self.options)
        return {
            "protocol": protocol,
            "protocol_hash": protocol_hash(protocol),
            "model": {"name": self._model.name, "fingerprint": self._model.fingerprint},
            "versions": code_versions(),
            "source": self.benchmark.source(),
            "warnings": [*questions.warnings, *filter(None, [stage_warning(self._generator.model)])],
        }

    def _pending(self) -> list[int]:
        self._file.check(self._run)
        answered = self._file.read()
        return [index for index, name in enumerate(self._ids) if name not in answered]

    def _answer(self, questions: EvalSet, indices: Sequence[int], progress: "_Progress") -> None:
        if not indices:
            return
        started = time.perf_counter()
        with self._file.append() as append:

            def on_answer(sample: EvalSample, answer: Answer | str) -> None:
                line = self._line(sample, answer)
                append(line)
                progress(line)

            SampleAnswerer(self._generator, self.benchmark, self.options, on_answer).run(questions, indices)
        self._write_timing(time.perf_counter() - started, len(indices))

    def _line(self, sample: EvalSample, answer: Answer | str) -> Line:
        failed = isinstance(answer, str)
        return {
            "sample_id": sample.sample_id,
            "benchmark": self.benchmark.name,
            "prediction": "" if isinstance(answer, str) else answer.text,
            "error": answer if failed else None,
            "num_image_tokens": 0 if isinstance(answer, str) else answer.num_image_tokens,
            "image_sizes": [] if isinstance(answer, str) else [list(size) for size in answer.image_sizes],
            "images": [image.name for image in sample.images],
            "model_fingerprint": self._model.fingerprint,
            "protocol_hash": self._run["protocol_hash"],
            "prompt": rendered_prompt(self.benchmark, sample, self._generator, self.options.load),
            "row": sample.row,
        }

    def _write_timing(self, seconds: float, num_samples: int) -> None:
        """Write the duration of the last run that answered samples; it is not part of the score."""
        if self._ranks.is_first:
            path = self.folder / f"{self.benchmark.name}.timing.json"
            write_json(path, {"seconds": seconds, "samples": num_samples, "processes": self._ranks.world_size})


class _Progress:
    """Counts answered samples and their mean credit, and reports both."""

    def __init__(
        self, benchmark: Benchmark, scoring: Scoring, num_done: int, total: int, on_progress: OnProgress | None
    ) -> None:
        self._benchmark, self._scoring, self._on_progress = benchmark, scoring, on_progress
        self._num_done, self._total = num_done, total
        self._credit = 0.0
        self._num_scored = 0

    def __call__(self, line: Line) -> None:
        self._num_done += 1
        if self._on_progress is None:
            return
        if not self._benchmark.needs_judge:
            self._credit += self._benchmark.verdict(prediction_of(line), self._scoring).credit
            self._num_scored += 1
        self._on_progress(self._num_done, self._total, self._credit / self._num_scored if self._num_scored else None)


@contextmanager
def _folder(out: Path | None) -> Iterator[Path]:
    """Yield the folder, or a temporary one."""
    if out is not None:
        yield out
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)
