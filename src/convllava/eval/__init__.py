"""Benchmarks, metrics and the runner.

Everything that a benchmark of your own needs can be imported from here, see :func:`register_benchmark`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .benchmark import Benchmark, EvalSample, LoadOptions
    from .benchmarks import find_benchmark, register_benchmark
    from .metrics import anls, edit_distance, exact_match, extract_yes_no, grounding_hit
    from .multiple_choice import ChoiceBenchmark, extract_choice
    from .outcome import Outcome, Prediction, Row, Scoring, Verdict, failed_verdict, mean_outcome, percent, ratio
    from .prompts import PromptPart, PromptProfile, images_first
    from .runner import run_benchmark
    from .scoring import Score, score_file
    from .suite import EvalSettings, run_suite
    from .table import Table

__all__ = [
    "Benchmark",
    "ChoiceBenchmark",
    "EvalSample",
    "EvalSettings",
    "LoadOptions",
    "Outcome",
    "Prediction",
    "PromptPart",
    "PromptProfile",
    "Row",
    "Score",
    "Scoring",
    "Table",
    "Verdict",
    "anls",
    "edit_distance",
    "exact_match",
    "extract_choice",
    "extract_yes_no",
    "failed_verdict",
    "find_benchmark",
    "grounding_hit",
    "images_first",
    "mean_outcome",
    "percent",
    "ratio",
    "register_benchmark",
    "run_benchmark",
    "run_suite",
    "score_file",
]

_MODULES = {
    "benchmark": "Benchmark EvalSample LoadOptions",
    "benchmarks": "find_benchmark register_benchmark",
    "metrics": "anls edit_distance exact_match extract_yes_no grounding_hit",
    "multiple_choice": "ChoiceBenchmark extract_choice",
    "outcome": "Outcome Prediction Row Scoring Verdict failed_verdict mean_outcome percent ratio",
    "prompts": "PromptPart PromptProfile images_first",
    "runner": "run_benchmark",
    "scoring": "Score score_file",
    "suite": "EvalSettings run_suite",
    "table": "Table",
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    """Import a module when one of its names is first used: metrics need no torch, the runner does."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_MODULE_OF[name]}", __name__), name)
