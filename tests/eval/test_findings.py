"""benchmarks/findings.py: the cost of its settings, and a short run on a tiny model."""

import importlib.util
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convllava.eval.runner import ModelId
from convllava.inference import Generator


@pytest.fixture(scope="module")
def findings(repository: Path) -> Any:
    specification = importlib.util.spec_from_file_location("findings", repository / "benchmarks" / "findings.py")
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[specification.name] = module
    specification.loader.exec_module(module)
    return module


def tokens(processor: Any, size: list[int], options: Any) -> int:
    height, width = processor.image_processor.resized_shape(*size, **options.given())
    return (height // 64) * (width // 64)


def test_settings_cost_what_the_comments_say(findings: Any, generator: Generator) -> None:
    def cost(question: Any) -> list[list[int]]:
        sizes = question.benchmark().options["sizes"]
        return [[tokens(generator.processor, size, own) for size in sizes] for own in question.settings]

    lines, pages = findings.FINDINGS["native"]
    assert cost(lines) == [[3], [4], [9]]
    assert cost(pages) == [[48, 48], [49, 49], [144, 144]]
    for question in findings.FINDINGS["budget"]:
        assert cost(question) == [[budget] for budget in findings.BUDGETS]
    for question in findings.FINDINGS["resolution"]:
        assert cost(question) == sorted(cost(question)), "each setting shows more than the one before"


def test_differences_are_paired(findings: Any) -> None:
    """The same samples are drawn for both: a constant gain has an interval of no width."""
    first = np.array([[0, 1], [1, 1], [0, 1], [0, 1]], dtype=float)
    second = first.copy()
    second[:, 0] = 1 - first[:, 0]
    assert findings.difference(first, first) == (0, 0, 0)
    value, low, high = findings.difference(first, second)
    assert value == pytest.approx(0.5)
    assert low < value <= high


def test_a_short_run_writes_figures_with_its_command(findings: Any, generator: Generator, tmp_path: Path) -> None:
    arguments = Namespace(out=tmp_path, samples=2, model="tiny")
    findings.FINDINGS["try"] = (findings.FINDINGS["native"][0],)
    text = findings.report("try", arguments, generator, ModelId.of(generator, "tiny"))
    assert "`python benchmarks/findings.py try --model tiny --samples 2`" in text
    assert "`pad-128` (4 tokens) against `native` (3): character error rate" in text
    assert (tmp_path / "try" / "finding.md").read_text() == text
    assert len((tmp_path / "try" / "sweep.csv").read_text().splitlines()) == 1 + 3
