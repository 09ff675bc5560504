"""Benchmarks, metrics and the runner.

Everything that a benchmark of your own needs can be imported from here, see :func:`register_benchmark`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .benchmarks import find_benchmark, register_benchmark
    from .benchmarks.base import (
        Benchmark,
        EvalSample,
        LoadOptions,
        Outcome,
        Record,
        Row,
        Scoring,
        Verdict,
        mean_outcome,
        percent,
        ratio,
    )
    from .metrics import anls, edit_distance, exact_match
    from .prompts import Part, PromptProfile, images_first
    from .runner import run_benchmark
    from .scoring import Score, score_file
    from .sources import Table
    from .synthetic import BENCHMARKS

_HOMES = {
    "BENCHMARKS": "synthetic",
    "Benchmark": "benchmarks.base",
    "EvalSample": "benchmarks.base",
    "LoadOptions": "benchmarks.base",
    "Outcome": "benchmarks.base",
    "Part": "prompts",
    "PromptProfile": "prompts",
    "Record": "benchmarks.base",
    "Row": "benchmarks.base",
    "Score": "scoring",
    "Scoring": "benchmarks.base",
    "Table": "sources",
    "Verdict": "benchmarks.base",
    "anls": "metrics",
    "edit_distance": "metrics",
    "exact_match": "metrics",
    "find_benchmark": "benchmarks",
    "images_first": "prompts",
    "mean_outcome": "benchmarks.base",
    "percent": "benchmarks.base",
    "ratio": "benchmarks.base",
    "register_benchmark": "benchmarks",
    "run_benchmark": "runner",
    "score_file": "scoring",
}

__all__ = [
    "BENCHMARKS",
    "Benchmark",
    "EvalSample",
    "LoadOptions",
    "Outcome",
    "Part",
    "PromptProfile",
    "Record",
    "Row",
    "Score",
    "Scoring",
    "Table",
    "Verdict",
    "anls",
    "edit_distance",
    "exact_match",
    "find_benchmark",
    "images_first",
    "mean_outcome",
    "percent",
    "ratio",
    "register_benchmark",
    "run_benchmark",
    "score_file",
]


def __getattr__(name: str) -> Any:
    """Import a module when one of its names is first used: metrics need no torch, the runner does."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)
