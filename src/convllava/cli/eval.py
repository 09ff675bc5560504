"""``convllava eval``: figures that say how they were made."""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import options as opt

if TYPE_CHECKING:
    from ..eval.distributed import Ranks
    from ..eval.judge import Judge
    from ..eval.scoring import Score
    from ..inference import Generator

app = typer.Typer(no_args_is_help=True)

KEY_VARIABLES = ("CONVLLAVA_JUDGE_KEY", "OPENAI_API_KEY")
SHOWN_CHANGES = 20

Benchmarks = Annotated[str, typer.Option("--benchmark", help="Names, separated by commas.")]
Suite = Annotated[str, typer.Option(help="table5, table6, table7, paper (tables 5 and 6), synthetic or receipts.")]
Data = Annotated[Path | None, typer.Option(help="Folder with benchmark files; $LMUData or ~/LMUData by default.")]
Out = Annotated[Path, typer.Option(help="Folder for predictions, protocols and scores; an old one is gone on with.")]
Limit = Annotated[int | None, typer.Option(min=1, help="Only the first samples: for a try, not for a figure.")]
BatchSize = Annotated[str, typer.Option(help="Answers at a time, or auto.")]
Profile = Annotated[str, typer.Option(help="Rules of scoring: paper (VLMEvalKit of April 2024) or current.")]
Prompts = Annotated[str | None, typer.Option(help="Texts of prompts: paper, current, llava; as --profile by default.")]
PromptFormat = Annotated[str | None, typer.Option(help="Conversation format in place of the profile's.")]
OcrTokens = Annotated[bool, typer.Option(help="Show TextVQA's OCR tokens, which the paper does not.")]
KitCompatible = Annotated[
    bool, typer.Option("--kit-compatible", help="Also what VLMEvalKit does by mistake: options named None vanish.")
]
JudgeUrl = Annotated[str | None, typer.Option(help="OpenAI-compatible endpoint, up to /v1; no judge by default.")]
JudgeModel = Annotated[str | None, typer.Option(help="The judging model; its key comes from $CONVLLAVA_JUDGE_KEY.")]
JudgePrompts = Annotated[Path | None, typer.Option(help="Folder with choice.txt, yes_no.txt, points.txt of your own.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.callback()
def root() -> None:
    """Measure a model on benchmarks and held-out samples."""


@app.command()
def run(
    model: Annotated[str, typer.Argument(help="nano, a checkpoint directory or a hub id.")],
    benchmark: Benchmarks = "",
    suite: Suite = "",
    data: Data = None,
    out: Out = Path("scores"),
    image_aspect_ratio: opt.ImageAspectRatio = None,
    resolution: opt.Resolution = None,
    max_visual_tokens: opt.MaxVisualTokens = None,
    limit: Limit = None,
    batch_size: BatchSize = "auto",
    profile: Profile = "paper",
    prompts: Prompts = None,
    prompt_format: PromptFormat = None,
    ocr_tokens: OcrTokens = False,
    kit_compatible: KitCompatible = False,
    judge_url: JudgeUrl = None,
    judge_model: JudgeModel = None,
    judge_prompts: JudgePrompts = None,
    dtype: opt.Dtype = None,
    device: opt.Device = None,
    as_json: Json = False,
) -> None:
    """Answer benchmarks and score them; run it again to go on where it stopped."""
    names = chosen_benchmarks(benchmark, suite)
    image = {"image_aspect_ratio": image_aspect_ratio, "resolution": resolution, "max_visual_tokens": max_visual_tokens}
    scoring, texts = chosen_profiles(profile, prompts, kit_compatible)
    judge = make_judge(judge_url, judge_model, judge_prompts, out)
    places = chosen_settings(suite, image, out)
    check_data(names, data, texts, ocr_tokens, kit_compatible)

    from ..eval.benchmarks import LoadOptions
    from ..eval.distributed import own_device, ranks
    from ..eval.protocol import ImageOptions, RunOptions

    load = LoadOptions(texts, ocr_tokens, kit_compatible)  # type: ignore[arg-type]
    with ranks() as processes:
        generator = load_generator(model, dtype, device or own_device(), batch_size, resolution)
        scores, troubles = [], []
        for folder, setting in places:
            options = RunOptions(load, ImageOptions(**setting), prompt_format)
            found, failed = run_all(generator, model, names, folder, options, scoring, judge, data, limit, processes)
            scores += found
            troubles += failed
    if processes.is_first:
        print_scores(scores, as_json)
    if troubles:
        raise ValueError("; ".join(troubles))


@app.command()
def score(
    predictions: Annotated[Path, typer.Argument(help="NAME.predictions.jsonl, or a folder with some.")],
    profile: Profile = "paper",
    kit_compatible: KitCompatible = False,
    out: Annotated[Path | None, typer.Option(help="Folder for the scores; that of the predictions by default.")] = None,
    judge_url: JudgeUrl = None,
    judge_model: JudgeModel = None,
    judge_prompts: JudgePrompts = None,
    as_json: Json = False,
) -> None:
    """Score predictions again, without a model."""
    scoring, _ = chosen_profiles(profile, None, kit_compatible)
    from ..eval.report import predictions_of
    from ..eval.scoring import score_file

    paths = predictions_of(predictions)
    judge = make_judge(judge_url, judge_model, judge_prompts, paths[0].parent)
    scores = [score_file(path, scoring, judge)[0] for path in paths]
    for path, own in zip(paths, scores, strict=True):
        own.write(out or path.parent)
    print_scores(scores, as_json)


@app.command()
def compare(
    first: Annotated[Path, typer.Argument(help="NAME.predictions.jsonl of one model.")],
    second: Annotated[Path, typer.Argument(help="The same benchmark's of another.")],
    allow: Annotated[str, typer.Option(help="What of the protocol may differ: image.resolution, prompt ...")] = "",
    profile: Profile = "paper",
    as_json: Json = False,
) -> None:
    """Compare two models on the same questions."""
    scoring, _ = chosen_profiles(profile, None, False)
    from ..eval.compare import compare as compare_files

    found = compare_files(first, second, scoring, allowed=words(allow))
    if as_json:
        content = {
            "difference": found.difference,
            "interval": found.interval,
            "changes": list(map(asdict, found.changes)),
        }
        print(json.dumps(content, ensure_ascii=False))
        return
    for path, own in zip((first, second), found.scores, strict=True):
        print(f"{path}: {own.metric} {own.value:.4g}")
    low, high = found.interval
    verdict = "the interval leaves out 0" if found.is_clear else "the interval holds 0: no clear difference"
    print(f"difference {found.difference:+.4g} (95 %: {low:+.4g} to {high:+.4g}; {verdict})")
    print(f"{len(found.changes)} of {found.scores[0].samples} samples changed")
    for change in found.changes[:SHOWN_CHANGES]:
        told = f"{change.predictions[0]!r} -> {change.predictions[1]!r}, answer {change.answer!r}"
        print(opt.printable(f"  {change.sample_id}: {change.credits[0]:g} -> {change.credits[1]:g}: {told}"))
    if len(found.changes) > SHOWN_CHANGES:
        print(f"  and {len(found.changes) - SHOWN_CHANGES} more (--json has all)")


@app.command()
def table(
    folder: Annotated[Path, typer.Argument(help="Folder with score files, at any depth.")],
    form: Annotated[str, typer.Option("--format", help="markdown, latex or csv.")] = "markdown",
    out: Annotated[Path | None, typer.Option(help="File to write; printed by default.")] = None,
) -> None:
    """Lay scores out as the paper's tables 5, 6 and 7, beside the paper's figures."""
    from ..eval.predictions import write_text
    from ..eval.tables import WRITERS, lay_out, read_scores

    if form not in WRITERS:
        raise ValueError(f"--format must be one of {', '.join(WRITERS)}, got {form!r}")
    text = WRITERS[form](lay_out(read_scores(folder)))
    if out is None:
        print(text, end="")
    else:
        write_text(out, text)
        print(f"written: {out}")


@app.command()
def report(
    predictions: Annotated[Path, typer.Argument(help="NAME.predictions.jsonl, or a folder with some.")],
    out: Annotated[Path | None, typer.Option(help="Folder for the page; that of the predictions by default.")] = None,
    data: Data = None,
    profile: Profile = "paper",
    limit: Annotated[int | None, typer.Option(min=1, help="Show only the first samples.")] = None,
    judge_url: JudgeUrl = None,
    judge_model: JudgeModel = None,
    judge_prompts: JudgePrompts = None,
) -> None:
    """Write a page with every question, picture, answer and verdict."""
    scoring, _ = chosen_profiles(profile, None, False)
    from ..eval.report import predictions_of, write_report

    paths = predictions_of(predictions)
    judge = make_judge(judge_url, judge_model, judge_prompts, paths[0].parent)
    for path in paths:
        print(write_report(path, out, data=data, scoring=scoring, judge=judge, most=limit))


@app.command()
def sweep(
    models: Annotated[list[str], typer.Argument(help="One checkpoint or several.")],
    benchmark: Benchmarks,
    resolution: Annotated[str, typer.Option(help="Numbers of pixels, separated by commas.")] = "",
    image_aspect_ratio: Annotated[str, typer.Option(help="pad, native, or both with a comma.")] = "",
    max_visual_tokens: Annotated[str, typer.Option(help="Token budgets, separated by commas.")] = "",
    data: Data = None,
    out: Out = Path("sweep"),
    limit: Limit = None,
    batch_size: BatchSize = "auto",
    dtype: opt.Dtype = None,
    device: opt.Device = None,
) -> None:
    """Measure under many settings: accuracy against visual tokens and seconds, with plots."""
    names = chosen_benchmarks(benchmark, "")
    check_data(names, data, "paper", False, False)

    from ..eval.benchmarks import Scoring
    from ..eval.protocol import RunOptions
    from ..eval.sweep import as_markdown, folder_of, name_of, point_of, settings, write_sweep

    grid = settings(words(image_aspect_ratio), numbers(resolution), numbers(max_visual_tokens))
    points = []
    for model in models:
        generator = load_generator(model, dtype, device, batch_size)
        for options in grid:
            folder = out / folder_of(model) / name_of(options)
            run_options = RunOptions(image=options)
            scores, troubles = run_all(generator, model, names, folder, run_options, Scoring(), None, data, limit)
            if troubles:
                raise ValueError("; ".join(troubles))
            points += [point_of(own, folder, options) for own in scores]
    paths = write_sweep(points, out)
    print(as_markdown(points), end="")
    print("written:", ", ".join(map(str, paths)))


def chosen_benchmarks(benchmark: str, suite: str) -> list[str]:
    """Return the names of the benchmarks that are asked for; without any wish the synthetic ones.

    Raises:
        ValueError: Unknown names, or a suite beside names.
    """
    from ..eval.benchmarks import find_benchmark
    from ..eval.paper import SUITES

    if benchmark and suite:
        raise ValueError("give either --benchmark or --suite")
    if not benchmark:
        suite = suite or "synthetic"
        if suite not in SUITES:
            raise ValueError(f"no suite {suite!r}: one of {', '.join(SUITES)}")
        return SUITES[suite]
    return list(dict.fromkeys(find_benchmark(name).name for name in words(benchmark)))


def chosen_settings(suite: str, image: dict[str, Any], out: Path) -> list[tuple[Path, dict[str, Any]]]:
    """Return the folders of a run and how pictures are shown for each: one, or the three of Table 7."""
    from ..eval.paper import SETTINGS_OF_TABLE_7

    if suite != "table7":
        return [(out, image)]
    if any(value is not None for value in image.values()):
        raise ValueError("--suite table7 sets --image-aspect-ratio and --resolution itself: leave them out")
    return [(out / name, {**image, **setting}) for name, setting in SETTINGS_OF_TABLE_7.items()]


def chosen_profiles(profile: str, prompts: str | None, kit_compatible: bool) -> tuple[Any, str]:
    """Return how answers are scored, and whose texts are used.

    Raises:
        ValueError: An unknown profile.
    """
    from ..eval.benchmarks import Scoring
    from ..eval.metrics import PROFILES
    from ..eval.prompts import PROMPT_PROFILES

    if profile == "llava":  # it changes prompts only
        profile, prompts = "paper", prompts or "llava"
    texts = prompts or profile
    if profile not in PROFILES:
        raise ValueError(f"--profile must be one of {', '.join((*PROFILES, 'llava'))}, got {profile!r}")
    if texts not in PROMPT_PROFILES:
        raise ValueError(f"--prompts must be one of {', '.join(PROMPT_PROFILES)}, got {texts!r}")
    return Scoring(profile, kit_compatible), texts


def make_judge(url: str | None, model: str | None, prompts: Path | None, folder: Path) -> "Judge | None":
    """Return a judge, or None where nobody asks for one.

    Raises:
        ValueError: Only one of URL and model name.
    """
    if url is None and model is None:
        return None
    if url is None or model is None:
        raise ValueError("a judge needs both --judge-url and --judge-model")
    from ..eval.judge import Endpoint, Judge

    key = next((os.environ[name] for name in KEY_VARIABLES if os.environ.get(name)), "")
    return Judge(Endpoint(url, model, key), model, folder / "judge.jsonl", prompts)


def check_data(names: list[str], data: Path | None, prompts: str, ocr_tokens: bool, kit_compatible: bool) -> None:
    """Find every benchmark's file before a model is loaded.

    Raises:
        ValueError: One is missing.
    """
    from ..eval.benchmarks import find_benchmark
    from ..eval.sources import default_folder

    folder = data or default_folder()
    missing = [own.missing(folder) for own in map(find_benchmark, names) if not own.is_there(folder)]
    if missing:
        more = f" ({len(missing) - 1} more benchmarks are missing too)" if len(missing) > 1 else ""
        raise ValueError(missing[0] + more)


def load_generator(
    model: str, dtype: str | None, device: str | None, batch_size: str, resolution: int | None = None
) -> "Generator":
    from ..eval.answering import AUTO_BATCH
    from ..inference import Generator, load_pretrained

    if batch_size != "auto" and not (batch_size.isdecimal() and int(batch_size) >= 1):
        raise ValueError(f"--batch-size must be auto or a whole number of at least 1, got {batch_size!r}")
    size = AUTO_BATCH if batch_size == "auto" else int(batch_size)
    loaded = load_pretrained(model, dtype=dtype, device=device, fallback_resolution=resolution)
    return Generator(*loaded, max_batch=size)


def run_all(
    generator: "Generator",
    model: str,
    names: list[str],
    folder: Path,
    options: Any,
    scoring: Any,
    judge: Any,
    data: Path | None,
    limit: int | None,
    processes: "Ranks | None" = None,
) -> "tuple[list[Score], list[str]]":
    """Run benchmarks one after the other; return their scores, and what kept others from having one."""
    from ..eval.benchmarks import find_benchmark
    from ..eval.distributed import Ranks
    from ..eval.runner import Run, Source
    from ..eval.sources import default_folder

    processes = processes or Ranks()
    source = Source.of(generator, model)
    scores, troubles = [], []
    for name in names:
        own = Run(generator, find_benchmark(name), folder, options, source, processes)
        try:
            with progress_bar(name, processes.is_first) as advance:
                own.answer(data or default_folder(), limit, scoring, advance)
            if processes.is_first:
                scores.append(own.score(scoring, judge))
        except ValueError as error:  # what is wrong with one benchmark should not cost the night of the others
            troubles.append(str(error))
    return scores, troubles


@contextmanager
def progress_bar(name: str, is_shown: bool) -> "Iterator[Callable[[int, int, float | None], None] | None]":
    """Show what is done, how long it will take and how good it is so far."""
    if not is_shown:
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[mean]}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(name, total=None, mean="")

        def advance(done: int, total: int, mean: float | None) -> None:
            shown = "" if mean is None else f"{100 * mean:.1f} % right so far"
            progress.update(task, completed=done, total=total, mean=shown)

        yield advance


def print_scores(scores: "list[Score]", as_json: bool) -> None:
    import sys

    if as_json:
        print(json.dumps([asdict(own) for own in scores], ensure_ascii=False))
        return
    for own in scores:
        better = "higher" if own.higher_is_better else "lower"
        low, high = own.interval
        digits = 3 if high <= 2 else 1
        print(
            f"{own.benchmark}: {own.metric} {own.value:.{digits}f} (95 %: {low:.{digits}f} to {high:.{digits}f}; "
            f"{own.samples} samples, {own.unresolved} unresolved, {own.errors} errors; {better} is better)"
        )
        for warning in own.warnings:
            print(f"warning: {own.benchmark}: {warning}", file=sys.stderr)


def words(text: str) -> list[str]:
    """Split at commas."""
    return [word.strip() for word in text.split(",") if word.strip()]


def numbers(text: str) -> list[int]:
    """Split at commas into whole numbers.

    Raises:
        ValueError: Something else.
    """
    for word in words(text):
        if not word.isdecimal():
            raise ValueError(f"{word!r} is not a whole number of at least 0")
    return [int(word) for word in words(text)]
