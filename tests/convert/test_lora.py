"""LoRA in LLaVA's format: merged as PEFT merges it; a missing or damaged file is named."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from convert.conftest import SPLIT
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

from convllava.cli.main import main
from convllava.convert import convert, open_checkpoint
from convllava.inference import load_pretrained

peft = pytest.importorskip("peft")

ADAPTER, FULLY_TRAINED = "adapter_model.safetensors", "non_lora_trainables.bin"
LANGUAGE_KEYS = (
    "vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads num_key_value_heads rms_norm_eps "
    "max_position_embeddings rope_theta"
).split()


@pytest.fixture(scope="module")
def trained(references: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, torch.Tensor]]:
    """A LoRA written as LLaVA's training writes it (PEFT around the language model), and PEFT's merged weights."""
    source = references / SPLIT
    stored = torch.load(source / "pytorch_model.bin", weights_only=True)
    config = json.loads((source / "config.json").read_text())
    language = LlamaForCausalLM(LlamaConfig(**{name: config[name] for name in LANGUAGE_KEYS if name in config}))
    language.load_state_dict({name: value for name, value in stored.items() if "mm_projector" not in name})
    lora = peft.LoraConfig(r=4, lora_alpha=6, target_modules=["q_proj", "down_proj"], task_type="CAUSAL_LM")
    adapted = peft.get_peft_model(language, lora)
    torch.manual_seed(3)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_" in name:
                parameter.normal_(std=0.3)
    folder = tmp_path_factory.mktemp("lora")
    adapted.save_pretrained(folder)
    shutil.copyfile(source / "config.json", folder / "config.json")
    projector = {name: value + 0.1 for name, value in stored.items() if "mm_projector" in name}
    torch.save({f"base_model.model.{name}": value for name, value in projector.items()}, folder / FULLY_TRAINED)
    return folder, dict(adapted.merge_and_unload().state_dict()) | projector


@pytest.fixture
def lora(trained: tuple[Path, Any], tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(trained[0], tmp_path / "lora"))


def ours(name: str) -> str:
    for theirs, here in (("0", "linear_1"), ("2", "linear_2")):
        name = name.replace(f"model.mm_projector.{theirs}.", f"model.multi_modal_projector.{here}.")
    known = ("lm_head.", "model.multi_modal_projector.")
    return name if name.startswith(known) else f"model.language_model.{name.removeprefix('model.')}"


def check(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    for name, tensor in expected.items():
        torch.testing.assert_close(found[ours(name)][: len(tensor)], tensor, rtol=1e-6, atol=1e-6)


def test_loaded_and_converted_as_peft_merges_it(
    references: Path, trained: tuple[Path, dict[str, torch.Tensor]], tmp_path: Path
) -> None:
    folder, expected = trained
    base, _ = load_pretrained(references / SPLIT, device="cpu")
    model, processor = load_pretrained(references / SPLIT, device="cpu", adapter=folder)
    state = model.state_dict()
    check(state, expected)
    name = "model.language_model.layers.0.self_attn.q_proj.weight"
    assert (state[name] - base.state_dict()[name]).abs().max() > 0.1
    assert processor.prompt_format == "vicuna_v1"
    assert main(["convert", str(references / SPLIT), str(tmp_path / "merged"), "--adapter", str(folder)]) == 0
    merged, _ = load_pretrained(tmp_path / "merged", device="cpu")
    assert all(torch.equal(value, state[name]) for name, value in merged.state_dict().items())
    written = convert(references / SPLIT, tmp_path / "theirs", to="official", llava_lora=folder)
    assert written.layout == "official-split"


def test_a_fully_trained_encoder_replaces_that_of_the_base(references: Path, lora: Path, tmp_path: Path) -> None:
    tower = torch.load(references / SPLIT / "vision_tower" / "pytorch_model.bin", weights_only=True)
    state = torch.load(lora / FULLY_TRAINED, weights_only=True)
    prefix = "base_model.model.model.vision_tower.vision_tower."
    torch.save(state | {prefix + name: value * 1.5 for name, value in tower.items()}, lora / FULLY_TRAINED)
    model, _ = load_pretrained(references / SPLIT, device="cpu", adapter=lora)
    for name, value in model.model.vision_tower.state_dict().items():
        assert torch.equal(value, tower[name] * 1.5)
    torch.save(state | {prefix + "embeddings.layernorm.bias": tower["embeddings.layernorm.bias"]}, lora / FULLY_TRAINED)
    with pytest.raises(ValueError, match=r"non_lora_trainables\.bin lacks \d+ tensors of the base"):
        load_pretrained(references / SPLIT, device="cpu", adapter=lora)


def remove(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def settings(file: str, **values: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        stored = json.loads((folder / file).read_text())
        (folder / file).write_text(json.dumps(stored | values))

    return change


def tensors(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        state = load_file(folder / ADAPTER)
        change(state)
        save_file(state, folder / ADAPTER, metadata={"format": "pt"})

    return spoil


Q_PROJ = "base_model.model.model.layers.0.self_attn.q_proj.lora_{}.weight"

FAULTS = {
    r"non_lora_trainables\.bin with its projector is missing": remove(FULLY_TRAINED),
    r"adapter_model\.safetensors or adapter_model\.bin is missing": remove(ADAPTER),
    r"adapter_config\.json is missing": remove("adapter_config.json"),
    r"config\.json is missing": remove("config.json"),
    r"lora_alpha is missing": settings("adapter_config.json", lora_alpha=None),
    r"use_dora is True, and only False can be merged": settings("adapter_config.json", use_dora=True),
    r"belongs to another base: hidden_size is 4096 there": settings("config.json", hidden_size=4096),
    r"the encoder's width \(mm_hidden_size\) is 1024 there": settings("config.json", mm_hidden_size=1024),
    r"has only one of lora_A and lora_B": tensors(lambda s: s.pop(Q_PROJ.format("A"))),
    r"belongs to another base: model\.layers\.0\.self_attn\.q_proj has": tensors(
        lambda s: s.update({Q_PROJ.format("B"): torch.ones(7, 4)})
    ),
    r"holds NaN or infinity": tensors(lambda s: s[Q_PROJ.format("A")].fill_(torch.nan)),
    r"changes model\.layers\.9\.q_proj, which is not there": tensors(
        lambda s: s.update(
            {f"base_model.model.model.layers.9.q_proj.lora_{half}.weight": torch.ones(4, 4) for half in "AB"}
        )
    ),
}


@pytest.mark.parametrize("message", FAULTS)
def test_faults(references: Path, lora: Path, message: str) -> None:
    FAULTS[message](lora)
    with pytest.raises(ValueError, match=message) as excinfo:
        load_pretrained(references / SPLIT, device="cpu", adapter=lora)
    assert "\n" not in str(excinfo.value)


def test_an_adapter_is_not_a_model_and_needs_a_vision_encoder(references: Path, lora: Path, tmp_path: Path) -> None:
    settings("adapter_config.json", base_model_name_or_path="lmsys/vicuna-7b-v1.5")(lora)
    with pytest.raises(ValueError, match=r"is an adapter, not a model: load its base \(lmsys/vicuna-7b-v1\.5\)"):
        open_checkpoint(lora)
    (tmp_path / "vicuna").mkdir()
    (tmp_path / "vicuna" / "config.json").write_text(json.dumps({"model_type": "llama"}))
    with pytest.raises(ValueError, match=r"is a llama without a vision encoder.*convllava join BASE --vision-tower"):
        load_pretrained(tmp_path / "vicuna", adapter=lora)


def test_adapters_of_peft_are_merged_by_the_same_command(tiny_checkpoint: Path, tmp_path: Path) -> None:
    from convllava.inference.adapters import add_adapter, lora_config, save_adapter

    model, _ = load_pretrained(tiny_checkpoint, device="cpu")
    adapted = add_adapter(model, lora_config(rank=2))
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05)
    save_adapter(adapted, tmp_path / "adapter")
    arguments = [str(tiny_checkpoint), str(tmp_path / "merged"), "--adapter", str(tmp_path / "adapter")]
    assert main(["convert", *arguments]) == 0
    expected, _ = load_pretrained(tiny_checkpoint, device="cpu", adapter=tmp_path / "adapter")
    merged, _ = load_pretrained(tmp_path / "merged", device="cpu")
    assert all(torch.equal(value, merged.state_dict()[name]) for name, value in expected.state_dict().items())
