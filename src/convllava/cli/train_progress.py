"""Progress of ``convllava train``: a bar on a terminal, lines in a file or pipe."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from . import options as opt

if TYPE_CHECKING:
    from ..train import Callback, Recipe


SecondsLeft = Callable[[Any], float | None]
"""Function of a run's progress that estimates the seconds until the end of its pipeline."""


@contextmanager
def reporting(title: str = "", seconds_left: SecondsLeft = lambda progress: None) -> "Iterator[list[Callback]]":
    """Yield the callbacks that show a run; only the main process shows anything.

    Args:
        title: Name of the run in a pipeline.
        seconds_left: Time that is left of the pipeline.
    """
    if os.environ.get("RANK", "0") != "0":
        yield []
    elif not sys.stderr.isatty():
        yield [_lines(title, seconds_left)]
    else:
        with _bar(title, seconds_left) as callback:
            yield [callback]


def _lines(title: str, seconds_left: SecondsLeft) -> "Callback":
    from ..train import Callback

    class Lines(Callback):
        """Prints every log line."""

        def on_log(self, progress: Any, entry: dict[str, Any]) -> None:
            start = f"{title}: " if title else ""
            line = line_of(progress.step, progress.max_steps, entry)
            opt.say(f"{start}{line}{_pipeline_time(seconds_left(progress))}")

    return Lines()


def _pipeline_time(seconds: float | None) -> str:
    if seconds is None:
        return ""
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"  {hours}:{minutes:02d} h left of the pipeline"


@contextmanager
def _bar(title: str, seconds_left: SecondsLeft) -> "Iterator[Callback]":
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from ..train import Callback

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TimeRemainingColumn(compact=True),
        TextColumn("{task.fields[figures]}"),
    )
    with Progress(*columns, console=opt.console(stderr=True), speed_estimate_period=600, expand=True) as bar:
        task = bar.add_task("loading", total=None, figures="")

        class Bar(Callback):
            """Moves the bar with every step and changes its figures with every log line."""

            def __init__(self) -> None:
                self.loss = self.held_out = ""

            def on_begin(self, progress: Any) -> None:
                total = progress.max_steps
                bar.update(task, description=title or "training", total=total, completed=progress.step)

            def on_step_end(self, progress: Any) -> None:
                bar.update(task, completed=progress.step)

            def on_log(self, progress: Any, entry: dict[str, Any]) -> None:
                if "loss" in entry:
                    self.loss = f"loss {entry['loss']:.3f}"
                if "validation/loss" in entry:
                    self.held_out = f"held out {entry['validation/loss']:.3f}"
                speed = f"{entry['supervised_tokens_per_second']:,.0f} tokens/s" if "loss" in entry else ""
                figures = "  ".join(filter(None, (self.loss, self.held_out, speed)))
                bar.update(task, figures=figures + _pipeline_time(seconds_left(progress)))

        yield Bar()


def line_of(step: int, max_steps: int, entry: dict[str, Any]) -> str:
    """Return a log entry as a line of text."""
    parts = [f"step {step}/{max_steps}"]
    if "loss" in entry:
        parts += [
            f"loss {entry['loss']:.4f}",
            f"learning rate {entry['learning_rate']:.2e}",
            f"gradient norm {entry.get('grad_norm', 0.0):.2f}",
            f"{entry['supervised_tokens_per_second']:,.0f} tokens/s",
            f"{entry['images_per_second']:.1f} images/s",
            f"{entry['waiting_for_data']:.0%} waiting",
            f"{entry['memory_gb']:.1f} GB",
        ]
    held_out = {key.removeprefix("validation/"): value for key, value in entry.items() if key.startswith("validation/")}
    hidden = ("seconds", "best_step", "without_improvement")
    figures = [f"{name} {value:.4f}" for name, value in held_out.items() if name not in hidden]
    if figures:
        parts.append(f"held out: {', '.join(figures)}")
    return "  ".join(parts)


def summary_of(recipe: "Recipe", entries: list[dict[str, Any]]) -> tuple[bool, list[str]]:
    """Return whether a run has come to its end, and lines about it: the best validation, and why it ended early."""
    end = entries[-1]
    lines = []
    validations = [entry for entry in entries if "validation/best_step" in entry]
    if validations and recipe.validation is not None:
        lines += _validation_summary(recipe, entries, validations[-1])
        patience = recipe.validation.patience
        if patience is not None and validations[-1]["validation/without_improvement"] >= patience:
            return True, [*lines, f"ended early at step {end['step']}: no improvement in {patience} validations"]
    if end["step"] >= min(end["max_steps"], recipe.stop_after_steps or end["max_steps"]):
        return True, lines
    minutes = recipe.stop_after_minutes
    cause = "a callback" if minutes is None else f"stop_after_minutes {minutes:g}"
    unfinished = f"unfinished: {cause} ended the run at step {end['step']} of {end['max_steps']}"
    return False, [*lines, f"{unfinished}; continue with --resume"]


def _validation_summary(recipe: "Recipe", entries: list[dict[str, Any]], last: dict[str, Any]) -> list[str]:
    best = last["validation/best_step"]
    by_step = {entry["step"]: entry for entry in entries if "validation/loss" in entry}
    hidden = ("seconds", "best_step", "without_improvement")
    lines = []
    for key in by_step[best]:
        name = key.removeprefix("validation/")
        if name == key or name in hidden or "/" in name:
            continue
        before = f"{by_step[0][key]:.4f} before training, " if key in by_step.get(0, {}) else ""
        lines.append(f"held-out {name}: {before}{by_step[best][key]:.4f} at step {best}")
    kept = recipe.validation is not None and recipe.validation.keep_best is not None
    if kept and best != entries[-1]["step"]:
        lines.append(f"the model is that of step {best}, the best by its held-out figure")
    return lines
