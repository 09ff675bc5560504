"""Benchmarks that are registered from outside the package."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from convllava.cli.main import main
from convllava.eval import find_benchmark
from convllava.eval.benchmarks import ALL, load_plugin

PLUGIN = """\
from convllava.eval import Benchmark, Verdict, exact_match, images_first, register_benchmark


class Capitals(Benchmark):
    name = "capitals"
    title = "Capitals"
    file = "capitals"

    def prompt(self, row, num_images, options):
        return images_first(row["question"], num_images)

    def verdict(self, prediction, scoring):
        return Verdict(float(exact_match(prediction.text, prediction.row["answer"])), prediction.text)


register_benchmark(Capitals())
"""


@pytest.fixture(autouse=True)
def restore_registry() -> Iterator[None]:
    """Remove the benchmarks that a test registers."""
    before = dict(ALL)
    yield
    ALL.clear()
    ALL.update(before)


def test_a_plugin_registers_a_benchmark(tmp_path: Path) -> None:
    (tmp_path / "capitals.py").write_text(PLUGIN)
    load_plugin(tmp_path / "capitals.py")
    assert find_benchmark("capitals").title == "Capitals"
    load_plugin(tmp_path / "capitals.py")  # loading it twice is harmless


def test_a_plugin_that_registers_nothing_is_an_error(tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "empty.py").write_text("")
    assert main(["eval", "--plugin", str(tmp_path / "empty.py"), "table", str(tmp_path)]) == 2
    assert "empty.py registers no benchmark" in capsys.readouterr().err
    assert main(["eval", "--plugin", str(tmp_path / "missing.py"), "table", str(tmp_path)]) == 2
    assert "missing.py is not a Python file" in capsys.readouterr().err


def test_a_name_cannot_be_registered_twice(tmp_path: Path) -> None:
    (tmp_path / "pope.py").write_text(PLUGIN.replace('"capitals"', '"pope"'))
    with pytest.raises(ValueError, match="benchmark 'pope' exists already as POPE"):
        load_plugin(tmp_path / "pope.py")
