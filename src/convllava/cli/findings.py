"""``convllava findings``: the paper's findings in miniature."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import options as opt

if TYPE_CHECKING:
    from ..findings import FindingsSettings
    from ..train.callbacks import OnLog

app = typer.Typer(no_args_is_help=True)

Recipes = Annotated[Path, typer.Option(help="Folder with findings.yaml and the pipelines of the arms.")]


@app.callback()
def root() -> None:
    """Train and measure the paper's controlled comparisons in miniature."""


@app.command("list")
def list_findings(recipes: Recipes = Path("recipes/findings")) -> None:
    """List the findings and their arms."""
    from ..findings import load_catalog

    for name, finding in load_catalog(recipes).findings.items():
        opt.say(f"{name}: {finding.title}")
        for arm, definition in finding.arms.items():
            opt.say(f"    {arm}: {definition.pipeline}")


@app.command()
def run(
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="NAME|KEY=VALUE", help="Findings, by default all; values for --like."),
    ] = None,
    recipes: Recipes = Path("recipes/findings"),
    out: Annotated[Path, typer.Option(help="Folder of models and results; what is there is kept.")] = Path(
        "runs/findings"
    ),
    quick: Annotated[bool, typer.Option("--quick", help="Try the arms out: few steps and samples, one seed.")] = False,
    seeds: Annotated[int | None, typer.Option(min=1, help="Number of seeds in place of the catalog's.")] = None,
    like: Annotated[str | None, typer.Option(help="Arm of one finding to run once more with KEY=VALUE.")] = None,
) -> None:
    """Train the arms that are missing, measure them, and write findings.md; the same command resumes."""
    from ..findings import FindingsSettings, load_catalog, run_findings, write_page
    from ..findings.page import sentence

    names = [word for word in words or [] if "=" not in word]
    changes = tuple(word for word in words or [] if "=" in word)
    settings = FindingsSettings(load_catalog(recipes), names, out, quick, seeds, like, changes)
    results = []
    for result in run_findings(settings, _report):
        results.append(result)
        opt.say(f"{result.name}: {result.finding.title}")
        for verdict in result.verdicts:
            opt.say(f"    {sentence(verdict)}")
    paths = write_page(results, settings.catalog, settings.folder, _command(words or [], settings))
    opt.say(f"written: {paths[0]}")


def _command(words: list[str], settings: "FindingsSettings") -> str:
    """Return the command that makes the same results."""
    options = ["--quick"] * settings.quick
    options += [] if settings.seeds is None else ["--seeds", str(settings.seeds)]
    options += [] if settings.like is None else ["--like", settings.like]
    return shlex.join(["convllava", "findings", "run", *words, *options])


def _report(title: str) -> "OnLog":
    """Return a function that shows the log of one training run as lines on standard error."""

    def show(entry: dict[str, Any]) -> None:
        if "loss" in entry:
            opt.remark(f"{title}: step {entry['step']}/{entry['max_steps']}, loss {entry['loss']:.3f}")

    return show
