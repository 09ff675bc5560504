"""The report of ``inspect`` is true, and suspicious tensors are found."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from convert.conftest import CONSOLIDATED, SPLIT, stored_tensors
from transformers import DINOv3ConvNextConfig, DINOv3ConvNextModel

from convllava.cli.main import main
from convllava.convert import inspect_checkpoint

TOWER = "model.vision_tower."


@pytest.mark.parametrize("name", [SPLIT, CONSOLIDATED])
def test_the_report_on_both_official_layouts(references: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    folder = references / name
    assert main(["inspect", str(folder), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    case = json.loads((folder / "golden" / "case.json").read_text())
    vision, language = report["vision_encoder"], report["language_model"]
    assert report["layout"] == name.removesuffix("-tiny")
    assert (vision["type"], vision["stages"], vision["output_stride"]) == ("ConvNeXt", 5, 64)
    assert (vision["depths"], vision["hidden_sizes"]) == (case["depths"], case["hidden_sizes"])
    text = case["text"]
    assert language["num_hidden_layers"] == text["layers"]
    assert language["hidden_size"] == text["hidden_size"]
    assert language["intermediate_size"] == text["intermediate"]
    assert (language["num_attention_heads"], language["num_key_value_heads"]) == (text["heads"], text["kv_heads"])
    assert (report["prompt_format"], report["image_aspect_ratio"]) == ("vicuna_v1", "pad")
    assert (report["dtypes"], report["training_stage"]) == ({"float32": report["tensors"]}, "instruct")
    assert report["tokenizer"]["image_token_id"] == 1000
    assert not report["tokenizer"]["legacy"]
    files = {**stored_tensors(folder), **stored_tensors(folder / "vision_tower")}
    used = {key: tensor for key, tensor in files.items() if not key.removeprefix(TOWER * 2).startswith("layernorm.")}
    used = {key: tensor for key, tensor in used.items() if "vision_tower.layernorm." not in key}
    assert report["bytes"] == sum(tensor.nbytes for tensor in used.values())
    rows_of_image = 2 * text["hidden_size"]
    assert report["parameters"] == sum(tensor.numel() for tensor in used.values()) + rows_of_image
    assert report["visual_tokens"]["1536x1536"] == 576


def test_the_resolution_and_where_it_is_from(references: Path) -> None:
    split = inspect_checkpoint(references / SPLIT)
    assert (split["resolution"], split["resolution_from"]) == (256, "vision_tower/preprocessor_config.json")
    assert split["findings"] == []
    unknown = inspect_checkpoint(references / CONSOLIDATED)
    assert (unknown["resolution"], unknown["resolution_from"]) == (None, None)
    assert any("resolution is not set" in finding for finding in unknown["findings"])
    given = inspect_checkpoint(references / CONSOLIDATED, resolution=256)
    assert (given["resolution"], given["resolution_from"], given["findings"]) == (256, "the caller", [])
    published = inspect_checkpoint(references / CONSOLIDATED, hub_id="ConvLLaVA/ConvLLaVA-sft-1024")
    assert published["resolution"] == 1024


Change = Callable[[dict[str, torch.Tensor]], object]
NORM, HEAD = "model.norm.weight", "lm_head.weight"
SCALE = "model.vision_tower.vision_tower.encoder.stages.4.layers.0.layer_scale_parameter"

SUSPICIOUS: dict[str, tuple[Change, str]] = {
    "nan": (lambda s: s[NORM][:2].fill_(torch.nan), r"NaN or infinity in model\.language_model\.norm\.weight \(2 va"),
    "untrained": (lambda s: s[SCALE].fill_(1e-6), "1 of 5 layer scales are untrained"),
    "zeros": (lambda s: s["model.mm_projector.0.weight"].zero_(), "weights of zeros only: model.multi_modal_projector"),
    "constant": (lambda s: s[HEAD].fill_(0.5), "matrices with one value everywhere: lm_head"),
    "tied": (lambda s: s[HEAD].copy_(s["model.embed_tokens.weight"]), "the head equals the token embeddings"),
    "twice": (
        lambda s: s["model.layers.0.mlp.up_proj.weight"].copy_(s["model.layers.1.mlp.up_proj.weight"]),
        "the same values in model.language_model.layers.0.mlp.up_proj.weight, model.language_model.layers.1",
    ),
    "dtypes": (lambda s: s.update({NORM: s[NORM].half()}), "several dtypes: float16, float32"),
    "missing": (lambda s: s.pop(NORM), r"1 missing: model\.norm\.weight"),
}


@pytest.mark.parametrize("name", SUSPICIOUS)
def test_suspicious_values_are_found(consolidated: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    change, message = SUSPICIOUS[name]
    state = stored_tensors(consolidated)
    change(state)
    for path in consolidated.glob("pytorch_model*"):
        path.unlink()
    torch.save(state, consolidated / "pytorch_model.bin")
    report: dict[str, Any] = inspect_checkpoint(consolidated, resolution=256)
    (finding,) = report["findings"]
    assert re.search(message, finding)
    assert main(["inspect", str(consolidated), "--resolution", "256"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert " ".join(finding.split()[:3]) in shown


def test_nano_as_a_table(tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(tiny_checkpoint)]) == 0
    shown = capsys.readouterr().out
    assert "nothing suspicious found" in shown
    assert "native, at their own size" in shown


def test_an_adapter_and_an_unknown_model_are_named(
    split: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    assert main(["inspect", str(tmp_path)]) == 2
    assert "is an adapter, not a model" in capsys.readouterr().err
    (split / "config.json").write_text('{"model_type": "qwen2_vl"}')
    assert main(["inspect", str(split)]) == 2
    assert "holds a model of type 'qwen2_vl'" in capsys.readouterr().err


def dinov3(folder: Path) -> None:
    config = DINOv3ConvNextConfig(depths=[1, 1], hidden_sizes=[8, 16], layer_scale_init_value=0.5)
    DINOv3ConvNextModel(config).save_pretrained(folder)


@pytest.mark.parametrize(
    ("name", "content", "license_line"),
    [
        ("README.md", "---\nlicense: other\nlicense_name: dinov3-license\n---\n# card", "dinov3-license (README.md)"),
        ("README.md", "---\nlicense: [broken\n---", "not stated in the files"),
        (
            "LICENSE.md",
            "# FAIR Noncommercial Research License\n\ntext",
            "FAIR Noncommercial Research License (LICENSE.md)",
        ),
        ("notes.md", "nothing", "not stated in the files"),
    ],
)
def test_an_encoder_from_elsewhere(
    tmp_path: Path, name: str, content: str, license_line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Naming, final norm and license; a directory of transformers and a weight file."""
    dinov3(tmp_path)
    (tmp_path / name).write_text(content)
    for source in (tmp_path, tmp_path / "model.safetensors"):
        assert main(["inspect", str(source)]) == 0
        shown = " ".join(capsys.readouterr().out.split())
        assert "tensor names of transformers' DINOv3" in shown
        assert "in the files, not used: the features are those before it" in shown
        assert f"license {license_line}" in shown


def test_the_license_of_timm(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dinov3(tmp_path)
    config = {"architecture": "convnext_tiny", "pretrained_cfg": {"license": "dinov3-license", "mean": [0, 0, 0]}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert main(["inspect", str(tmp_path), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["license"], report["has_final_norm"]) == ("dinov3-license (config.json)", True)
