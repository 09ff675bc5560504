"""``convllava eval``: figures that say how they were made."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from . import options as opt
from .eval_choices import check_data, chosen_benchmarks, chosen_profiles, chosen_settings, make_judge, numbers, words
from .eval_running import load_generator, print_scores, run_all

app = typer.Typer(no_args_is_help=True)

SHOWN_CHANGES = 20

Benchmarks = Annotated[str, typer.Option("--benchmark", help="Names, separated by commas.")]
Suite = Annotated[str, typer.Option(help="table5, table6, table7, paper (tables 5 and 6), synthetic or pages.")]
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
def root(
    plugin: Annotated[
        list[Path] | None, typer.Option(help="Python file that registers benchmarks of your own; may be repeated.")
    ] = None,
) -> None:
    """Measure a model on benchmarks and held-out samples."""
    if plugin:
        from ..eval.benchmarks import load_plugin

        for path in plugin:
            load_plugin(path)


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
    """Write a page with every question, image, answer and verdict."""
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
