"""Consoles that cannot show every character."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from convllava.cli import main as program


def test_what_a_console_cannot_show_is_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    console = io.TextIOWrapper(io.BytesIO(), encoding="cp1252", errors="strict")
    monkeypatch.setattr(sys, "stdout", console)
    program.prepare_environment()
    print("⟦learned⟧ ł \ud83d", flush=True)
    assert console.buffer.getvalue() == b"\\u27e6learned\\u27e7 \\u0142 \\ud83d\n"  # type: ignore[attr-defined]


@pytest.mark.parametrize("arguments", [("--preview", "1"), ("--json",)])
def test_a_check_is_reported_on_a_console_that_is_not_utf8(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    data = tmp_path / "zażółć.json"
    data.write_text('[{"id": "ł", "conversations": [{"from": "human", "value": "ł?"}, {"from": "gpt", "value": "→"}]}]')
    environment = {**os.environ, "PYTHONIOENCODING": "cp1252", "PYTHONUTF8": "0"}
    command = [sys.executable, "-m", "convllava.cli.main", "data", "check", str(data), "--jobs", "1", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr  # optional packages may log on import
    assert b"\\u0142" in done.stdout
