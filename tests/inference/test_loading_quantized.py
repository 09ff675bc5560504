"""Fewer bits for the language model, none taken from the vision encoder unless asked; devices by map."""

import copy
import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from convllava.cli.main import main
from convllava.convert import convert, inspect_checkpoint
from convllava.inference import Generator, Request, load_pretrained

pytest.importorskip("accelerate")

PACKAGES = {"int8": "torchao", "nf4": "bitsandbytes"}
MOST_APART = {"int8": 0.05, "nf4": 0.5}
"""Of the largest logit: the tiny model's weights are random, which is the hardest case."""


def needs(method: str) -> Any:
    is_there = importlib.util.find_spec(PACKAGES[method]) is not None
    return pytest.param(method, marks=pytest.mark.skipif(not is_there, reason=f"{PACKAGES[method]} is not installed"))


METHODS = [needs("int8"), needs("nf4")]


def logits(model: Any) -> torch.Tensor:
    ids = torch.tensor([[1, 90, 91, 427, 427, 92, 93]])
    pixels = torch.randn(1, 3, 64, 128, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return model(input_ids=ids, pixel_values=pixels).logits.float()


def kinds(model: Any, prefix: str) -> set[str]:
    """Kinds of the matrices below a module: plain parameters or some quantized sort."""
    parameters = model.get_submodule(prefix).named_parameters()
    return {type(value).__name__ for name, value in parameters if name.endswith("weight") and "norm" not in name}


@pytest.mark.parametrize("method", METHODS)
def test_the_language_model_alone(tiny_checkpoint: Path, method: str) -> None:
    plain, processor = load_pretrained(tiny_checkpoint, device="cpu")
    model, _ = load_pretrained(tiny_checkpoint, device="cpu", quantize=method)
    assert kinds(model, "model.vision_tower") == kinds(model, "model.multi_modal_projector") == {"Parameter"}
    assert "Parameter" not in kinds(model, "model.language_model.layers")
    expected = logits(plain)
    gap = (logits(model) - expected).abs().max() / expected.abs().max()
    assert 0 < gap < MOST_APART[method]
    (answer,) = Generator(model, processor).generate([Request.of_question("What?", [], max_new_tokens=3)])
    assert answer.token_ids


@pytest.mark.parametrize("method", METHODS)
def test_the_vision_encoder_too_if_asked(tiny_checkpoint: Path, method: str) -> None:
    model, _ = load_pretrained(tiny_checkpoint, device="cpu", quantize=method, quantize_vision=True)
    linear = model.model.vision_tower.encoder.stages[4].layers[0].pwconv2.weight  # 128 inputs, 32 outputs
    assert type(linear).__name__ != "Parameter"
    assert bool(logits(model).isfinite().all())


@pytest.mark.parametrize("method", METHODS[1:])
def test_every_nf4_matrix_can_be_packed_on_every_processor(
    tiny_checkpoint: Path, tmp_path: Path, method: str, caplog: pytest.LogCaptureFixture
) -> None:
    """bitsandbytes packs 64 inputs x 32 outputs on processors with AVX512-BF16, and fails on other shapes."""
    from bitsandbytes.functional import _convert_weight_packed_for_cpu
    from bitsandbytes.nn import Linear4bit

    load_pretrained(tiny_checkpoint, device="cpu", quantize=method)
    assert not caplog.messages  # all matrices of the language model fit
    model, processor = load_pretrained(tiny_checkpoint, device="cpu", quantize=method, quantize_vision=True)
    (message,) = caplog.messages
    name = "model.vision_tower.encoder.stages.0.layers.0.pwconv1"
    assert message == (
        f"10 matrices stay in float32, for example {name} (8 inputs, 32 outputs): nf4 needs multiples of 64 inputs and "
        "32 outputs"
    )
    assert type(model.get_submodule(name)) is torch.nn.Linear
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    again, _ = load_pretrained(tmp_path, device="cpu")
    assert type(again.get_submodule(name)) is torch.nn.Linear
    packed = [module for module in again.modules() if isinstance(module, Linear4bit)]
    for module in packed:
        _convert_weight_packed_for_cpu(module.weight.data.clone(), copy.deepcopy(module.weight.quant_state))
    assert len(packed) == 16  # of the language model 14


@pytest.mark.parametrize("method", METHODS)
def test_an_adapter_on_quantized_weights(tiny_checkpoint: Path, tmp_path: Path, method: str) -> None:
    pytest.importorskip("peft")
    from convllava.inference.adapters import add_adapter, lora_config, save_adapter

    base, _ = load_pretrained(tiny_checkpoint, device="cpu", quantize=method)
    adapted = add_adapter(base, lora_config(rank=4)).eval()
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05)
    expected = logits(adapted)
    save_adapter(adapted, tmp_path)
    model, _ = load_pretrained(tiny_checkpoint, device="cpu", quantize=method, adapter=tmp_path)
    torch.testing.assert_close(logits(model), expected, rtol=0, atol=1e-5)


def saved(tiny_checkpoint: Path, folder: Path, method: str) -> Any:
    model, processor = load_pretrained(tiny_checkpoint, device="cpu", quantize=method)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return model


@pytest.mark.parametrize("method", METHODS)
def test_saved_and_loaded_again(tiny_checkpoint: Path, tmp_path: Path, method: str) -> None:
    model = saved(tiny_checkpoint, tmp_path / "small", method)
    assert (tmp_path / "small" / "model.safetensors").stat().st_size < (
        tiny_checkpoint / "model.safetensors"
    ).stat().st_size
    again, processor = load_pretrained(tmp_path / "small", device="cpu")
    assert torch.equal(logits(again), logits(model))
    assert "Parameter" not in kinds(again, "model.language_model.layers")
    assert kinds(again, "model.vision_tower") == kinds(again, "model.multi_modal_projector") == {"Parameter"}
    (answer,) = Generator(again, processor).generate([Request.of_question("What?", [], max_new_tokens=3)])
    assert answer.token_ids
    with pytest.raises(ValueError, match=r"is quantized already .*: leave quantize out"):
        load_pretrained(tmp_path / "small", quantize=method)
    with pytest.raises(ValueError, match=r"is quantized .* and cannot be converted: use the checkpoint"):
        convert(tmp_path / "small", tmp_path / "never")
    (finding,) = inspect_checkpoint(tmp_path / "small")["findings"]
    assert finding.startswith(f"quantized with {PACKAGES[method]}")
    assert main(["convert", str(tiny_checkpoint), str(tmp_path / "command"), "--quantize", method]) == 0
    assert torch.equal(logits(load_pretrained(tmp_path / "command", device="cpu")[0]), logits(model))


@pytest.mark.parametrize("method", METHODS)
def test_damaged_quantized_checkpoints(tiny_checkpoint: Path, tmp_path: Path, method: str) -> None:
    saved(tiny_checkpoint, tmp_path, method)
    path = tmp_path / "model.safetensors"
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    part = {"int8": "q_proj._weight_scale", "nf4": "q_proj.weight.absmax"}[method]
    scale = next(name for name in state if name.endswith(part))
    norm = "model.language_model.norm.weight"

    def refused(message: str, **changed: torch.Tensor) -> None:
        kept = {name: value for name, value in (state | changed).items() if value.numel()}
        save_file(kept, path, metadata=metadata)
        with pytest.raises(ValueError, match=message) as excinfo:
            load_pretrained(tmp_path, device="cpu")
        assert "\n" not in str(excinfo.value)

    refused(r"1 missing: model\.language_model\.layers\.0\.self_attn\.q_proj\.weight \(", **{scale: torch.empty(0)})
    refused(r"1 missing: model\.language_model\.norm\.weight", **{norm: torch.empty(0)})
    refused(r"1 surplus: mystery", mystery=torch.ones(2))
    refused(r"1 misshapen: model\.language_model\.norm\.weight is \[2\], expected \[64\]", **{norm: torch.ones(2)})
    refused(r"1 not finite: model\.language_model\.norm\.weight", **{norm: state[norm] * torch.nan})


def test_a_quantized_checkpoint_without_its_package(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(tiny_checkpoint, tmp_path, dirs_exist_ok=True)
    config = json.loads((tmp_path / "config.json").read_text())

    def with_settings(**settings: Any) -> None:
        (tmp_path / "config.json").write_text(json.dumps(config | {"quantization_config": settings}))

    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name in PACKAGES.values() else found(name)
    )
    with_settings(quant_method="bitsandbytes", load_in_4bit=True)
    with pytest.raises(ValueError, match=r"is quantized and needs bitsandbytes: pip install 'convllava\[quant\]'"):
        load_pretrained(tmp_path)
    with_settings(quant_method="gptq", bits=4)
    with pytest.raises(ValueError, match="was quantized with 'gptq' in a way that is not supported"):
        load_pretrained(tmp_path)


def test_wrong_methods_and_missing_packages(tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="quantize is one of int8, nf4, got 'int3'"):
        load_pretrained(tiny_checkpoint, quantize="int3")
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name in PACKAGES.values() else found(name)
    )
    with pytest.raises(ValueError, match=r"quantize='nf4' needs bitsandbytes: pip install 'convllava\[quant\]'"):
        load_pretrained(tiny_checkpoint, quantize="nf4")


@pytest.mark.parametrize("device_map", ["auto", {"": "cpu"}])
def test_device_map(tiny_checkpoint: Path, device_map: Any) -> None:
    expected, _ = load_pretrained(tiny_checkpoint, device="cpu")
    model, _ = load_pretrained(tiny_checkpoint, device_map=device_map, dtype="float32")
    torch.testing.assert_close(logits(model), logits(expected))
    with pytest.raises(ValueError, match="exclude each other"):
        load_pretrained(tiny_checkpoint, device="cpu", device_map="auto")
