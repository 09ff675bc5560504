"""The script of the 7B-size run works, at a reduced size."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest


def step(repository: Path, *arguments: str | Path) -> str:
    command = [sys.executable, str(repository / "benchmarks" / "full_size.py"), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
def test_made_loaded_asked_quantized_and_converted(repository: Path, tmp_path: Path) -> None:
    folder, plain = tmp_path / "model", tmp_path / "plain.json"
    assert "parameters" in step(repository, "make", folder, "--reduced")
    assert len(list(folder.glob("model-*.safetensors"))) > 1
    step(repository, "run", folder, "--tokens", "4", "--json", plain)
    figures: dict[str, Any] = json.loads(plain.read_text())
    assert figures["visual_tokens"] == 16
    assert 0 < figures["first_token_seconds"] < figures["seconds"]
    assert figures["peak_resident_gib"] is None or 0.1 < figures["peak_resident_gib"] < 4
    assert "bytes" in step(repository, "convert", folder, tmp_path / "again")
    if importlib.util.find_spec("bitsandbytes"):
        shown = step(repository, "run", folder, "--quantize", "nf4", "--reference", f"{plain}.logits", "--tokens", "4")
        assert "relative_error_of_logits" in shown
