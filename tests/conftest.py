"""Settings that torch reads when it is loaded, the rule for skips in CI, and fixtures that all tests may use."""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
if "PYTEST_XDIST_WORKER" in os.environ:  # the workers share the cores, and so do the processes they start
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import random
import sys
from pathlib import Path

import numpy as np
import pytest

REPOSITORY = Path(__file__).resolve().parents[1]

MAY_SKIP_IN_CI = {"gpu", "network"}
"""Markers of the tests that a machine for continuous integration need not be able to run."""


def pytest_configure(config: pytest.Config) -> None:
    """Count skips as errors where the environment variable CI is "true"; the workers of xdist report to one process."""
    if os.environ.get("CI") == "true" and not hasattr(config, "workerinput"):
        config.pluginmanager.register(NoSkips(), "no_skips")


class NoSkips:
    """Plugin that fails the session when a test without a marker of ``MAY_SKIP_IN_CI`` was skipped, and lists them.

    A test that needs an optional package is skipped on a user's machine, with the reason; continuous integration
    installs all of them (``make setup-ci``), and a skip there would mean that the test runs nowhere.
    """

    def __init__(self) -> None:
        self.skipped: dict[str, str] = {}  # reason by test or module; xdist reports a module once a worker

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Note a module that was skipped as a whole."""
        if report.skipped:
            self.skipped[report.nodeid] = _reason(report)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note a skipped test; an expected failure is none."""
        if report.skipped and not hasattr(report, "wasxfail") and MAY_SKIP_IN_CI.isdisjoint(report.keywords):
            self.skipped[report.nodeid] = _reason(report)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Turn the exit status of a session that passed otherwise into that of failed tests."""
        if self.skipped and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """List the skips that are errors."""
        if not self.skipped:
            return
        terminalreporter.section("skipped, which is an error with CI=true", red=True)
        for name, reason in sorted(self.skipped.items()):
            terminalreporter.line(f"SKIPPED IN CI {name}: {reason}")
        markers = " or ".join(sorted(MAY_SKIP_IN_CI))
        terminalreporter.line(
            f"{len(self.skipped)} skipped: install what they need in `make setup-ci`, or mark them {markers}"
        )


def _reason(report: pytest.CollectReport | pytest.TestReport) -> str:
    """Return why something was skipped."""
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return reason.removeprefix("Skipped: ")


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder of reference fixtures beside the checkout; where it is absent, the test is skipped."""
    folder = REPOSITORY.parent / "shared"
    if not folder.is_dir():
        pytest.skip("the reference fixtures (a folder `shared` beside the checkout) are not here")
    return folder


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved five-stage model with random weights and the nano tokenizer; copy it before changing a file."""
    from tiny import tiny_model

    folder = tmp_path_factory.mktemp("tiny") / "checkpoint"
    for part in tiny_model(tie_word_embeddings=True):
        part.save_pretrained(folder)
    return folder


@pytest.fixture(autouse=True)
def fixed_seeds() -> None:
    """Start every test from the same random state, whatever ran before it."""
    random.seed(0)
    np.random.seed(0)
    if torch := sys.modules.get("torch"):  # not loaded for the sake of a test that does without it
        torch.manual_seed(0)
