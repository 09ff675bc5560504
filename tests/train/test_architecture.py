"""Encoders that a recipe describes: other kernels, depths, widths, a ViT, kernels that grow; trained and reloaded."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from tiny import tiny_model

from convllava.cli.main import main
from convllava.inference import load_pretrained
from convllava.model import ConvLlavaVisionConfig, ConvLlavaVisionModel, append_stages, enlarge_kernels, preset
from convllava.train import load_recipe
from convllava.train.architecture import Architecture
from convllava.train.architecture_config import architecture_config, check_agreement
from convllava.train.model_setup import resolve_model

CONVNEXT = {"depths": [1, 1, 2, 1, 1], "hidden_sizes": [8, 8, 16, 16, 32], "kernel_size": [9, 9, 5, 7, 7]}
VIT = {"hidden_size": 32, "num_layers": 3, "num_heads": 2, "patch_size": 16, "image_size": 64}


def write(folder: Path, **values: Any) -> Path:
    """Write a recipe of two steps on drawn lines."""
    recipe = {
        "training_stage": "foundation",
        "data": [{"name": "synthetic/line", "options": {"sizes": [[64, 64]]}}],
        "learning_rate": 1e-3,
        "max_steps": 2,
        "global_batch_size": 2,
        "output_dir": str(folder / "out"),
        **values,
    }
    path = folder / f"{Path(recipe['output_dir']).name}.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return path


def test_a_convnext_of_a_recipe_is_planned_trained_and_reloaded(tmp_path: Path, capsys: Any) -> None:
    path = write(tmp_path, model={"preset": "nano", "encoder": CONVNEXT})
    assert main(["train", str(path), "--dry-run"]) == 0
    assert "vision_tower stage 5" in capsys.readouterr().out
    assert main(["train", str(path)]) == 0
    model, processor = load_pretrained(tmp_path / "out", device="cpu")
    config = model.config.vision_config
    assert {name: getattr(config, name) for name in CONVNEXT} == CONVNEXT
    assert processor.image_processor.output_stride == 64
    weights = [stage.layers[0].dwconv.weight.shape[-1] for stage in model.model.vision_tower.encoder.stages]
    assert weights == CONVNEXT["kernel_size"]
    # a later recipe may state the architecture, and has to state the same
    architecture = Architecture(preset="nano", encoder=CONVNEXT)
    check_agreement(model.config, architecture, "out")
    with pytest.raises(ValueError, match=r"kernel_size of its vision encoder is \[9, 9, 5, 7, 7\], but .* has 7"):
        check_agreement(model.config, Architecture(preset="nano", encoder={**CONVNEXT, "kernel_size": 7}), "out")


@pytest.mark.parametrize("stage", ["encoder", pytest.param("foundation", marks=pytest.mark.slow)])
def test_a_vit_of_a_recipe_is_planned_trained_and_reloaded(tmp_path: Path, capsys: Any, stage: str) -> None:
    """The control: the same protocol, squares of one size, trained from a layer on."""
    path = write(tmp_path, training_stage=stage, model={"preset": "nano", "vit": VIT})
    assert main(["train", str(path), "--dry-run"]) == 0
    assert "16.0 visual" in capsys.readouterr().out
    start = resolve_model(load_recipe(path)).load().state_dict()
    assert main(["train", str(path)]) == 0
    model, processor = load_pretrained(tmp_path / "out", device="cpu")
    assert (model.config.resolution, model.config.image_aspect_ratio, model.config.output_stride) == (64, "pad", 16)
    options = processor.image_processor
    assert (options.resolution, options.image_aspect_ratio, options.output_stride) == (64, "pad", 16)
    later = write(
        tmp_path,
        training_stage="pretrain",
        train_last_layers=2,
        init_from=str(tmp_path / "out"),
        output_dir=str(tmp_path / "later"),
    )
    assert main(["train", str(later)]) == 0
    trained, _ = load_pretrained(tmp_path / "later", device="cpu")
    for name, before in model.state_dict().items():
        if name.startswith("model.vision_tower.encoder.layers."):
            layer = int(name.split(".")[4])
            moved = not torch.equal(before, trained.state_dict()[name])
            assert moved == (layer == 1) or "k_proj.bias" in name, name  # the last layer has no effect
            assert torch.equal(start[name], before) == (layer == 2) or "k_proj.bias" in name, name


def test_kernels_of_a_checkpoint_grow(tmp_path: Path) -> None:
    """The features are the same before the first step, and the zeros around the kernels are trained."""
    model, processor = tiny_model()
    model.save_pretrained(tmp_path / "start")
    processor.save_pretrained(tmp_path / "start")
    path = write(
        tmp_path,
        training_stage="pretrain",
        train_from_stage=1,
        init_from=str(tmp_path / "start"),
        enlarge_kernels=[13, 13, 13, 7, 7],
    )
    grown = resolve_model(load_recipe(path)).load().eval()
    pixels = torch.randn(1, 3, 128, 192, generator=torch.Generator().manual_seed(0))
    features = [one.model.vision_tower(pixels).last_hidden_state for one in (model, grown)]
    torch.testing.assert_close(features[0], features[1], rtol=0, atol=1e-5 * float(features[0].detach().abs().max()))
    assert main(["train", str(path)]) == 0
    trained, _ = load_pretrained(tmp_path / "out", device="cpu")
    assert trained.config.vision_config.kernel_size == [13, 13, 13, 7, 7]
    ring = trained.model.vision_tower.encoder.stages[0].layers[0].dwconv.weight[..., 0, :]
    assert bool(ring.any())


def test_the_next_recipe_knows_the_grown_kernels(tmp_path: Path) -> None:
    first = write(
        tmp_path,
        training_stage="pretrain",
        train_from_stage=1,
        model="convllava-7b-768",
        init_from="somewhere",
        enlarge_kernels=13,
    )
    values = {"extends": first.name, "after": first.name, "enlarge_kernels": None, "output_dir": "next"}
    (tmp_path / "next.yaml").write_text(yaml.safe_dump(values))
    recipe = load_recipe(tmp_path / "next.yaml")
    assert recipe.model is not None and architecture_config(recipe.model).vision_config.kernel_size == 13
    assert resolve_model(recipe, fetch=False).config.vision_config.kernel_size == 13


@pytest.mark.parametrize(
    ("architecture", "message"),
    [
        ({"encoder": {"kernel_size": 4}}, "model.encoder.kernel_size: kernel_size must be odd and at least 1, got 4"),
        ({"encoder": {"kernel_size": [7, 7]}}, "kernel_size has 2 entries .* but the encoder has 4 stages"),
        ({"encoder": {"depths": [1, 1], "hidden_sizes": [8]}}, "has 2 stages in depths .* and 1 in hidden_sizes"),
        ({"preset": "clip-vit-l-336-7b", "encoder": {"kernel_size": 7}}, "model.encoder needs a ConvNeXt encoder"),
    ],
)
def test_impossible_encoders_are_named(architecture: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        architecture_config(Architecture.model_validate({"preset": "nano", **architecture}))


def test_kernels_of_appended_stages() -> None:
    """One entry for each stage of the preset, which the appended ones continue, or one for each of all."""
    appended = {"depths": [1], "hidden_sizes": [512]}
    for given, found in (([9, 9, 9, 5], [9, 9, 9, 5, 5]), ([9, 9, 9, 5, 7], [9, 9, 9, 5, 7]), (9, 9)):
        architecture = {"preset": "nano", "encoder": {"kernel_size": given}, "append_stages": appended}
        assert architecture_config(Architecture.model_validate(architecture)).vision_config.kernel_size == found


def test_images_that_a_vit_cannot_have_are_named(tmp_path: Path, capsys: Any) -> None:
    path = write(tmp_path, model={"preset": "nano", "vit": VIT}, image={"resolution": 128})
    assert main(["train", str(path), "--dry-run"]) == 2
    assert "this ViT encodes squares of 64 pixels only, got aspect_ratio pad, resolution 128" in capsys.readouterr().err


def test_kernels_of_a_trained_encoder_only_grow() -> None:
    tower = ConvLlavaVisionModel(ConvLlavaVisionConfig(depths=[1, 1], hidden_sizes=[8, 8], kernel_size=[9, 5]))
    with pytest.raises(
        ValueError, match=r"kernels of \[9, 5\] cannot become 7: kernels of a trained encoder only grow"
    ):
        enlarge_kernels(tower, 7)
    assert append_stages(tower.config, [1], [8]).kernel_sizes == [9, 5, 5]
    assert preset("nano").vision_config.kernel_size == 7
