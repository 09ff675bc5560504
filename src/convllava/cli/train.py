"""``convllava train``: run a recipe."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer


def train(
    recipe: Annotated[Path, typer.Argument(help="The recipe, a YAML file.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Values to change: key=value, image.resolution=512.")
    ] = None,
    dry_run: Annotated[bool, typer.Option(help="Print what would be trained, and stop.")] = False,
    resume: Annotated[bool, typer.Option(help="Go on from the last checkpoint in output_dir.")] = False,
) -> None:
    """Train a model by a recipe; under torchrun, on several devices."""
    from ..train import load_recipe, plan
    from ..train import train as run

    loaded = load_recipe(recipe, overrides or [])
    if dry_run:
        _print_plan(plan(loaded))
        return
    with _reporter() as report:
        directory = run(loaded, resume=resume, on_log=report)
    if os.environ.get("RANK", "0") == "0":
        print(f"trained model: {directory}")


@contextmanager
def _reporter() -> Iterator[Callable[[dict[str, Any]], None]]:
    """Yield what shows a log line: a progress bar on a terminal, a line in a file or pipe."""
    if not sys.stderr.isatty():
        yield _print_log
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("loss {task.fields[loss]:.4f}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("training", total=None, loss=float("nan"))

        def show(entry: dict[str, Any]) -> None:
            if "loss" in entry:
                progress.update(task, completed=entry["step"], total=entry["max_steps"], loss=entry["loss"])

        yield show


def _print_log(entry: dict[str, Any]) -> None:
    if "loss" in entry:
        print(
            f"step {entry['step']}/{entry['max_steps']}  loss {entry['loss']:.4f}  "
            f"learning rate {entry['learning_rate']:.2e}  gradient norm {entry.get('grad_norm', 0.0):.2f}",
            flush=True,
        )


def _print_plan(plan: Any) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("module", "parameters", "trained", title="What trains")
    for count in plan.modules:
        table.add_row(count.module, f"{count.total:,}", f"{count.trainable:,}")
    total, trained = (sum(getattr(count, name) for count in plan.modules) for name in ("total", "trainable"))
    table.add_row("all", f"{total:,}", f"{trained:,}")
    console = Console()
    console.print(table)
    batch = f"{plan.per_device_batch_size} a device x {plan.accumulation_steps} accumulation steps"
    console.print(f"{plan.samples:,} samples in {plan.steps:,} steps ({batch})")
    per_sample = plan.visual_tokens + plan.text_tokens
    console.print(
        f"tokens a sample: {plan.visual_tokens:.1f} visual + {plan.text_tokens:.1f} text, of these "
        f"{plan.supervised_tokens:.1f} supervised; about {per_sample * plan.samples / 1e6:.1f} M in all"
    )
