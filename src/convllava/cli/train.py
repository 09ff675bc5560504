"""``convllava train``: train a model by a recipe."""

import os
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import options as opt

if TYPE_CHECKING:
    from ..train import Pipeline, Recipe
    from ..train.callbacks import OnLog


def train(
    recipe: Annotated[
        Path, typer.Argument(metavar="RECIPE.yaml", help="The recipe, or the pipeline of several, a YAML file.")
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUE", help="Values in place of the recipe's, such as image.resolution=512."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the plan (modules, steps, FLOPs, memory) without training.")
    ] = False,
    devices: Annotated[int, typer.Option(min=1, help="Number of devices that --dry-run plans for.")] = 1,
    device_memory: Annotated[
        str | None, typer.Option(help="Memory of each device that --dry-run plans for, such as 80GB.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the plan of --dry-run as one JSON object.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Resume from the last checkpoint in output_dir.")] = False,
    allow_change: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY", help="Key whose value may differ from the resumed run's; may be repeated."),
    ] = None,
) -> None:
    """Train a model by a recipe; run it under torchrun to train on several devices."""
    if dry_run:
        _dry_run(
            recipe, overrides or [], devices, device_memory, as_json, resume=resume, allow_change=allow_change or ()
        )
        return
    if devices != 1 or device_memory is not None or as_json:
        raise ValueError(
            "--devices, --device-memory and --json need --dry-run; to train on several devices, use torchrun"
        )
    from ..train import is_pipeline, load_pipeline, load_recipe
    from ..train import train as run

    if is_pipeline(recipe):
        _train_pipeline(load_pipeline(recipe, overrides or []), resume=resume, allow_change=allow_change or ())
        return
    loaded = load_recipe(recipe, overrides or [])
    with _reporter() as report:
        run(loaded, resume=resume, allow_change=allow_change or (), on_log=report)
    _is_finished(loaded)


def _train_pipeline(pipeline: "Pipeline", *, resume: bool, allow_change: Collection[str]) -> None:
    """Train the steps of a pipeline in order, those that are finished excepted."""
    from ..train import TimeLeft, plan
    from ..train import train as run

    devices = int(os.environ.get("WORLD_SIZE", "1"))
    time_left = TimeLeft([plan(one, devices).total_flops for one in pipeline.recipes.values()])
    for index, (name, recipe) in enumerate(pipeline.recipes.items()):
        with _reporter(f"{index + 1}/{len(pipeline.recipes)} {name}") as report:

            def show(entry: dict[str, Any], index: int = index, report: "OnLog" = report) -> None:
                report(entry | {"seconds_left": time_left.seconds(index, entry["step"] / entry["max_steps"])})

            run(recipe, resume=resume, allow_change=allow_change, on_log=show)
        if not _is_finished(recipe):
            return


def _is_finished(recipe: "Recipe") -> bool:
    """Return whether a run has taken all its steps, and print the result, or how to continue a run that has not."""
    from ..train.callbacks import LOG_FILE, read_log

    end = read_log(recipe.output_dir / LOG_FILE)[-1]
    is_finished = bool(end["step"] >= min(end["max_steps"], recipe.stop_after_steps or end["max_steps"]))
    if os.environ.get("RANK", "0") != "0":
        return is_finished
    opt.say(f"trained model: {recipe.output_dir}")
    if not is_finished:
        minutes = recipe.stop_after_minutes
        cause = "a callback" if minutes is None else f"stop_after_minutes {minutes:g}"
        steps = f"step {end['step']} of {end['max_steps']}"
        opt.say(f"unfinished: {cause} ended the run at {steps}; continue with --resume")
    return is_finished


def _dry_run(
    path: Path,
    overrides: list[str],
    devices: int,
    device_memory: str | None,
    as_json: bool,
    *,
    resume: bool,
    allow_change: Collection[str],
) -> None:
    """Print the plan of a recipe; earlier stages are planned too if a cost was reported for all of them together."""
    from ..convert import parse_size
    from ..train import is_pipeline, load_chain, load_pipeline, load_recipe, plan
    from ..train.output_folder import starting_point
    from .plan_report import print_plan

    memory = parse_size(device_memory) if device_memory else None
    if is_pipeline(path):
        for name, step in load_pipeline(path, overrides).recipes.items():
            if not as_json:
                opt.say(f"\n{name}:")
            print_plan([(step, plan(step, devices, memory))], memory, as_json=as_json)
        return
    recipe = load_recipe(path, overrides)
    try:
        starting_point(recipe, resume=resume, allow_change=allow_change)
    except ValueError as error:
        if resume or allow_change:
            raise
        opt.warn(str(error))  # a finished run may be planned too
    reported = {stage for cost in recipe.reported_costs for stage in cost.training_stages}
    earlier = [one for one in load_chain(path, overrides)[:-1] if one.training_stage in reported] if reported else []
    planned = [(one, plan(one, devices, memory)) for one in [*earlier, recipe]]
    print_plan(planned, memory, as_json=as_json)


@contextmanager
def _reporter(title: str = "") -> "Iterator[OnLog]":
    """Yield a function that shows a log entry: as a progress bar on a terminal, as a line in a file or pipe."""
    if not sys.stderr.isatty():
        yield lambda entry: _print_log(entry, title)
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[figures]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=opt.console(stderr=True), speed_estimate_period=600) as progress:
        task = progress.add_task(title or "training", total=None, figures="")

        def show(entry: dict[str, Any]) -> None:
            if "loss" in entry:
                figures = f"loss {entry['loss']:.4f}  {_throughput(entry)}{_pipeline_time(entry)}"
                progress.update(task, completed=entry["step"], total=entry["max_steps"], figures=figures)

        yield show


def _print_log(entry: dict[str, Any], title: str = "") -> None:
    if "loss" in entry:
        opt.say(
            f"{title}{': ' if title else ''}step {entry['step']}/{entry['max_steps']}  loss {entry['loss']:.4f}  "
            f"learning rate {entry['learning_rate']:.2e}  gradient norm {entry.get('grad_norm', 0.0):.2f}  "
            + _throughput(entry)
            + _pipeline_time(entry),
        )


def _throughput(entry: dict[str, Any]) -> str:
    return (
        f"{entry['supervised_tokens_per_second']:,.0f} tokens/s  {entry['images_per_second']:.1f} images/s  "
        f"{entry['waiting_for_data']:.0%} waiting  {entry['memory_gb']:.1f} GB"
    )


def _pipeline_time(entry: dict[str, Any]) -> str:
    seconds = entry.get("seconds_left")
    if seconds is None:
        return ""
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"  {hours}:{minutes:02d} h left of the pipeline"
