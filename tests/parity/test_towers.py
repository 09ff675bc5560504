"""Encoders of timm and transformers give the same feature maps after loading here."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPVisionModel,
    ConvNextConfig,
    ConvNextForImageClassification,
    ConvNextModel,
    DINOv3ConvNextConfig,
    DINOv3ConvNextModel,
)

from convllava.convert import load_vision_tower
from convllava.convert.encoder_tensors import convnext_config
from convllava.convert.encoders import open_vision_tower
from convllava.model import ConvLlavaVisionModel, append_stages

DEPTHS, WIDTHS = (1, 2, 1, 2), (8, 12, 16, 24)


def timm_state(
    depths: Any = DEPTHS, widths: Any = WIDTHS, *, conv_mlp: bool = False, v2: bool = False
) -> dict[str, Tensor]:
    """Random tensors under the names that timm's ``ConvNeXt`` has (create_model('convnext_...').state_dict())."""
    generator = torch.Generator().manual_seed(3)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator) * 0.3

    def pair(name: str, *shape: int) -> dict[str, Tensor]:
        return {f"{name}.weight": random(*shape), f"{name}.bias": random(shape[0])}

    pointwise = (1, 1) if conv_mlp else ()
    state = {**pair("stem.0", WIDTHS[0], 3, 4, 4), **pair("stem.1", WIDTHS[0])}
    for stage, (depth, width) in enumerate(zip(DEPTHS, WIDTHS, strict=True)):
        prefix = f"stages.{stage}"
        if stage:
            state |= pair(f"{prefix}.downsample.0", WIDTHS[stage - 1])
            state |= pair(f"{prefix}.downsample.1", width, WIDTHS[stage - 1], 2, 2)
        for block in range(depth):
            at = f"{prefix}.blocks.{block}"
            state |= {
                f"{at}.gamma": random(width),
                **pair(f"{at}.conv_dw", width, 1, 7, 7),
                **pair(f"{at}.norm", width),
            }
            state |= pair(f"{at}.mlp.fc1", 4 * width, width, *pointwise)
            state |= pair(f"{at}.mlp.fc2", width, 4 * width, *pointwise)
            if v2:
                state |= pair(f"{at}.mlp.grn", 4 * width)
    return {**state, **pair("head.norm", WIDTHS[-1]), **pair("head.fc", 10, WIDTHS[-1])}


def timm_features(state: Mapping[str, Tensor], x: Tensor, epsilon: float) -> Tensor:
    """ConvNeXt in a few lines, channels first as in the paper (arXiv 2201.03545), on timm's names."""

    def norm(name: str, x: Tensor) -> Tensor:
        weight, bias = state[f"{name}.weight"], state[f"{name}.bias"]
        mean, variance = x.mean(1, keepdim=True), x.var(1, unbiased=False, keepdim=True)
        return (x - mean) / (variance + epsilon).sqrt() * weight[:, None, None] + bias[:, None, None]

    def product(name: str, x: Tensor) -> Tensor:
        weight = state[f"{name}.weight"]
        return F.conv2d(x, weight.reshape(*weight.shape[:2], 1, 1), state[f"{name}.bias"])

    x = norm("stem.1", F.conv2d(x, state["stem.0.weight"], state["stem.0.bias"], stride=4))
    stages = {int(name.split(".")[1]) for name in state if name.startswith("stages.")}
    for stage in sorted(stages):
        at = f"stages.{stage}"
        if stage:
            x = norm(f"{at}.downsample.0", x)
            x = F.conv2d(x, state[f"{at}.downsample.1.weight"], state[f"{at}.downsample.1.bias"], stride=2)
        block = 0
        while (name := f"{at}.blocks.{block}") + ".gamma" in state:
            y = F.conv2d(
                x, state[f"{name}.conv_dw.weight"], state[f"{name}.conv_dw.bias"], padding=3, groups=x.shape[1]
            )
            y = product(f"{name}.mlp.fc2", F.gelu(product(f"{name}.mlp.fc1", norm(f"{name}.norm", y))))
            x = x + state[f"{name}.gamma"][:, None, None] * y
            block += 1
    return x


def images(height: int = 64, width: int = 96) -> Tensor:
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(5))


def close(ours: Tensor, theirs: Tensor) -> bool:
    return bool((ours - theirs).abs().max() <= 1e-5 * theirs.abs().max())


@torch.no_grad()
def features(tower: Any, pixels: Tensor) -> Tensor:
    return tower(pixels).last_hidden_state


@pytest.mark.parametrize("place", ["", "trunk.", "visual.trunk."])
@pytest.mark.parametrize("conv_mlp", [False, True])
def test_timm_and_open_clip(tmp_path: Path, place: str, conv_mlp: bool) -> None:
    state = timm_state(conv_mlp=conv_mlp)
    stored = {place + name: tensor for name, tensor in state.items()}
    if place == "visual.trunk.":
        stored |= {"visual.head.proj.weight": torch.ones(4, 24), "token_embedding.weight": torch.ones(9, 4)}
        stored |= {"logit_scale": torch.ones(()), "transformer.resblocks.0.ln_1.weight": torch.ones(4)}
    save_file(stored, tmp_path / "tower.safetensors")
    tower = load_vision_tower(tmp_path / "tower.safetensors")
    assert (tower.config.depths, tower.config.hidden_sizes) == (list(DEPTHS), list(WIDTHS))
    assert close(features(tower, images()), timm_features(state, images(), 1e-6))


def test_training_checkpoints_of_open_clip(tmp_path: Path) -> None:
    state = timm_state()
    stored = {f"visual.trunk.{name}": tensor for name, tensor in state.items()}
    torch.save({"state_dict": stored}, tmp_path / "epoch.pt")
    assert close(features(load_vision_tower(tmp_path / "epoch.pt"), images()), timm_features(state, images(), 1e-6))


def epsilon(depths: list[int], widths: list[int]) -> float:
    """Return the epsilon of an encoder with these depths and widths."""
    shapes: dict[str, tuple[int, ...]] = {"embeddings.patch_embeddings.weight": (widths[0], 3, 4, 4)}
    for stage, (depth, width) in enumerate(zip(depths, widths, strict=True)):
        for layer in range(depth):
            shapes[f"encoder.stages.{stage}.layers.{layer}.dwconv.weight"] = (width, 1, 7, 7)
    return convnext_config(shapes, "encoder").layer_norm_eps


def test_the_epsilon_of_xxlarge_is_known_by_its_shape() -> None:
    assert epsilon([3, 4, 30, 3], [384, 768, 1536, 3072]) == 1e-5
    assert epsilon([3, 4, 30, 3, 6], [384, 768, 1536, 3072, 3072]) == 1e-5
    assert epsilon([3, 3, 27, 3], [192, 384, 768, 1536]) == 1e-6


def test_another_epsilon(tmp_path: Path) -> None:
    state = {name: tensor * (0.02 if "conv_dw" in name else 1.0) for name, tensor in timm_state().items()}
    torch.save(state, tmp_path / "tower.bin")
    tower = load_vision_tower(tmp_path / "tower.bin", layer_norm_eps=1e-2)
    assert close(features(tower, images()), timm_features(state, images(), 1e-2))
    assert not close(
        features(load_vision_tower(tmp_path / "tower.bin"), images()), timm_features(state, images(), 1e-2)
    )


def convnext(stages: int = 4) -> ConvNextConfig:
    depths, widths = [*DEPTHS, 2][:stages], [*WIDTHS, 32][:stages]
    return ConvNextConfig(num_stages=stages, depths=depths, hidden_sizes=widths, layer_scale_init_value=0.5)


@pytest.mark.parametrize("stages", [2, 4, 5])
def test_transformers(tmp_path: Path, stages: int) -> None:
    original = ConvNextModel(convnext(stages)).eval()
    original.save_pretrained(tmp_path)
    with torch.no_grad():
        expected = original.encoder(original.embeddings(images()), output_hidden_states=True).last_hidden_state
    assert close(features(load_vision_tower(tmp_path), images()), expected)


def test_transformers_classifier(tmp_path: Path) -> None:
    original = ConvNextForImageClassification(convnext()).eval()
    original.save_pretrained(tmp_path)
    inner = original.convnext
    with torch.no_grad():
        expected = inner.encoder(inner.embeddings(images())).last_hidden_state
    assert close(features(load_vision_tower(tmp_path), images()), expected)


def dinov3() -> DINOv3ConvNextModel:
    config = DINOv3ConvNextConfig(
        depths=list(DEPTHS), hidden_sizes=list(WIDTHS), layer_scale_init_value=0.5, layer_norm_eps=1e-5
    )
    torch.manual_seed(0)
    model = DINOv3ConvNextModel(config).eval()
    for name, weight in model.named_parameters():
        if name.endswith(("gamma", "norm.bias", "norm.weight")):  # as after training: no norm is an identity
            weight.data.uniform_(0.5, 1.5)
    return model


def meta_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return DINOv3's tensors under the names that Meta's own code has for DINOv3 and EUPE."""
    renamed = {}
    for name, tensor in state.items():
        name = name.removeprefix("model.").replace("depthwise_conv", "dwconv").replace("pointwise_conv", "pwconv")
        name = re.sub(r"stages\.(\d+)\.downsample_layers\.", r"downsample_layers.\1.", name)
        name = re.sub(r"stages\.(\d+)\.layers\.(\d+)\.", r"stages.\1.\2.", name).replace("layer_norm", "norm")
        renamed[name] = tensor
    return renamed


def timm_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors with Meta's names under timm's, as timm's own conversion does it."""
    renamed = {}
    for name, tensor in state.items():
        name = name.replace("downsample_layers.0.", "stem.").replace("dwconv", "conv_dw").replace("pwconv", "mlp.fc")
        name = re.sub(r"stages\.(\d+)\.(\d+)", r"stages.\1.blocks.\2", name)
        name = re.sub(r"downsample_layers\.(\d+)\.(\d+)", r"stages.\1.downsample.\2", name)
        renamed["head.norm." + name.removeprefix("norm.") if name.startswith("norm.") else name] = tensor
    return renamed


@pytest.mark.parametrize("naming", ["transformers", "transformers with a prefix", "Meta", "EUPE", "timm"])
@torch.no_grad()
def test_dinov3_and_eupe(tmp_path: Path, naming: str) -> None:
    """The last feature map, before the final norm, of transformers' DINOv3; EUPE has the same layers."""
    original = dinov3()
    state = {name: tensor.clone() for name, tensor in original.state_dict().items()}
    expected = original.model(images()).last_hidden_state
    normalized = original(images()).last_hidden_state[:, 1:]  # behind the final norm, without the pooled token
    if naming == "transformers":
        original.save_pretrained(tmp_path)
    else:
        stored = state if naming.startswith("transformers") else meta_state(state)
        if naming == "EUPE":
            stored |= {"norms.3.weight": torch.ones(24), "projectors.clip.0.weight": torch.ones(2, 2)}
        save_file(timm_names(stored) if naming == "timm" else stored, tmp_path / "model.safetensors")
    source = tmp_path if naming == "transformers" else tmp_path / "model.safetensors"
    stored_encoder = open_vision_tower(source)
    assert stored_encoder.has_final_norm
    tower = load_vision_tower(source, layer_norm_eps=None if naming == "transformers" else 1e-5)
    assert (tower.config.depths, tower.config.hidden_sizes) == (list(DEPTHS), list(WIDTHS))
    assert tower.config.layer_norm_eps == 1e-5
    assert close(features(tower, images()), expected)
    final = F.layer_norm(expected.flatten(2).mT, (24,), original.layer_norm.weight, original.layer_norm.bias, 1e-5)
    torch.testing.assert_close(final, normalized)  # the norm is all that lies between the two


def test_timm_variants_that_are_other_networks_are_refused(tmp_path: Path) -> None:
    state = timm_state()
    rms = {name: tensor for name, tensor in state.items() if not re.search(r"(norm|stem\.1|downsample\.0)\.bias", name)}
    with pytest.raises(ValueError, match=r"timm's variant _rms of ConvNeXt: its norms have no bias"):
        load_vision_tower(bad(tmp_path, rms))
    with pytest.raises(ValueError, match=r"timm's variant _ols of ConvNeXt: its stem is two overlapping convolutions"):
        load_vision_tower(
            bad(tmp_path, state | {"stem.1.weight": torch.ones(8, 4, 3, 3), "stem.2.weight": torch.ones(8)})
        )


def test_the_tower_of_a_whole_model(shared_dir: Path, tiny_checkpoint: Path) -> None:
    pytest.importorskip("sentencepiece")
    from convllava.inference import load_pretrained

    for folder in (tiny_checkpoint, shared_dir / "reference" / "official-split-tiny"):
        model, _ = load_pretrained(folder, device="cpu")
        assert torch.equal(features(load_vision_tower(folder), images()), features(model.model.vision_tower, images()))
    tower_folder = shared_dir / "reference" / "official-split-tiny" / "vision_tower"
    assert torch.equal(
        features(load_vision_tower(tower_folder), images()), features(model.model.vision_tower, images())
    )


@pytest.mark.parametrize("whole", [False, True])
def test_clip_vit(tmp_path: Path, whole: bool) -> None:
    vision = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    vision |= {"image_size": 28, "patch_size": 14}
    text = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    original = CLIPModel(CLIPConfig(vision_config=vision, text_config={**text, "vocab_size": 50})).eval()
    (original if whole else original.vision_model).save_pretrained(tmp_path)
    tower = load_vision_tower(tmp_path)
    assert isinstance(tower, CLIPVisionModel)
    pixels = images(28, 28)
    with torch.no_grad():
        assert torch.equal(tower(pixels).last_hidden_state, original.vision_model(pixels).last_hidden_state)


@pytest.mark.parametrize("source", ["timm", "transformers"])
@torch.no_grad()
def test_a_fifth_stage_behind_any_of_them(tmp_path: Path, source: str) -> None:
    if source == "timm":
        save_file(timm_state(), tmp_path / "model.safetensors")
    else:
        ConvNextModel(convnext()).save_pretrained(tmp_path)
    tower = load_vision_tower(tmp_path)
    grown: ConvLlavaVisionModel = append_stages(tower, [6], [48])
    assert (grown.config.depths, grown.config.hidden_sizes) == ([*DEPTHS, 6], [*WIDTHS, 48])
    scales = [layer.layer_scale_parameter for layer in grown.encoder.stages[4].layers]
    assert all(torch.equal(scale, torch.full((48,), 1e-6)) for scale in scales)
    maps = grown(images(), output_hidden_states=True).hidden_states
    assert torch.equal(maps[4], features(tower, images()))
    assert maps[5].shape == (2, 48, 1, 1)


def bad(tmp_path: Path, state: dict[str, Tensor]) -> Path:
    save_file(state, tmp_path / "tower.safetensors")
    return tmp_path / "tower.safetensors"


def test_unsupported_encoders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"is a ConvNeXt V2: its GRN layers \(stages\.0\.blocks\.0\.mlp\.grn"):
        load_vision_tower(bad(tmp_path, timm_state(v2=True)))
    with pytest.raises(ValueError, match="holds no ConvNeXt: neither timm"):
        load_vision_tower(bad(tmp_path, {"layer1.0.conv1.weight": torch.ones(2)}))
    state = timm_state()
    gamma = state.pop("stages.1.blocks.1.gamma")
    with pytest.raises(ValueError, match=r"1 missing: encoder\.stages\.1\.layers\.1\.layer_scale_parameter"):
        load_vision_tower(bad(tmp_path, state))
    with pytest.raises(ValueError, match=r"1 surplus: stages\.0\.blocks\.0\.mystery"):
        load_vision_tower(bad(tmp_path, timm_state() | {"stages.0.blocks.0.mystery": gamma}))
    with pytest.raises(ValueError, match=r"stages\.1\.blocks\.1\.gamma is \[3\], expected \[12\]"):
        load_vision_tower(bad(tmp_path, timm_state() | {"stages.1.blocks.1.gamma": torch.ones(3)}))
    with pytest.raises(ValueError, match=r"gamma holds NaN or infinity"):
        load_vision_tower(bad(tmp_path, timm_state() | {"stages.1.blocks.1.gamma": torch.full((12,), torch.nan)}))
    with pytest.raises(ValueError, match="is not a weight file"):
        (tmp_path / "tower.txt").write_text("")
        load_vision_tower(tmp_path / "tower.txt")
    with pytest.raises(ValueError, match="does not exist: give a weight file or a directory"):
        load_vision_tower(tmp_path / "nowhere")


def test_a_directory_of_transformers_with_another_activation(tmp_path: Path) -> None:
    ConvNextModel(convnext()).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "hidden_act": "relu"}))
    with pytest.raises(ValueError, match="hidden_act is 'relu'"):
        load_vision_tower(tmp_path)
