"""Run several benchmarks and image settings: the library behind ``convllava eval run`` and ``convllava eval sweep``."""

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from ..image_options import ImageOptions
from ..inference import Generator, load_pretrained
from ..support import did_you_mean
from .answering import AUTO_BATCH_SIZE
from .benchmark import Benchmark
from .benchmarks import find_benchmark
from .judge import Judge, JudgeSettings
from .outcome import Scoring
from .own_data import OwnData
from .paper import FIGURE_3_BENCHMARKS, SETTINGS_OF_TABLE_7, TABLE_5, TABLE_6, TABLES, rows_of
from .protocol import DecodingOptions, RunOptions
from .runner import BenchmarkRun, ModelId, OnProgress, rank_device, ranks
from .scoring import Score, choose_profiles
from .sweep import Point, combinations, family_of, model_folder, point_of, setting_name
from .table import default_data_folder

logger = logging.getLogger(__name__)

SUITES: dict[str, list[str]] = {
    **{table.name: table.benchmarks for table in TABLES.values()},
    "figure3": list(FIGURE_3_BENCHMARKS),
    "paper": TABLE_5.benchmarks + TABLE_6.benchmarks,
    "synthetic": ["synthetic-lines", "synthetic-scenes", "synthetic-grounding", "synthetic-documents"],
    "pages": ["synthetic-pages", "synthetic-transcripts"],
    "heldout": [f"heldout-{name}" for name in ("lines", "documents", "transcripts", "pages", "scenes", "boxes")],
    "choices": [f"choices-{name}" for name in ("lines", "documents", "transcripts", "pages", "scenes", "boxes")],
}
"""Names for sets of benchmarks."""

ROWS_ARE_OPTIONAL = ("table5", "table6", "paper")
"""Suites whose benchmarks say enough: every model can have them, not only the runs of the paper."""

ProgressBar = Callable[[str], AbstractContextManager[OnProgress | None]]
"""Function from a benchmark's name to a context manager whose value is called after each answer."""


def no_progress(benchmark: str) -> AbstractContextManager[None]:
    """Return a progress bar that shows nothing."""
    return nullcontext()


@dataclass(frozen=True)
class ModelSettings:
    """Settings for loading a model.

    Attributes:
        source: The bundled ``nano``, a checkpoint directory or a hub id.
        dtype: Precision; None for the loader's default.
        device: Device; None for the loader's default.
        batch_size: Number of samples answered at a time, or ``auto``.
    """

    source: str
    dtype: str | None = None
    device: str | None = None
    batch_size: str = "auto"

    def load(self, resolution: int | None = None) -> Generator:
        """Load the model.

        Args:
            resolution: Resolution of a checkpoint that states none.

        Raises:
            ValueError: The batch size is invalid or the model cannot be loaded.
        """
        size = self.batch_size
        if size != "auto" and not (size.isdecimal() and int(size) >= 1):
            raise ValueError(f"--batch-size must be auto or a whole number of at least 1, got {size!r}")
        model, processor = load_pretrained(
            self.source, dtype=self.dtype, device=self.device or rank_device(), fallback_resolution=resolution
        )
        return Generator(model, processor, max_batch=AUTO_BATCH_SIZE if size == "auto" else int(size))


@dataclass(frozen=True)
class EvalSettings:
    """Settings of an evaluation.

    Attributes:
        model: The model.
        benchmarks: Names of the benchmarks; empty for those of ``suite``.
        suite: Key of `SUITES`; by default "synthetic" if no benchmarks are named.
        row: Row of the paper's table that the model belongs to; its results go to the folder ``SUITE/ROW``.
        data: Folder with benchmark files; by default VLMEvalKit's.
        own: Data of the user's own, in place of benchmarks.
        out: Folder for predictions, protocols and scores.
        limit: Number of samples of each benchmark; by default all.
        image: Options of image preprocessing.
        profile: Scoring rules: "paper", "current", or "llava" for LLaVA's prompts with the paper's rules.
        prompts: Source of the prompts' texts; by default that of the profile.
        prompt_format: Prompt format that replaces the profile's.
        ocr_tokens: Whether TextVQA's OCR tokens are shown.
        decoding: Options against repetition.
        judge: The judge model.
    """

    model: ModelSettings
    benchmarks: Sequence[str] = ()
    suite: str = ""
    row: str = ""
    data: Path | None = None
    own: OwnData | None = None
    out: Path = Path("scores")
    limit: int | None = None
    image: ImageOptions = field(default_factory=ImageOptions)
    profile: str = "paper"
    prompts: str | None = None
    prompt_format: str | None = None
    ocr_tokens: bool = False
    decoding: DecodingOptions = field(default_factory=DecodingOptions)
    judge: JudgeSettings = field(default_factory=JudgeSettings)


@dataclass(frozen=True)
class SuiteResult:
    """Result of an evaluation.

    Attributes:
        scores: Scores of the benchmarks; empty in all processes but the first.
        failures: Error messages of benchmarks without a score.
        unscored: Messages about benchmarks that are answered and wait for a judge.
        is_first: Whether this is the process that reports.
    """

    scores: list[Score]
    failures: list[str]
    unscored: list[str]
    is_first: bool = True


def run_suite(settings: EvalSettings, progress: ProgressBar = no_progress) -> SuiteResult:
    """Answer and score benchmarks one after the other; one that fails does not stop the others.

    Raises:
        ValueError: A setting is invalid or has no effect, the model cannot have these image options, a benchmark's
            file is missing, or the model cannot be loaded.
    """
    benchmarks = choose_benchmarks(settings.benchmarks, settings.suite) if settings.own is None else [settings.own]
    scoring, load = choose_profiles(settings.profile, settings.prompts, settings.ocr_tokens)
    judge = settings.judge.open(settings.out)
    folders = _folders(settings)
    data = settings.data or default_data_folder()
    check_data(benchmarks, data)
    check_used(settings, benchmarks)
    with ranks() as processes:
        result = SuiteResult([], [], [], processes.is_first)
        if processes.is_first:
            _warn_of_missing_judge(benchmarks, judge)
        generator = settings.model.load(settings.image.resolution)
        model = ModelId.of(generator, settings.model.source)
        runs = [
            BenchmarkRun(
                generator,
                benchmark,
                folder,
                RunOptions(load, image, settings.prompt_format, settings.decoding),
                model,
                processes,
            )
            for folder, image in folders.items()
            for benchmark in benchmarks
        ]
        for run in runs:
            try:
                with progress(run.benchmark.name) if processes.is_first else nullcontext() as on_progress:
                    run.answer(data, settings.limit, scoring, on_progress)
                if processes.is_first and run.benchmark.needs_judge and judge is None:
                    result.unscored.append(run.how_to_judge)
                elif processes.is_first:
                    result.scores.append(run.score(scoring, judge))
            except ValueError as error:  # a fault of one benchmark must not cost the scores of the others
                result.failures.append(str(error))
    return result


@dataclass(frozen=True)
class SweepSettings:
    """Settings of a sweep over models and image options.

    Attributes:
        models: The models.
        benchmarks: Names of the benchmarks.
        aspect_ratios: Values of ``image_aspect_ratio``; empty for the checkpoint's.
        resolutions: Values of ``resolution``; empty for the checkpoint's.
        budgets: Values of ``max_visual_tokens``; empty for the checkpoint's.
        families: Whether models with as many encoder stages are joined by a line, in place of the settings of a model.
        data: Folder with benchmark files; by default VLMEvalKit's.
        out: Folder for predictions, protocols and scores.
        limit: Number of samples of each benchmark; by default all.
    """

    models: Sequence[ModelSettings]
    benchmarks: Sequence[str]
    aspect_ratios: Sequence[str] = ()
    resolutions: Sequence[int] = ()
    budgets: Sequence[int] = ()
    families: bool = False
    data: Path | None = None
    out: Path = Path("sweep")
    limit: int | None = None


def run_sweep(settings: SweepSettings, progress: ProgressBar = no_progress) -> list[Point]:
    """Run benchmarks under all combinations of models and image options.

    Raises:
        ValueError: A setting is invalid, or a benchmark has no score.
    """
    benchmarks = choose_benchmarks(settings.benchmarks, "")
    _check_data_is_used(settings.data, benchmarks)
    data = settings.data or default_data_folder()
    check_data(benchmarks, data)
    points = []
    for model_settings in settings.models:
        generator = model_settings.load()
        model = ModelId.of(generator, model_settings.source)
        family = family_of(generator.model.config.vision_config) if settings.families else ""
        out = settings.out / model_folder(model.name)
        runs = [
            BenchmarkRun(generator, benchmark, out / setting_name(image), RunOptions(image=image), model)
            for image in combinations(settings.aspect_ratios, settings.resolutions, settings.budgets)
            for benchmark in benchmarks
        ]
        for run in runs:
            with progress(run.benchmark.name) as on_progress:
                run.answer(data, settings.limit, Scoring(), on_progress)
            points.append(point_of(run.score(Scoring()), run.folder, run.options.image, family))
    return points


def choose_benchmarks(names: Sequence[str], suite: str) -> list[Benchmark]:
    """Return benchmarks by name, or those of a suite; by default the synthetic ones.

    Raises:
        ValueError: A name is unknown, or both names and a suite are given.
    """
    if names and suite:
        raise ValueError("give either --benchmark or --suite")
    if not names:
        suite = suite or "synthetic"
        if suite not in SUITES:
            raise ValueError(f"no suite {suite!r}: one of {', '.join(SUITES)}")
        names = SUITES[suite]
    return list(dict.fromkeys(map(find_benchmark, names)))


def check_data(benchmarks: Sequence[Benchmark], data: Path) -> None:
    """Check that every benchmark's file exists, before a model is loaded.

    Raises:
        ValueError: A file is missing.
    """
    missing = [benchmark.missing_data(data) for benchmark in benchmarks if not benchmark.has_data(data)]
    if missing:
        more = f" ({len(missing) - 1} more benchmarks are missing too)" if len(missing) > 1 else ""
        raise ValueError(missing[0] + more)


def check_used(settings: EvalSettings, benchmarks: Sequence[Benchmark]) -> None:
    """Check that one of the benchmarks uses each option that only some use.

    Raises:
        ValueError: An option has no effect.
    """
    names = ", ".join(benchmark.name for benchmark in benchmarks)
    if settings.own is not None:
        _check_used_by_own_data(settings)
    else:
        _check_data_is_used(settings.data, benchmarks)
    if settings.ocr_tokens and not any(benchmark.has_ocr_tokens for benchmark in benchmarks):
        raise ValueError(f"--ocr-tokens has no effect on {names}: only textvqa has them; leave it out")
    if settings.judge.url is not None and not any(benchmark.judge for benchmark in benchmarks):
        raise ValueError(f"--judge-url has no effect on {names}, which have no judge: leave it out")


def _check_data_is_used(data: Path | None, benchmarks: Sequence[Benchmark]) -> None:
    if data is not None and not any(benchmark.needs_data for benchmark in benchmarks):
        names = ", ".join(benchmark.name for benchmark in benchmarks)
        raise ValueError(f"--data has no effect on {names}, whose samples are drawn: leave it out, or name a benchmark")


def _check_used_by_own_data(settings: EvalSettings) -> None:
    named = {"--benchmark": settings.benchmarks, "--suite": settings.suite, "--row": settings.row}
    unused = [name for name, value in named.items() if value]
    unused += ["--prompts"] if settings.prompts is not None else []
    unused += ["--profile llava"] if settings.profile == "llava" else []
    if unused:
        raise ValueError(f"{', '.join(unused)} has no effect on data of your own, asked as they are: leave it out")


def _warn_of_missing_judge(benchmarks: Sequence[Benchmark], judge: Judge | None) -> None:
    waiting = [benchmark.title for benchmark in benchmarks if benchmark.needs_judge and judge is None]
    if waiting:
        logger.warning(
            "%s: answered but not scored in this run, which has no judge (--judge-url, --judge-model)",
            ", ".join(waiting),
        )


def _folders(settings: EvalSettings) -> dict[Path, ImageOptions]:
    """Return the image options of each output folder: one, or the three of Table 7."""
    if settings.suite != "table7":
        return {settings.out / _row_folder(settings.suite, settings.row): settings.image}
    if settings.row:
        raise ValueError("--suite table7 runs all of its rows: leave out --row")
    if settings.image.given():
        raise ValueError("--suite table7 sets --image-aspect-ratio and --resolution itself: leave them out")
    return {settings.out / name: ImageOptions(**image) for name, image in SETTINGS_OF_TABLE_7.items()}


def _row_folder(suite: str, row: str) -> Path:
    """Return the folder of a row of the paper, below the output folder.

    Raises:
        ValueError: The suite has no such row or no rows, or one of its rows has to be chosen.
    """
    names = rows_of(suite)
    if not row:
        if names and suite not in ROWS_ARE_OPTIONAL:
            raise ValueError(f"--suite {suite} compares models: say which row MODEL is, --row {', '.join(names)}")
        return Path()
    if not names:
        raise ValueError(f"--row belongs to a --suite that is a table of the paper, not to {suite or '--benchmark'}")
    if row not in names:
        raise ValueError(f"{suite} has no row {row!r}: one of {', '.join(names)}{did_you_mean(row, names)}")
    return Path(suite, row)
