"""The vision encoder alone: shapes, batches of shapes, appended stages, backbone, checkpointing, dtypes."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoBackbone, AutoModel

from convllava.model import (
    ConvLlavaVisionBackbone,
    ConvLlavaVisionConfig,
    ConvLlavaVisionModel,
    append_stages,
)


def _tower(stages: int = 5, **values: object) -> ConvLlavaVisionModel:
    widths = [8, 12, 16, 24, 32][:stages]
    config = ConvLlavaVisionConfig(depths=[1] * stages, hidden_sizes=widths, layer_scale_init_value=0.5, **values)
    return ConvLlavaVisionModel(config).eval()


@settings(max_examples=20, deadline=None)
@given(height=st.integers(64, 200), width=st.integers(64, 200))
@torch.no_grad()
def test_any_shape_gives_one_position_per_stride(height: int, width: int) -> None:
    features = _tower()(torch.randn(1, 3, height, width)).last_hidden_state
    assert features.shape == (1, 32, height // 64, width // 64)


@torch.no_grad()
def test_padding_in_a_batch_changes_nothing() -> None:
    tower = _tower()
    shapes = [(64, 150), (130, 64), (64, 150), (97, 211)]
    images = [torch.randn(1, 3, *shape) for shape in shapes]
    batch = torch.full((4, 3, 130, 211), 7.0)  # the padding must not matter
    for padded, image in zip(batch, images, strict=True):
        padded[:, : image.shape[2], : image.shape[3]] = image[0]
    packed = tower(batch, image_sizes=torch.tensor(shapes)).last_hidden_state
    alone = [tower(image).last_hidden_state.flatten(2).transpose(1, 2)[0] for image in images]
    assert torch.allclose(packed, torch.cat(alone), atol=1e-5)


def test_less_than_a_visual_token_is_rejected() -> None:
    with pytest.raises(ValueError, match="63x200 pixels is smaller than one visual token of 64x64"):
        _tower()(torch.randn(1, 3, 63, 200))


@pytest.mark.parametrize("kernel_size", [3, 13])
def test_kernel_size_keeps_the_shape(kernel_size: int) -> None:
    assert _tower(kernel_size=kernel_size)(torch.randn(1, 3, 128, 64)).last_hidden_state.shape == (1, 32, 2, 1)


@torch.no_grad()
def test_appended_stages_do_not_change_the_trained_ones() -> None:
    tower = _tower(4)
    grown = append_stages(tower, [2], [48])
    assert append_stages(tower.config, [2], [48]).to_dict() == grown.config.to_dict()
    assert (grown.config.depths, grown.config.output_stride) == ([1, 1, 1, 1, 2], 64)
    pixels = torch.randn(1, 3, 128, 128)
    fourth = grown(pixels, output_hidden_states=True).hidden_states[4]
    assert torch.equal(fourth, tower(pixels).last_hidden_state)
    scales = [layer.layer_scale_parameter for layer in grown.encoder.stages[4].layers]
    assert all(bool((scale == 0.5).all()) for scale in scales)


def test_initial_layer_scale_is_tiny_by_default() -> None:
    config = append_stages(ConvLlavaVisionConfig(depths=[1], hidden_sizes=[8]), [1], [8])
    scale = ConvLlavaVisionModel(config).encoder.stages[1].layers[0].layer_scale_parameter
    assert torch.allclose(scale, torch.tensor(1e-6))


def test_append_stages_checks_its_lists() -> None:
    with pytest.raises(ValueError, match="2 depths but 1 widths"):
        append_stages(ConvLlavaVisionConfig(), [1, 1], [8])


def test_checkpointing_gives_the_same_gradients() -> None:
    pixels = torch.randn(1, 3, 64, 128)
    gradients = []
    for checkpointing in (False, True):
        torch.manual_seed(1)
        tower = _tower().train()
        if checkpointing:
            tower.gradient_checkpointing_enable()
        tower(pixels).last_hidden_state.square().sum().backward()
        gradients.append([parameter.grad for parameter in tower.parameters()])
    for plain, checkpointed in zip(*gradients, strict=True):
        assert plain is not None and checkpointed is not None
        assert torch.allclose(plain, checkpointed, atol=1e-6)


@torch.no_grad()
def test_bfloat16_stays_bfloat16_and_close() -> None:
    tower = _tower()
    pixels = torch.randn(1, 3, 128, 128)
    exact = tower(pixels).last_hidden_state
    rounded = tower.to(torch.bfloat16)(pixels).last_hidden_state
    assert rounded.dtype == torch.bfloat16
    assert (rounded.float() - exact).abs().max() < 0.05 * exact.abs().max()


@torch.no_grad()
def test_backbone_returns_the_chosen_maps(tmp_path: Path) -> None:
    tower = _tower()
    tower.save_pretrained(tmp_path)
    config = ConvLlavaVisionConfig.from_pretrained(tmp_path, out_features=["stage3", "stage5"])
    assert isinstance(AutoBackbone.from_config(config), ConvLlavaVisionBackbone)
    backbone = ConvLlavaVisionBackbone.from_pretrained(tmp_path, config=config).eval()
    pixels = torch.randn(1, 3, 128, 192)
    maps = backbone(pixels).feature_maps
    assert [tuple(feature_map.shape) for feature_map in maps] == [(1, 16, 8, 12), (1, 32, 2, 3)]
    assert backbone.channels == [16, 32]
    again = AutoModel.from_pretrained(tmp_path).eval()
    assert torch.equal(maps[1], again(pixels).last_hidden_state)
