"""Benchmarks by name; each file has everything about one benchmark: prompt, parsing and score."""

import importlib.util
from pathlib import Path

from ...support import did_you_mean
from ..benchmark import Benchmark
from .chartqa import ChartQA
from .docvqa import DocVQA
from .infovqa import InfoVQA
from .mmbench import MMBench
from .mme import MME
from .mmmu import MMMU
from .mmvet import MMVet
from .ocrbench import OCRBench
from .omnidocbench import OmniDocBench
from .pope import POPE
from .realworldqa import RealWorldQA
from .refcoco import all_splits
from .seedbench import SeedBench
from .synthetic import SYNTHETIC
from .textvqa import TextVQA

__all__ = ["ALL", "find_benchmark", "load_plugin", "register_benchmark"]

ALL: dict[str, Benchmark] = {
    benchmark.name: benchmark
    for benchmark in (
        MME(),
        MMBench(),
        SeedBench(),
        RealWorldQA(),
        MMMU(),
        MMVet(),
        TextVQA(),
        DocVQA(),
        POPE(),
        *all_splits(),
        ChartQA(),
        InfoVQA(),
        OCRBench(),
        OmniDocBench(),
        *SYNTHETIC.values(),
    )
}
"""All benchmarks: those of the paper's tables in their order, other documents, and the synthetic ones."""


def register_benchmark(benchmark: Benchmark) -> None:
    """Add a benchmark that is defined outside this package, so that every command finds it by its name.

    Raises:
        ValueError: The benchmark has no name, or another class has registered the same name.
    """
    if not benchmark.name:
        raise ValueError(f"{type(benchmark).__name__}.name is not set: a benchmark is found by its name")
    known = ALL.get(benchmark.name)
    if known is not None and type(known).__qualname__ != type(benchmark).__qualname__:
        raise ValueError(f"benchmark {benchmark.name!r} exists already as {type(known).__name__}: choose another name")
    ALL[benchmark.name] = benchmark


def load_plugin(path: Path) -> None:
    """Run a Python file that calls :func:`register_benchmark`.

    Raises:
        ValueError: The file does not exist, is not Python, or registers no benchmark.
    """
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise ValueError(f"{path} is not a Python file: give a .py file that calls convllava.eval.register_benchmark")
    before = dict(ALL)
    spec.loader.exec_module(importlib.util.module_from_spec(spec))
    if before == ALL:
        raise ValueError(f"{path} registers no benchmark: call convllava.eval.register_benchmark in it")


def find_benchmark(name: str) -> Benchmark:
    """Return a benchmark by its name, or by the name of its VLMEvalKit file; case does not matter.

    Raises:
        ValueError: The name is unknown.
    """
    by_name = {known.lower(): benchmark for known, benchmark in ALL.items()}
    by_file = {benchmark.file.lower(): benchmark for benchmark in ALL.values() if benchmark.file}
    found = by_name.get(name.lower()) or by_file.get(name.lower())
    if found is None:
        raise ValueError(f"no benchmark {name!r}{did_you_mean(name, ALL) or '.'} Known: {', '.join(ALL)}")
    return found
