"""A checkpoint is whole or the error says what is wrong with it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers.utils import logging

from convllava.inference import checkpoint_files, load_pretrained

Change = Callable[[Path], object]

WEIGHTS = "model.safetensors"
BIAS = "model.multi_modal_projector.linear_1.bias"


@pytest.fixture
def checkpoint(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint"))


def tensors(change: Callable[[dict[str, torch.Tensor]], object]) -> Change:
    def spoil(folder: Path) -> None:
        state = load_file(folder / WEIGHTS)
        change(state)
        save_file(state, folder / WEIGHTS, metadata={"format": "pt"})

    return spoil


def values(name: str, **new: Any) -> Change:
    def spoil(folder: Path) -> None:
        content = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps({**content, **new}))

    return spoil


def write(name: str, data: bytes) -> Change:
    return lambda folder: (folder / name).write_bytes(data)


def truncate(folder: Path) -> None:
    data = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(data[: len(data) // 2])


def remove(name: str) -> Change:
    return lambda folder: (folder / name).unlink()


def without_image_token(folder: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_text((folder / name).read_text().replace("<image>", "<other>"))


SPOILT = {
    "missing": (tensors(lambda s: s.pop(BIAS)), f"1 missing: {BIAS}"),
    "surplus": (tensors(lambda s: s.update(extra=torch.ones(2))), "1 surplus: extra"),
    "misshapen": (
        tensors(lambda s: s.update({BIAS: torch.ones(3)})),
        rf"{BIAS} is \[3\], expected \[64\]",
    ),
    "nan": (tensors(lambda s: s[BIAS][:2].fill_(torch.nan)), f"2 of 64 values of {BIAS} are not finite"),
    "infinite": (tensors(lambda s: s[BIAS].fill_(torch.inf)), f"64 of 64 values of {BIAS} are not finite"),
    "truncated": (truncate, "model.safetensors is not a complete safetensors file"),
    "text": (
        write(WEIGHTS, b"version https://git-lfs"),
        "model.safetensors is not a complete safetensors file",
    ),
    "no weights": (remove(WEIGHTS), "has no weights: model.safetensors or pytorch_model.bin is missing"),
    "lost shard": (
        write(f"{WEIGHTS}.index.json", b'{"weight_map": {"a": "1.safetensors"}}'),
        "1.safetensors is missing",
    ),
    "shard outside": (write(f"{WEIGHTS}.index.json", b'{"weight_map": {"a": "../x"}}'), "../x is missing"),
    "no config": (remove("config.json"), "is not a checkpoint: it has no config.json"),
    "config broken": (write("config.json", b"{"), "config.json is not valid JSON"),
    "config a list": (write("config.json", b"[]"), "config.json must hold a JSON object, got list"),
    "config wrong": (
        values("config.json", vision_config={"depths": [1]}),
        "config.json is not a valid model configuration: depths has 1",
    ),
    "other model": (values("config.json", model_type="llava"), "holds a model of type 'llava'"),
    "disagreement": (values("config.json", resolution=640), "resolution is 640 in config.json and None"),
    "no processor": (remove("processor_config.json"), "cannot load the processor"),
    "no tokenizer": (remove("tokenizer.json"), "has no tokenizer: tokenizer.json is missing"),
    "no image token": (without_image_token, r"image_token_id is \d+ in config\.json and \d+ in processor_config\.json"),
    "tokenizer broken": (write("tokenizer.json", b"{"), "cannot load the processor"),
}


@pytest.mark.parametrize("name", SPOILT)
def test_spoilt_checkpoints(name: str, checkpoint: Path, capfd: pytest.CaptureFixture[str]) -> None:
    spoil, message = SPOILT[name]
    spoil(checkpoint)
    with pytest.raises(ValueError, match=message) as excinfo:
        load_pretrained(checkpoint)
    assert str(checkpoint) in str(excinfo.value)
    assert "\n" not in str(excinfo.value)
    assert capfd.readouterr() == ("", "")


def test_output_stride_and_vocabulary_agree(checkpoint: Path) -> None:
    folder = json.loads((checkpoint / "processor_config.json").read_text())
    folder["image_processor"]["output_stride"] = 32
    (checkpoint / "processor_config.json").write_text(json.dumps(folder))
    with pytest.raises(ValueError, match=r"output_stride is 64 in config.json and 32 in processor_config.json"):
        load_pretrained(checkpoint)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nowhere", "unknown model 'nowhere': there is no such directory; give 'nano'"),
        ("./no/where", "unknown model './no/where'"),
        ("convllava-test/nowhere", "cannot be fetched from the hub"),
        (__file__, "is a file: a model is a directory"),
    ],
)
def test_unknown_models(source: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_pretrained(source)


def test_a_build_without_nano(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(checkpoint_files.BUNDLED, "nano", tmp_path)
    with pytest.raises(ValueError, match="carries no weights of 'nano'"):
        load_pretrained("nano")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "float31"}, "dtype 'float31' is not known"),
        ({"dtype": "int8"}, "dtype 'int8' is not known"),
        ({"dtype": torch.int8}, "dtype 'torch.int8' is not known"),
        ({"device": "toaster"}, "device 'toaster' is not on this machine"),
        ({"resolution": 63}, "resolution 63 is smaller than the output stride, 64 pixels"),
    ],
)
def test_wrong_options(tiny_checkpoint: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_pretrained(tiny_checkpoint, **options)


def test_dtype_is_float32_on_a_cpu_unless_told(checkpoint: Path) -> None:
    tensors(lambda s: s.update({name: t.bfloat16() for name, t in s.items()}))(checkpoint)
    values("config.json", dtype="bfloat16")(checkpoint)
    assert load_pretrained(checkpoint, device="cpu")[0].dtype == torch.float32
    assert load_pretrained(checkpoint, device="cpu", dtype="auto")[0].dtype == torch.bfloat16
    assert load_pretrained(checkpoint, device="cpu", dtype="float16")[0].dtype == torch.float16


def test_resolution_replaces_the_checkpoints_own(tiny_checkpoint: Path) -> None:
    model, processor = load_pretrained(tiny_checkpoint, resolution=192)
    assert model.config.resolution == processor.image_processor.resolution == 192
    assert not model.training


def test_transformers_talks_as_before(tiny_checkpoint: Path) -> None:
    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    load_pretrained(tiny_checkpoint)
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before


def test_a_model_can_be_saved_over_the_one_it_was_loaded_from(checkpoint: Path) -> None:
    model, _ = load_pretrained(checkpoint)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    (checkpoint / WEIGHTS).write_bytes(b"")
    model.save_pretrained(checkpoint)
    again = load_pretrained(checkpoint)[0].state_dict()
    assert all(torch.equal(before[name], again[name]) for name in before)
