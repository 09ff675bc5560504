"""Benchmarks, metrics and the runner."""

from .runner import Score, run_benchmark
from .synthetic import BENCHMARKS

__all__ = ["BENCHMARKS", "Score", "run_benchmark"]
