"""``convllava train``: train a model by a recipe or a pipeline, or on data for which a recipe is chosen."""

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..support import write_text
from . import options as opt
from .data_opening import check_input
from .train_progress import reporting, summary_of

if TYPE_CHECKING:
    from ..train import Pipeline, Recipe


def train(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="RECIPE.yaml|DATA",
            help="A recipe, a pipeline of several, or a file or folder of data, for which a recipe is chosen.",
        ),
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUE", help="Values in place of the recipe's, such as image.resolution=512."),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Base model of a chosen recipe: nano (default), a directory or a hub id.")
    ] = None,
    write: Annotated[
        Path | None, typer.Option(metavar="RECIPE.yaml", help="Write the chosen recipe to edit it; do not train.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the plan (modules, steps, FLOPs, memory) without training.")
    ] = False,
    devices: Annotated[int, typer.Option(min=1, help="Number of devices that --dry-run plans for.")] = 1,
    device_memory: Annotated[
        str | None,
        typer.Option(help="Memory of each device that --dry-run and a chosen recipe plan for, such as 80GB."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the plan of --dry-run as one JSON object.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Resume from the last checkpoint in output_dir.")] = False,
    allow_change: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY", help="Key whose value may differ from the resumed run's; may be repeated."),
    ] = None,
) -> None:
    """Train a model by a recipe, or on data for which a recipe is chosen; run it under torchrun for several devices."""
    check_input(str(source), model)

    from ..convert import parse_size

    memory = parse_size(device_memory) if device_memory else None
    if not dry_run and (devices != 1 or as_json):
        raise ValueError("--devices and --json need --dry-run; to train on several devices, use torchrun")
    planned_for = Planned(devices, memory, as_json, resume, allow_change or ()) if dry_run else None
    if not is_recipe(source):
        chosen = _chosen(source, overrides or [], model or "nano", memory, write, quiet=as_json)
        if planned_for is not None:
            _dry_run([chosen], planned_for)
        elif write is None:
            _train(chosen, resume, allow_change or ())
        return
    if model is not None or write is not None:
        raise ValueError(f"--model and --write choose a recipe for data, and {source} is a recipe: set init_from there")
    if memory is not None and not dry_run:
        raise ValueError("--device-memory needs --dry-run, or data for which a recipe is chosen")
    _run_file(source, overrides or [], planned_for, resume, allow_change or ())


@dataclass(frozen=True)
class Planned:
    """Devices that a dry run plans for, its output, and the start of the run that it stands for."""

    devices: int
    memory: float | None
    as_json: bool
    resume: bool
    allow_change: Collection[str]


def is_recipe(path: Path) -> bool:
    """Return whether a path is a recipe rather than data."""
    if path.suffix.lower() in (".yaml", ".yml"):
        return True
    if path.suffix.lower() != ".json" or not path.is_file():
        return False
    with path.open("rb") as file:
        beginning = file.read(1 << 16)
    return beginning.lstrip().startswith(b"{") and b'"training_stage"' in beginning


def _run_file(
    path: Path,
    overrides: Sequence[str],
    planned_for: Planned | None,
    resume: bool,
    allow_change: Collection[str],
) -> None:
    """Train by a recipe or a pipeline, or print the plan for a number of devices of some memory."""
    from ..train import is_pipeline, load_pipeline, load_recipe

    if not is_pipeline(path) and planned_for is None:
        _train(load_recipe(path, overrides), resume, allow_change)
    elif not is_pipeline(path) and planned_for is not None:
        _dry_run(_load_chain(path, overrides), planned_for)
    elif planned_for is None:
        _train_pipeline(load_pipeline(path, overrides), resume=resume, allow_change=allow_change)
    else:
        for name, step in load_pipeline(path, overrides).plannable().items():
            if not planned_for.as_json:
                opt.say(f"\n{name}:")
            _dry_run([step], planned_for, is_step=True)


def _train(recipe: "Recipe", resume: bool, allow_change: Collection[str]) -> None:
    from ..train import train as run

    with reporting() as callbacks:
        run(recipe, resume=resume, allow_change=allow_change, callbacks=callbacks)
    _is_finished(recipe)


def _train_pipeline(pipeline: "Pipeline", *, resume: bool, allow_change: Collection[str]) -> None:
    """Train the steps of a pipeline in order, those that are finished excepted."""
    from ..train import TimeLeft, plan
    from ..train import train as run

    devices = int(os.environ.get("WORLD_SIZE", "1"))
    time_left = TimeLeft([plan(one, devices).total_flops for one in pipeline.plannable().values()])
    for index, (name, recipe) in enumerate(pipeline.recipes.items()):

        def seconds_left(progress: Any, index: int = index) -> float | None:
            return time_left.seconds(index, progress.step / progress.max_steps)

        with reporting(f"{index + 1}/{len(pipeline.recipes)} {name}", seconds_left) as callbacks:
            run(recipe, resume=resume, allow_change=allow_change, callbacks=callbacks)
        if not _is_finished(recipe):
            return


def _is_finished(recipe: "Recipe") -> bool:
    """Return whether a run has come to its end, and print the result, or how to continue a run that has not."""
    from ..train.callbacks import LOG_FILE, read_log

    is_finished, lines = summary_of(recipe, read_log(recipe.output_dir / LOG_FILE))
    if os.environ.get("RANK", "0") == "0":
        opt.say("\n".join([f"trained model: {recipe.output_dir}", *lines]))
    return is_finished


def _chosen(
    data: Path, overrides: Sequence[str], model: str, memory: float | None, write: Path | None, *, quiet: bool
) -> "Recipe":
    """Choose a recipe for data, print its choices, and write it if asked to."""
    from ..train.auto_recipe import choose_recipe

    if write is not None and overrides:
        raise ValueError("--write writes the chosen recipe as it is: give KEY=VALUE when it is run, or edit it")
    chosen = choose_recipe(data, model=model, device_memory=memory)
    recipe = chosen.recipe(overrides)
    if not quiet and os.environ.get("RANK", "0") == "0":
        opt.say("\n".join(map(str, chosen.choices)))
    if write is not None:
        write_text(write, chosen.text())
        opt.say(f"{write}: edit it, then convllava train {write}")
    return recipe


def _load_chain(path: Path, overrides: Sequence[str]) -> "list[Recipe]":
    """Load a recipe, and those before it whose cost was reported together with its own."""
    from ..train import load_chain, load_recipe

    recipe = load_recipe(path, overrides)
    reported = {stage for cost in recipe.reported_costs for stage in cost.training_stages}
    earlier = load_chain(path, overrides)[:-1] if reported else []
    return [*(one for one in earlier if one.training_stage in reported), recipe]


def _dry_run(chain: "Sequence[Recipe]", planned_for: Planned, *, is_step: bool = False) -> None:
    """Print the plan of the last recipe of a chain, or of a step of a pipeline, whose start is not there yet."""
    from ..train import plan
    from ..train.output_folder import starting_point
    from ..train.plan.timing import seconds_here
    from .plan_report import print_plan

    recipe, devices = chain[-1], planned_for.devices
    try:
        if not is_step:
            starting_point(recipe, resume=planned_for.resume, allow_change=planned_for.allow_change)
    except ValueError as error:
        if planned_for.resume or planned_for.allow_change:
            raise
        opt.warn(str(error))  # a finished run may be planned too
    planned = [(one, plan(one, devices, planned_for.memory)) for one in chain]
    last = planned[-1][1]
    seconds = seconds_here(recipe, last.samples, last.per_device_batch_size) if devices == 1 else None
    print_plan(planned, planned_for.memory, seconds_here=seconds, as_json=planned_for.as_json)
