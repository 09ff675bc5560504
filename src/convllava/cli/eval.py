"""``convllava eval``: held-out figures of a model."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True)


@app.callback()
def root() -> None:
    """Measure a model on held-out samples."""


@app.command()
def run(
    model: Annotated[str, typer.Argument(help="nano, a checkpoint directory or a hub id.")],
    benchmark: Annotated[str, typer.Option(help="Names, separated by commas; all by default.")] = "",
    out: Annotated[Path | None, typer.Option(help="Folder for predictions and scores.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first samples.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Questions answered at a time.")] = 16,
) -> None:
    """Answer benchmarks and print one figure each."""
    from rich.console import Console
    from rich.progress import Progress

    from ..eval import BENCHMARKS, run_benchmark
    from ..eval.runner import find_benchmark
    from ..inference import Generator, load_pretrained

    names = [name.strip() for name in benchmark.split(",")] if benchmark else list(BENCHMARKS)
    for name in names:
        find_benchmark(name)
    generator = Generator(*load_pretrained(model), max_batch=batch_size)
    console = Console(stderr=True)
    for name in names:
        with Progress(console=console, transient=True) as progress:
            task = progress.add_task(name, total=None)
            score = run_benchmark(
                generator,
                name,
                limit=limit,
                out=out,
                on_progress=lambda done, total: progress.update(task, completed=done, total=total),  # noqa: B023
            )
        better = "higher" if score.higher_is_better else "lower"
        print(f"{score.benchmark}: {score.metric} {score.value:.3f} ({score.samples} samples, {better} is better)")
