"""Loss curves of a chain of training runs in one figure, over the samples seen.

python benchmarks/learning_curves.py runs/nano/* --out learning_curves.png    # or .svg

A run is a folder with log.jsonl and recipe.yaml; folders without a log (conversions between two runs) are left out and
listed. Runs whose names all begin with a number are drawn in the order of these numbers, others as given. The loss is
per supervised token, and per character for runs of the stage `encoder`.
"""

import argparse
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

LOG, RECIPE = "log.jsonl", "recipe.yaml"
PER_THOUSAND = 1000


@dataclass(frozen=True)
class Curve:
    """The log of one run.

    Attributes:
        samples: Samples seen in this run at each log entry.
        losses: Mean loss over the steps since the entry before.
    """

    name: str
    stage: str
    samples: list[int]
    losses: list[float]


def in_order(runs: Sequence[Path]) -> list[Path]:
    """Return runs by the numbers their names begin with (2_x before 10_y), or as given if one has none."""
    heads = {run: re.match(r"\d+", run.name) for run in runs}
    numbers = {run: int(head[0]) for run, head in heads.items() if head is not None}
    return sorted(runs, key=numbers.__getitem__) if len(numbers) == len(heads) else list(runs)


def read_curve(run: Path) -> Curve:
    """Read a run's log.

    Raises:
        ValueError: The log is damaged, or holds no losses.
    """
    recipe = yaml.safe_load((run / RECIPE).read_text(encoding="utf-8"))
    lines = [_parse(run / LOG, number, line) for number, line in enumerate(_whole_lines(run / LOG), start=1)]
    entries = [line for line in lines if "loss" in line]
    if not entries:
        raise ValueError(f"{run / LOG} holds no losses yet")
    batch = recipe["global_batch_size"]
    steps, losses = [entry["step"] for entry in entries], [float(entry["loss"]) for entry in entries]
    return Curve(run.name, recipe["training_stage"], [step * batch for step in steps], losses)


def _whole_lines(path: Path) -> list[str]:
    """Return the complete lines; a running training may be writing its last one."""
    text = path.read_text(encoding="utf-8")
    return text[: text.rfind("\n") + 1].splitlines()


def _parse(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        entry: dict[str, Any] = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}, line {number}: not JSON ({error})") from error
    return entry


def draw(curves: Sequence[Curve], out: Path) -> None:
    """Draw the runs one after the other; ``out`` ends in .png, .svg or .pdf."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    height = max(4.2, 0.19 * (len(curves) + 2))  # inches, so that the legend has room
    figure = Figure(figsize=(10, height), layout="constrained")
    axes = figure.subplots()
    colors = colormaps["tab10"].colors  # type: ignore[attr-defined]
    start = 0
    for number, curve in enumerate(curves):
        along = [(start + seen) / PER_THOUSAND for seen in curve.samples]
        unit = "character" if curve.stage == "encoder" else "token"
        label = f"{curve.name} ({curve.stage}): {curve.losses[-1]:.2f} a {unit}"
        axes.plot(along, curve.losses, color=colors[number % len(colors)], label=label, linewidth=1.4)
        start += curve.samples[-1]
        if number + 1 < len(curves):
            axes.axvline(start / PER_THOUSAND, color="0.8", linewidth=0.8, zorder=0)
    axes.set_yscale("log")
    axes.set_xlabel("samples seen, thousands")
    axes.set_ylabel("loss (log scale)")
    axes.grid(axis="y", which="both", color="0.92")
    figure.legend(loc="outside right center", fontsize="small", title="run: loss at the end")
    figure.savefig(out, dpi=150)


def main() -> None:
    """Draw the curves from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="folders of runs, in the order in which they were trained")
    parser.add_argument("--out", type=Path, default=Path("learning_curves.png"), help="a .png, .svg or .pdf")
    arguments = parser.parse_args()
    trained = [run for run in in_order(arguments.runs) if (run / LOG).is_file()]
    left_out = [run.name for run in arguments.runs if run not in trained]
    if not trained:
        parser.error(f"none of {', '.join(map(str, arguments.runs))} has a {LOG}")
    try:
        curves = [read_curve(run) for run in trained]
    except ValueError as error:
        parser.error(str(error))
    draw(curves, arguments.out)
    print(f"{arguments.out}: {', '.join(curve.name for curve in curves)}")
    if left_out:
        print(f"left out, without {LOG}: {', '.join(left_out)}")


if __name__ == "__main__":
    main()
