"""``convllava eval``: answer benchmarks, score, compare and report."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import options as opt
from .generation import RepetitionArguments
from .progress import progress_bar

if TYPE_CHECKING:
    from ..eval.compare import Comparison
    from ..eval.judge import JudgeSettings
    from ..eval.own_data import OwnData
    from ..eval.scoring import Score

app = typer.Typer(no_args_is_help=True)

MAX_PRINTED_CHANGES = 20

Predictions = Annotated[Path, typer.Argument(help="NAME.predictions.jsonl, or a folder with such files.")]
Plugin = Annotated[
    list[Path] | None, typer.Option(help="Python file that registers benchmarks of your own; may be repeated.")
]
Benchmarks = Annotated[str, typer.Option("--benchmark", help="Names of benchmarks, separated by commas.")]
Suite = Annotated[str, typer.Option(help="table2 to table11, figure3, paper (5 and 6), synthetic, heldout, choices.")]
Row = Annotated[str, typer.Option(help="Row of the paper's table that MODEL is, by its folder in recipes/paper.")]
Data = Annotated[Path | None, typer.Option(help="Folder with benchmark files; $LMUData or ~/LMUData by default.")]
DataOrOwn = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER|FILE",
        help="Folder with benchmark files; without --benchmark, data of your own, of any format.",
    ),
]
Metric = Annotated[
    str | None,
    typer.Option(help="Metric of your own data: exact, anls, cer, vqa, iou or choice; by default as the answers are."),
]
ImageFolder = Annotated[Path | None, typer.Option(help="Folder of the images of your own data.")]
Format = Annotated[str | None, typer.Option("--format", help="Format of your own data; recognized by default.")]
Out = Annotated[Path, typer.Option(help="Folder for predictions, protocols and scores; an earlier run is resumed.")]
Limit = Annotated[int | None, typer.Option(min=1, help="Number of samples; a score of a part is marked as such.")]
BatchSize = Annotated[str, typer.Option(help="Number of samples answered at a time, or auto.")]
Profile = Annotated[
    str, typer.Option(help="Scoring rules: paper (VLMEvalKit of April 2024), current (August 2026) or llava.")
]
Prompts = Annotated[
    str | None, typer.Option(help="Texts of prompts: paper, current or llava; as --profile by default.")
]
PromptFormat = Annotated[str | None, typer.Option(help="Prompt format that replaces the profile's.")]
OcrTokens = Annotated[bool, typer.Option(help="Show TextVQA's OCR tokens; the paper does not.")]
JudgeUrl = Annotated[str | None, typer.Option(help="OpenAI-compatible endpoint, up to /v1; no judge by default.")]
JudgeModel = Annotated[str | None, typer.Option(help="Judge model; its key is read from $CONVLLAVA_JUDGE_KEY.")]
JudgePrompts = Annotated[Path | None, typer.Option(help="Folder with choice.txt, yes_no.txt, points.txt.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@dataclass(frozen=True)
class BenchmarkArguments:
    """Benchmarks or data of the user's own, and the folder of results."""

    benchmark: Benchmarks = ""
    suite: Suite = ""
    row: Row = ""
    data: DataOrOwn = None
    metric: Metric = None
    image_folder: ImageFolder = None
    format: Format = None
    out: Out = Path("scores")
    limit: Limit = None

    def own(self) -> "OwnData | None":
        """Return the data of the user's own, opened; None if benchmarks are named or none are given."""
        only_own = {"--metric": self.metric, "--image-folder": self.image_folder, "--format": self.format}
        given = [name for name, value in only_own.items() if value is not None]
        named = self.benchmark or self.suite
        if self.data is not None and not named:
            return _open_own_data(self.data, self)
        if given:
            raise ValueError(f"{', '.join(given)}: for data of your own, which are --data FILE without --benchmark")
        if self.data is not None and not self.data.is_dir():
            raise ValueError(
                f"--data {self.data} is no folder: {named} needs the folder of its file; without --benchmark and "
                "--suite, the questions of a data file are asked as they are"
            )
        return None


@dataclass(frozen=True)
class ProtocolArguments:
    """Prompts and rules of scoring."""

    profile: Profile = "paper"
    prompts: Prompts = None
    prompt_format: PromptFormat = None
    ocr_tokens: OcrTokens = False


@dataclass(frozen=True)
class DecodingArguments(RepetitionArguments):
    """Options against repetition, which the paper's protocol does not have."""

    stop_on_repetition: Annotated[
        bool, typer.Option("--stop-on-repetition", help="End an answer that repeats one passage on and on.")
    ] = False


@dataclass(frozen=True)
class JudgeArguments:
    """The judge model."""

    judge_url: JudgeUrl = None
    judge_model: JudgeModel = None
    judge_prompts: JudgePrompts = None

    def settings(self) -> "JudgeSettings":
        """Return the settings of the judge."""
        from ..eval.judge import JudgeSettings

        return JudgeSettings(self.judge_url, self.judge_model, self.judge_prompts)


@app.callback()
def root(plugin: Plugin = None) -> None:
    """Measure a model on benchmarks and held-out samples."""
    if plugin:
        from ..eval.benchmarks import load_plugin

        for path in plugin:
            load_plugin(path)


@app.command()
@opt.expand_settings
def run(
    argument: opt.ModelArgument = None,
    model: opt.ModelOrNone = None,
    *,
    chosen: BenchmarkArguments,
    images: opt.ImageArguments,
    batch_size: BatchSize = "auto",
    protocol: ProtocolArguments,
    decoding: DecodingArguments,
    judging: JudgeArguments,
    place: opt.DeviceArguments,
    as_json: Json = False,
) -> None:
    """Answer benchmarks and score them; the same command resumes a run that was stopped."""
    model = opt.one_model(argument, model)
    opt.check_model(model)
    if chosen.data is not None:
        opt.check_exists(chosen.data, "--data")

    from ..eval.protocol import DecodingOptions
    from ..eval.suite import EvalSettings, ModelSettings, run_suite

    settings = EvalSettings(
        model=ModelSettings(model, place.dtype, place.device, batch_size),
        benchmarks=_split(chosen.benchmark),
        suite=chosen.suite,
        row=chosen.row,
        data=chosen.data,
        own=chosen.own(),
        out=chosen.out,
        limit=chosen.limit,
        image=images.options,
        profile=protocol.profile,
        prompts=protocol.prompts,
        prompt_format=protocol.prompt_format,
        ocr_tokens=protocol.ocr_tokens,
        decoding=DecodingOptions(**asdict(decoding)),
        judge=judging.settings(),
    )
    result = run_suite(settings, _progress)
    if result.is_first:
        _print_scores(result.scores, as_json)
    nothing_scored = result.is_first and not result.scores
    if result.failures or nothing_scored:
        raise ValueError("; ".join([*result.failures, *result.unscored]))
    for message in result.unscored:
        opt.remark(f"note: {message}")


@app.command()
@opt.expand_settings
def score(
    predictions: Predictions,
    profile: Profile = "paper",
    out: Annotated[Path | None, typer.Option(help="Folder for the scores; that of the predictions by default.")] = None,
    *,
    judging: JudgeArguments,
    as_json: Json = False,
) -> None:
    """Score predictions again, without a model."""
    opt.check_exists(predictions, "predictions")
    from ..eval.predictions import prediction_files
    from ..eval.scoring import choose_profiles, score_file

    scoring, _ = choose_profiles(profile)
    paths = prediction_files(predictions)
    judge = judging.settings().open(paths[0].parent)
    scores = [score_file(path, scoring, judge).score for path in paths]
    for path, each in zip(paths, scores, strict=True):
        each.write(out or path.parent)
    _print_scores(scores, as_json)


@app.command()
def compare(
    first: Annotated[Path, typer.Argument(help="NAME.predictions.jsonl of one model.")],
    second: Annotated[Path, typer.Argument(help="The file of the same benchmark of another model.")],
    allow: Annotated[str, typer.Option(help="Protocol entries that may differ, such as image.resolution.")] = "",
    profile: Profile = "paper",
    as_json: Json = False,
) -> None:
    """Compare two models on the same questions."""
    for path in (first, second):
        opt.check_exists(path, "predictions")
    from ..eval.compare import compare as compare_files
    from ..eval.scoring import choose_profiles

    scoring, _ = choose_profiles(profile)
    comparison = compare_files(first, second, scoring, allowed=_split(allow))
    if as_json:
        content = {name: getattr(comparison, name) for name in ("difference", "interval", "p_value", "unit")}
        opt.say(json.dumps({**content, "changes": list(map(asdict, comparison.changes))}))
    else:
        _print_comparison(first, second, comparison)


@app.command()
def table(
    folder: Annotated[Path, typer.Argument(help="Folder with score files, at any depth.")],
    form: Annotated[str, typer.Option("--format", help="markdown, latex or csv.")] = "markdown",
    out: Annotated[Path | None, typer.Option(help="File to write; printed by default.")] = None,
    figure3: Annotated[Path | None, typer.Option(help="Plot of Figure 3 to write, PNG or SVG.")] = None,
) -> None:
    """Write scores as the paper's tables, each below the row of the paper that it belongs to."""
    opt.check_exists(folder, "folder")
    from ..eval.tables import WRITERS, make_tables, read_scores
    from ..support import write_text

    if form not in WRITERS:
        raise ValueError(f"--format must be one of {', '.join(WRITERS)}, got {form!r}")
    scores = read_scores(folder)
    if figure3 is not None:
        from ..eval.families import plot_figure_3

        plot_figure_3(scores, figure3)
    text = WRITERS[form](make_tables(scores))
    if out is None:
        opt.say(text, end="")
    else:
        write_text(out, text)
        opt.say(f"written: {out}")
    if figure3 is not None:
        opt.remark(f"written: {figure3}")


@app.command()
@opt.expand_settings
def report(
    predictions: Predictions,
    out: Annotated[Path | None, typer.Option(help="Folder for the page; that of the predictions by default.")] = None,
    data: Data = None,
    profile: Profile = "paper",
    limit: Annotated[int | None, typer.Option(min=1, help="Number of samples on the page; by default all.")] = None,
    *,
    judging: JudgeArguments,
) -> None:
    """Write an HTML page with every question, image, prediction and result."""
    opt.check_exists(predictions, "predictions")
    from ..eval.predictions import prediction_files
    from ..eval.report import write_report
    from ..eval.scoring import choose_profiles

    scoring, _ = choose_profiles(profile)
    paths = prediction_files(predictions)
    judge = judging.settings().open(paths[0].parent)
    for path in paths:
        opt.say(str(write_report(path, out, data=data, scoring=scoring, judge=judge, limit=limit)))


@app.command()
@opt.expand_settings
def sweep(
    models: Annotated[list[str] | None, typer.Argument(metavar="[MODEL]...", help="The same as --model.")] = None,
    benchmark: Benchmarks = "",
    resolution: Annotated[str, typer.Option(help="Resolutions in pixels, separated by commas.")] = "",
    image_aspect_ratio: Annotated[str, typer.Option(help="pad, native, or both with a comma.")] = "",
    max_visual_tokens: Annotated[str, typer.Option(help="Token budgets, separated by commas.")] = "",
    families: Annotated[
        bool, typer.Option("--families", help="Join models with as many encoder stages by a line (Figure 3).")
    ] = False,
    data: Data = None,
    out: Out = Path("sweep"),
    limit: Limit = None,
    batch_size: BatchSize = "auto",
    model: Annotated[
        list[str] | None, typer.Option(help="Model: nano, a checkpoint directory or a hub id; repeatable.")
    ] = None,
    *,
    place: opt.DeviceArguments,
) -> None:
    """Measure under many image settings: figures against visual tokens and seconds, with plots."""
    models = [*(models or []), *(model or [])]
    if not models or not benchmark:
        raise ValueError("give one model or several, and --benchmark NAMES")
    for name in models:
        opt.check_model(name)

    from ..eval.suite import ModelSettings, SweepSettings, run_sweep
    from ..eval.sweep import as_markdown, write_sweep

    settings = SweepSettings(
        models=[ModelSettings(name, place.dtype, place.device, batch_size) for name in models],
        benchmarks=_split(benchmark),
        aspect_ratios=_split(image_aspect_ratio),
        resolutions=_split_numbers(resolution),
        budgets=_split_numbers(max_visual_tokens),
        families=families,
        data=data,
        out=out,
        limit=limit,
    )
    points = run_sweep(settings, _progress)
    paths = write_sweep(points, out)
    opt.say(as_markdown(points), end="")
    opt.say(f"written: {', '.join(map(str, paths))}")


def _split(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _split_numbers(text: str) -> list[int]:
    for word in _split(text):
        if not word.isdecimal():
            raise ValueError(f"{word!r} is not a whole number of at least 0")
    return [int(word) for word in _split(text)]


def _open_own_data(data: Path, chosen: BenchmarkArguments) -> "OwnData":
    """Open the user's own data, and say what they are and why their metric is chosen."""
    from ..eval.own_data import open_own_data

    own, found = open_own_data(data, chosen.metric, image_folder=chosen.image_folder, format=chosen.format)
    reason = f", because {found.reason}; --metric chooses another" if found.reason else ""
    opt.remark(
        f"{own.name}: {len(found):,} questions about {found.num_images:,} images ({found.title}); metric: {own.metric}"
        f"{reason}"
    )
    return own


@contextmanager
def _progress(benchmark: str) -> Iterator[Callable[[int, int, float | None], None]]:
    """Show a progress bar with the mean credit so far."""
    with progress_bar(benchmark) as advance:

        def on_progress(done: int, total: int, mean: float | None) -> None:
            advance(done, total, "" if mean is None else f"{100 * mean:.1f} % right so far")

        yield on_progress


def _print_scores(scores: "list[Score]", as_json: bool) -> None:
    """Print a line for each benchmark, or JSON; warnings go to standard error."""
    if as_json:
        opt.say(json.dumps([asdict(each) for each in scores]))
        return
    for each in scores:
        better = "higher" if each.higher_is_better else "lower"
        low, high = each.interval
        digits = 3 if high <= 2 else 1
        opt.say(
            f"{each.benchmark}: {each.metric} {each.value:.{digits}f} (95 %: {low:.{digits}f} to {high:.{digits}f}; "
            f"{each.samples} samples, {each.unresolved} unresolved, {each.errors} errors; {better} is better)"
        )
        for warning in each.warnings:
            opt.remark(f"warning: {each.benchmark}: {warning}")


def _print_comparison(first: Path, second: Path, comparison: "Comparison") -> None:
    for path, each in zip((first, second), comparison.scores, strict=True):
        opt.say(f"{path}: {each.metric} {each.value:.4g}")
    low, high = comparison.interval
    verdict = "the interval excludes 0" if comparison.is_clear else "the interval includes 0: no clear difference"
    opt.say(f"difference {comparison.difference:+.4g} (95 %: {low:+.4g} to {high:+.4g}; {verdict})")
    opt.say(f"paired permutation test by {comparison.unit}: p = {comparison.p_value:.2g}")
    opt.say(f"{len(comparison.changes)} of {comparison.scores[0].samples} samples changed")
    for change in comparison.changes[:MAX_PRINTED_CHANGES]:
        texts = f"{change.predictions[0]!r} -> {change.predictions[1]!r}, answer {change.answer!r}"
        opt.say(opt.printable(f"  {change.sample_id}: {change.credits[0]:g} -> {change.credits[1]:g}: {texts}"))
    if len(comparison.changes) > MAX_PRINTED_CHANGES:
        opt.say(f"  and {len(comparison.changes) - MAX_PRINTED_CHANGES} more (--json prints all)")
