"""``convllava train``: train a model by a recipe."""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import options as opt

if TYPE_CHECKING:
    from ..train import Recipe


def train(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE.yaml", help="The recipe, a YAML file.")],
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
    from ..train import load_recipe
    from ..train import train as run
    from ..train.callbacks import LOG_FILE, read_log

    loaded = load_recipe(recipe, overrides or [])
    with _reporter() as report:
        directory = run(loaded, resume=resume, allow_change=allow_change or (), on_log=report)
    if os.environ.get("RANK", "0") == "0":
        opt.say(f"trained model: {directory}")
        _report_unfinished(loaded, read_log(directory / LOG_FILE)[-1])


def _report_unfinished(recipe: "Recipe", end: dict[str, Any]) -> None:
    """Print a line if the time budget ended the run before its last step."""
    if end["step"] < min(end["max_steps"], recipe.stop_after_steps or end["max_steps"]):
        minutes = recipe.stop_after_minutes
        cause = "a callback" if minutes is None else f"stop_after_minutes {minutes:g}"
        steps = f"step {end['step']} of {end['max_steps']}"
        opt.say(f"unfinished: {cause} ended the run at {steps}; continue with --resume")


def _dry_run(
    path: Path,
    overrides: list[str],
    devices: int,
    device_memory: str | None,
    as_json: bool,
    *,
    resume: bool,
    allow_change: Sequence[str],
) -> None:
    """Print the plan of a recipe; earlier stages are planned too if a cost was reported for all of them together."""
    from ..convert import parse_size
    from ..train import load_chain, load_recipe, plan
    from ..train.output_folder import starting_point
    from .plan_report import print_plan

    memory = parse_size(device_memory) if device_memory else None
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
def _reporter() -> Iterator[Callable[[dict[str, Any]], None]]:
    """Yield a function that shows a log entry: as a progress bar on a terminal, as a line in a file or pipe."""
    if not sys.stderr.isatty():
        yield _print_log
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
        task = progress.add_task("training", total=None, figures="")

        def show(entry: dict[str, Any]) -> None:
            if "loss" in entry:
                figures = f"loss {entry['loss']:.4f}  {_throughput(entry)}"
                progress.update(task, completed=entry["step"], total=entry["max_steps"], figures=figures)

        yield show


def _print_log(entry: dict[str, Any]) -> None:
    if "loss" in entry:
        opt.say(
            f"step {entry['step']}/{entry['max_steps']}  loss {entry['loss']:.4f}  "
            f"learning rate {entry['learning_rate']:.2e}  gradient norm {entry.get('grad_norm', 0.0):.2f}  "
            + _throughput(entry),
        )


def _throughput(entry: dict[str, Any]) -> str:
    return (
        f"{entry['supervised_tokens_per_second']:,.0f} tokens/s  {entry['images_per_second']:.1f} images/s  "
        f"{entry['waiting_for_data']:.0%} waiting  {entry['memory_gb']:.1f} GB"
    )
