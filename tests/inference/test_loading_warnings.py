"""Loading tells what a user would otherwise find out late: missing memory, missing training, settings left undone."""

import json
import shutil
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from convllava.cli.main import main
from convllava.convert import inspect_checkpoint
from convllava.inference import Generator, load_pretrained, loading, memory, stage_warning

GIB = 1 << 30


@pytest.fixture
def checkpoint(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    """A copy of the tiny checkpoint."""
    return Path(shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint"))


def test_weights_beyond_the_memory_are_refused_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available_memory", lambda: 40 << 20)  # nano has 12.2 M parameters
    with pytest.raises(ValueError, match=r"in float32, and only .* are available: pass dtype='bfloat16'"):
        load_pretrained("nano", device="cpu")
    load_pretrained("nano", device="cpu", dtype="bfloat16")
    monkeypatch.setattr(memory, "available_memory", lambda: 1 << 20)
    with pytest.raises(ValueError, match=r"in bfloat16, .* pass quantize='int8'"):
        load_pretrained("nano", device="cpu", dtype="bfloat16")


def test_weights_that_stay_mapped_need_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available_memory", lambda: 1 << 20)
    monkeypatch.setattr(loading, "MAPPED_ABOVE", 0)
    load_pretrained("nano", device="cpu", dtype="bfloat16")


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"),
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory"),
    ],
)
def test_an_allocators_error_is_one_line(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr(loading, "_build", fail)
    with pytest.raises(ValueError, match="the memory does not suffice for nano: pass dtype='bfloat16'"):
        load_pretrained("nano", device="cpu")


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_available_memory_is_known() -> None:
    available = memory.available_memory()
    assert available is not None and 64 << 20 < available < 1 << 50


@pytest.mark.parametrize("stage", ["projector_init", "pretrain"])
def test_a_checkpoint_without_instruction_tuning_is_told(
    checkpoint: Path, stage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    image_file = checkpoint / "image.png"
    Image.new("RGB", (64, 64)).save(image_file)
    (checkpoint / "recipe.yaml").write_text(f"training_stage: {stage}\n")
    model, _ = load_pretrained(checkpoint)
    assert f"training stage '{stage}' and has not seen instruction tuning" in stage_warning(model)
    assert main(["ask", str(image_file), "What?", "--model", str(checkpoint), "--max-new-tokens", "2"]) == 0
    assert f"warning: this checkpoint results from training stage '{stage}'" in capsys.readouterr().err


def test_other_checkpoints_get_no_warning(checkpoint: Path) -> None:
    assert stage_warning(load_pretrained(checkpoint)[0]) == ""
    (checkpoint / "recipe.yaml").write_text("training_stage: instruct\n")
    assert stage_warning(load_pretrained(checkpoint)[0]) == ""


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("encoder_repetition_penalty", 1.5),
        ("num_beams", 3),
        ("encoder_no_repeat_ngram_size", 2),
        ("forced_eos_token_id", 2),
    ],
)
def test_generation_settings_that_are_not_followed_are_refused(checkpoint: Path, name: str, value: Any) -> None:
    path = checkpoint / "generation_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), name: value}))
    model, processor = load_pretrained(checkpoint)
    with pytest.raises(ValueError, match=f"generation_config.json sets {name} to .* not supported"):
        Generator(model, processor)
    assert any(f"sets {name} to" in finding for finding in inspect_checkpoint(checkpoint)["findings"])


@pytest.mark.parametrize(
    "values", [{"num_beams": 1}, {"no_repeat_ngram_size": 0, "min_length": 0}, {"repetition_penalty": 1.2}]
)
def test_generation_settings_that_change_nothing_or_are_followed_pass(checkpoint: Path, values: dict[str, Any]) -> None:
    path = checkpoint / "generation_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))
    Generator(*load_pretrained(checkpoint))


@pytest.mark.parametrize(
    "values",
    [{"bad_words_ids": [[10**6]]}, {"bad_words_ids": 3}, {"sequence_bias": "x"}],
)
def test_generation_settings_of_a_wrong_value_are_refused(checkpoint: Path, values: dict[str, Any]) -> None:
    path = checkpoint / "generation_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))
    model, processor = load_pretrained(checkpoint)
    with pytest.raises(ValueError, match=r"generation_config\.json has a value that cannot be used"):
        Generator(model, processor)


def test_loading_an_official_checkpoint_prints_no_warning(shared_dir: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_pretrained(shared_dir / "reference" / "official-split-tiny")
