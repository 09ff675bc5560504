"""Run the complete receipts example: import, measure, train, measure again, draw the learning curves.

python examples/receipts/run_all.py SOURCE                 # a folder in SROIE's layout, or a JSONL file
python examples/receipts/run_all.py SOURCE --dry-run       # only prints the commands

Each command is printed before it runs. After an interruption, the same call resumes: imported data are kept, training
resumes from its last checkpoint, and answered questions are not asked again. The results are
runs/receipts/summary.md (figures before and after, minutes of each step) and runs/receipts/learning_curves.png.
"""

import argparse
import json
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

HERE = "examples/receipts"
FOLDER = Path("runs/receipts")
DATA = FOLDER / "data"
RECIPES = ("1_read", "2_answer")
BENCHMARKS = ("receipts-lines", "receipts-total")
BUDGET = 160
"""Maximum visual tokens of a page, the same in training and in both measurements."""

MINUTES = FOLDER / "minutes.json"


@dataclass(frozen=True)
class Step:
    """A named command.

    Attributes:
        name: Name in ``minutes.json``.
        words: The command line.
    """

    name: str
    words: tuple[str, ...]


def convllava(*words: str) -> tuple[str, ...]:
    """Return the command line of a convllava command."""
    return (sys.executable, "-m", "convllava.cli.main", *words)


def steps(source: str, processes: int, limit: int | None) -> list[Step]:
    """Return all commands in order."""
    found = []
    if not DATA.exists():
        split = ("--train", "400", "--validation", "10", "--test", "100")
        found.append(Step("import", (sys.executable, f"{HERE}/import_sroie.py", source, str(DATA), *split)))
    found.append(Step("before", measure("nano", "before", limit)))
    for name in RECIPES:
        launcher = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes))
        command = ("-m", "convllava.cli.main", "train", f"{HERE}/{name}.yaml", "--resume")
        found.append(Step(name, (*launcher, *command)))
    found.append(Step("after", measure(str(FOLDER / RECIPES[-1]), "after", limit)))
    runs = tuple(str(FOLDER / name) for name in RECIPES)
    curves = ("benchmarks/learning_curves.py", *runs, "--out", str(FOLDER / "learning_curves.png"))
    found.append(Step("curves", (sys.executable, *curves)))
    return found


def measure(model: str, name: str, limit: int | None) -> tuple[str, ...]:
    """Return the command that measures a model."""
    options = ("--data", str(DATA), "--max-visual-tokens", str(BUDGET), "--out", str(FOLDER / name))
    some = ("--limit", str(limit)) if limit else ()
    plugin = f"{HERE}/benchmarks.py"
    return convllava("eval", "--plugin", plugin, "run", model, "--benchmark", ",".join(BENCHMARKS), *options, *some)


def run(step: Step) -> None:
    """Run a command and add its minutes to those of earlier calls."""
    print(f"$ {shlex.join(step.words)}", flush=True)
    started = time.monotonic()
    subprocess.run(step.words, check=True)
    spent = json.loads(MINUTES.read_text()) if MINUTES.is_file() else {}
    spent[step.name] = spent.get(step.name, 0) + (time.monotonic() - started) / 60
    FOLDER.mkdir(parents=True, exist_ok=True)
    MINUTES.write_text(json.dumps(spent, indent=1) + "\n")


def figure(folder: Path, benchmark: str) -> str:
    """Return a score with its interval and number of samples."""
    score = json.loads((folder / f"{benchmark}.score.json").read_text(encoding="utf-8"))
    low, high = score["interval"]
    return f"{score['value']:.3f} ({low:.3f} to {high:.3f}; {score['samples']})"


def summary() -> str:
    """Return the figures before and after, and the minutes, as Markdown."""
    lines = ["| benchmark | before | after |", "|---|---|---|"]
    for name in BENCHMARKS:
        lines.append(f"| `{name}` | {figure(FOLDER / 'before', name)} | {figure(FOLDER / 'after', name)} |")
    spent = json.loads(MINUTES.read_text())
    lines += ["", "Minutes: " + ", ".join(f"{name} {minutes:.1f}" for name, minutes in spent.items())]
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line and run the remaining commands."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", help="folder with SROIE's images, boxes and keys, or a JSONL file")
    parser.add_argument("--processes", type=int, default=2, help="training processes (default: 2)")
    parser.add_argument("--limit", type=int, help="only the first questions of each benchmark")
    parser.add_argument("--dry-run", action="store_true", help="only print the commands")
    given = parser.parse_args(arguments)
    planned = steps(given.source, given.processes, given.limit)
    if given.dry_run:
        print("\n".join(shlex.join(step.words) for step in planned))
        return
    for step in planned:
        run(step)
    (FOLDER / "summary.md").write_text(summary(), encoding="utf-8")
    print(summary(), end="")


if __name__ == "__main__":
    main()
