"""The program as a whole: quick help, one line for an error, exit codes."""

import os
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path

import pytest
import typer

import convllava
from convllava.cli import main as program

IMAGE = Path("photo.png")


def in_a_new_process(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[..., None]], None]:
    """Put a function in the place of `convllava ask`."""

    def install(function: Callable[..., None]) -> None:
        module = types.ModuleType("convllava.cli.ask")
        module.ask = function
        monkeypatch.setitem(sys.modules, "convllava.cli.ask", module)

    return install


def failing_with(error: BaseException) -> Callable[[], None]:
    def ask() -> None:
        raise error

    return ask


def test_help_loads_nothing_heavy() -> None:
    heavy = {"torch", "transformers", "tokenizers", "huggingface_hub", "numpy", "PIL", "pydantic", "yaml", "jinja2"}
    code = (
        "import sys; from convllava.cli.main import main; code = main(['--help']);"
        f"heavy = {heavy} & set(sys.modules);"
        "sys.exit(f'loaded {heavy}' if heavy else code)"
    )
    result = in_a_new_process(code)
    assert (result.returncode, result.stderr) == (0, "")
    assert all(name in result.stdout for name in program.COMMANDS)


def test_importing_the_package_loads_nothing_heavy() -> None:
    result = in_a_new_process("import convllava, sys; sys.exit('torch' in sys.modules)")
    assert result.returncode == 0


@pytest.mark.parametrize("name", program.COMMANDS)
def test_every_command_shows_its_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert program.main([name, "--help"]) == 0
    assert f"convllava {name}" in capsys.readouterr().out


def test_a_commands_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; from convllava.cli.main import COMMANDS, main; [main([n, '--help']) for n in COMMANDS];"
        "sys.exit('torch' in sys.modules)"
    )
    assert in_a_new_process(code).returncode == 0


def test_an_app_is_a_group_even_of_one(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    module = types.ModuleType("convllava.cli.data")
    module.app = typer.Typer()
    module.app.command("synth")(lambda: print("made"))
    monkeypatch.setitem(sys.modules, "convllava.cli.data", module)
    assert program.main(["data", "synth"]) == 0
    assert capsys.readouterr().out == "made\n"
    assert program.main(["data"]) == 2
    assert capsys.readouterr().err == "error: Missing command. (see 'convllava data --help')\n"


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert program.main(["--version"]) == 0
    assert capsys.readouterr().out == f"convllava {convllava.__version__}\n"


def test_no_arguments_show_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert program.main([]) == 0
    assert "Commands" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("2 images,\n  1 placeholder"), "error: 2 images, 1 placeholder"),
        (FileNotFoundError(2, "No such file", IMAGE), "error: photo.png: No such file"),
        (OSError("no model `x`"), "error: no model `x`"),
        (ImportError("needs peft: pip install 'convllava[train]'"), None),
        (ValueError(), "error: ValueError"),
    ],
)
def test_an_error_is_one_line(
    error: Exception,
    line: str | None,
    command: Callable[[Callable[..., None]], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    command(failing_with(error))
    assert program.main(["ask"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == (line or f"error: {error}") + "\n"


@pytest.mark.parametrize("error", [AssertionError("never"), KeyError("from"), RecursionError("deep"), TypeError("no")])
def test_a_defect_of_ours_is_one_line_and_keeps_its_traceback(
    error: Exception,
    command: Callable[[Callable[..., None]], None],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    command(failing_with(error))
    assert program.main(["ask"]) == program.INTERNAL_ERROR
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: internal error: {type(error).__name__}: ") and "CONVLLAVA_DEBUG=1" in line
    monkeypatch.setenv("CONVLLAVA_DEBUG", "1")
    assert program.main(["ask"]) == program.INTERNAL_ERROR
    assert "Traceback" in capsys.readouterr().err


def test_debugging_shows_the_traceback(
    command: Callable[[Callable[..., None]], None],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CONVLLAVA_DEBUG", "1")
    command(failing_with(ValueError("wrong")))
    assert program.main(["ask"]) == 2
    error = capsys.readouterr().err
    assert "Traceback" in error and error.endswith("error: wrong\n")


def test_interrupt(command: Callable[[Callable[..., None]], None]) -> None:
    command(failing_with(KeyboardInterrupt()))
    assert program.main(["ask"]) == 130


@pytest.mark.parametrize("arguments", [["aks"], ["--surplus"], ["ask", "--surplus"], ["ask", "surplus"]])
def test_usage_errors_are_one_line(
    arguments: list[str],
    command: Callable[[Callable[..., None]], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    command(lambda: None)
    assert program.main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and "--help" in error


def test_environment_stands_before_a_command_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    monkeypatch.setenv("TRANSFORMERS_VERBOSITY", "info")
    program.prepare_environment()
    assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"
    assert os.environ["TRANSFORMERS_VERBOSITY"] == "info"  # what the user set stays
