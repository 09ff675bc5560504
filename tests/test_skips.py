"""Skipped tests: fine on a user's machine, errors in continuous integration unless a marker allows them."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = """
import pytest

def test_passes():
    pass

@pytest.mark.skipif(True, reason="no browser")
def test_page():
    pass

@pytest.mark.gpu
def test_kernels():
    pytest.skip("no GPU")

@pytest.mark.network
@pytest.mark.parametrize("name", ["one"])
def test_hub(name):
    pytest.skip("offline")

@pytest.mark.xfail(reason="known", strict=False)
def test_expected_failure():
    assert False
"""

MODULE = """
import pytest

pytest.importorskip("no_such_package")

def test_package():
    pass
"""


@pytest.fixture
def folder(tmp_path: Path, repository: Path) -> Path:
    """A folder with the tests' own conftest and two files of tests, some of which are skipped."""
    shutil.copy(repository / "tests" / "conftest.py", tmp_path)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers =\n    gpu\n    network\n")
    (tmp_path / "test_single.py").write_text(TESTS)
    (tmp_path / "test_module.py").write_text(MODULE)
    return tmp_path


def run(folder: Path, *options: str, ci: bool) -> tuple[int, str]:
    environment = {name: value for name, value in os.environ.items() if name not in ("CI", "PYTEST_XDIST_WORKER")}
    environment |= {"CI": "true"} if ci else {}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)
    return done.returncode, done.stdout + done.stderr


def test_a_user_may_skip(folder: Path) -> None:
    code, output = run(folder, ci=False)
    assert code == 0, output
    assert "IN CI" not in output


@pytest.mark.parametrize("options", [[], ["-n", "2"]], ids=["one process", "two processes"])
def test_a_skip_in_ci_is_an_error_that_says_why(folder: Path, options: list[str]) -> None:
    code, output = run(folder, *options, ci=True)
    assert code == 1, output
    listed = [line for line in output.splitlines() if line.startswith("SKIPPED IN CI")]
    assert len(listed) == 2, output
    assert listed[0].startswith("SKIPPED IN CI test_module.py: could not import 'no_such_package'")
    assert listed[1] == "SKIPPED IN CI test_single.py::test_page: no browser"
    assert "2 skipped: install what they need in `make setup-ci`, or mark them gpu or network" in output


def test_ci_passes_with_the_skips_that_markers_allow(folder: Path) -> None:
    (folder / "test_module.py").unlink()
    code, output = run(folder, "--deselect", "test_single.py::test_page", ci=True)
    assert code == 0, output
    assert "2 skipped" in output and "IN CI" not in output
