"""Recipes that start from a separate vision encoder and language model."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from convllava.cli.main import main
from convllava.convert import load_vision_tower
from convllava.inference import load_pretrained
from convllava.model import (
    ConvLlavaConfig,
    ConvLlavaVisionConfig,
    ConvLlavaVisionModel,
    build_nano_processor,
    presets,
)

TOWER = {"depths": [1, 1, 1, 1], "hidden_sizes": [8, 8, 16, 16]}
LANGUAGE = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 2}

FIRST = """
training_stage: projector_init
model: tiny
init_from_parts: {vision_tower: tower, language_model: language}
append_stages: {depths: [1], hidden_sizes: [32]}
image: {aspect_ratio: pad, resolution: 128}
prompt_format: plain
data: [{name: synthetic/line, count: 8}]
learning_rate: 1e-3
epochs: 1
global_batch_size: 4
output_dir: first
"""
SECOND = "{extends: first.yaml, after: first.yaml, training_stage: instruct, append_stages: null, output_dir: second}"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    config = ConvLlavaConfig(vision_config=TOWER, text_config=LANGUAGE, resolution=128)
    monkeypatch.setitem(presets.PRESETS, "tiny", lambda: config)
    torch.manual_seed(0)
    ConvLlavaVisionModel(ConvLlavaVisionConfig(**TOWER)).save_pretrained("tower")
    tokenizer = build_nano_processor().tokenizer
    ids = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    AutoModelForCausalLM.from_config(LlamaConfig(vocab_size=len(tokenizer), **LANGUAGE, **ids)).save_pretrained(
        "language"
    )
    tokenizer.save_pretrained("language")
    Path("first.yaml").write_text(FIRST)
    Path("second.yaml").write_text(SECOND)
    return tmp_path


def test_parts_are_joined_and_trained_and_the_next_recipe_follows(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Frozen parts stay bit-identical; the second recipe starts from the model of the first."""
    assert main(["train", "second.yaml", "--dry-run"]) == 0  # before its starting checkpoint exists
    outlined = capsys.readouterr().out
    assert "the starting checkpoint is missing" in outlined
    assert "vision_tower stage 5" in outlined
    assert main(["train", "first.yaml", "--dry-run"]) == 0
    assert "8 samples in 2 steps" in capsys.readouterr().out
    assert main(["train", "first.yaml"]) == 0
    trained, _ = load_pretrained(here / "first", device="cpu")
    tower = load_vision_tower(here / "tower").state_dict()
    for name, value in tower.items():
        assert torch.equal(trained.model.vision_tower.state_dict()[name], value), name
    language = AutoModelForCausalLM.from_pretrained(here / "language").state_dict()
    assert torch.equal(trained.lm_head.weight[: len(language["lm_head.weight"])], language["lm_head.weight"])
    capsys.readouterr()
    assert main(["train", "second.yaml", "--dry-run"]) == 0
    assert "the starting checkpoint is missing" not in capsys.readouterr().out


def test_parts_must_be_what_the_recipe_says(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "first.yaml", "model=nano"]) == 2
    assert "init_from_parts: depths of its vision encoder is [1, 1, 1, 1]" in capsys.readouterr().err
    (here / "tower" / "model.safetensors").unlink()
    assert main(["train", "first.yaml"]) == 2
    assert "tower" in capsys.readouterr().err
    assert not (here / "first").exists()
