"""Benchmarks run one after the other, and their scores told."""

import json
import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .progress import Advance, progress_bar

if TYPE_CHECKING:
    from ..eval.distributed import Ranks
    from ..eval.scoring import Score
    from ..inference import Generator


def load_generator(
    model: str, dtype: str | None, device: str | None, batch_size: str, resolution: int | None = None
) -> "Generator":
    """Load a model to answer so many questions at a time.

    Raises:
        ValueError: A batch size that is none, or a model that cannot be loaded.
    """
    from ..eval.answering import AUTO_BATCH
    from ..inference import Generator, load_pretrained

    if batch_size != "auto" and not (batch_size.isdecimal() and int(batch_size) >= 1):
        raise ValueError(f"--batch-size must be auto or a whole number of at least 1, got {batch_size!r}")
    size = AUTO_BATCH if batch_size == "auto" else int(batch_size)
    loaded = load_pretrained(model, dtype=dtype, device=device, fallback_resolution=resolution)
    return Generator(*loaded, max_batch=size)


def run_all(
    generator: "Generator",
    model: str,
    names: list[str],
    folder: Path,
    options: Any,
    scoring: Any,
    judge: Any,
    data: Path | None,
    limit: int | None,
    processes: "Ranks | None" = None,
) -> "tuple[list[Score], list[str]]":
    """Run benchmarks one after the other; return their scores, and what kept others from having one."""
    from ..eval.benchmarks import find_benchmark
    from ..eval.distributed import Ranks
    from ..eval.runner import Run, Source
    from ..eval.sources import default_folder

    processes = processes or Ranks()
    source = Source.of(generator, model)
    scores, troubles = [], []
    for name in names:
        own = Run(generator, find_benchmark(name), folder, options, source, processes)
        try:
            with progress_bar(name) if processes.is_first else nullcontext() as advance:
                watch = _with_mean(advance) if advance is not None else None
                own.answer(data or default_folder(), limit, scoring, watch)
            if processes.is_first:
                scores.append(own.score(scoring, judge))
        except ValueError as error:  # what is wrong with one benchmark should not cost the night of the others
            troubles.append(str(error))
    return scores, troubles


def _with_mean(advance: Advance) -> Callable[[int, int, float | None], None]:
    """Show how good it is so far."""
    return lambda done, total, mean: advance(done, total, "" if mean is None else f"{100 * mean:.1f} % right so far")


def print_scores(scores: "list[Score]", as_json: bool) -> None:
    """Print a line for each benchmark, or JSON; warnings go to standard error."""
    if as_json:
        print(json.dumps([asdict(own) for own in scores], ensure_ascii=False))
        return
    for own in scores:
        better = "higher" if own.higher_is_better else "lower"
        low, high = own.interval
        digits = 3 if high <= 2 else 1
        print(
            f"{own.benchmark}: {own.metric} {own.value:.{digits}f} (95 %: {low:.{digits}f} to {high:.{digits}f}; "
            f"{own.samples} samples, {own.unresolved} unresolved, {own.errors} errors; {better} is better)"
        )
        for warning in own.warnings:
            print(f"warning: {own.benchmark}: {warning}", file=sys.stderr)
