"""The encoder against transformers' ConvNextModel with the same weights: values and gradients."""

from typing import Any

import pytest
import torch
from transformers import ConvNextConfig, ConvNextModel

from convllava.model import ConvLlavaVisionConfig, ConvLlavaVisionModel

TOWERS = {
    "four stages": ([2, 1, 3, 2], [16, 24, 40, 64]),
    "five stages": ([1, 1, 2, 1, 2], [16, 24, 32, 48, 64]),
}
SHAPES = [(97, 511), (64, 64), (130, 70)]


def _pair(depths: list[int], hidden_sizes: list[int]) -> tuple[ConvLlavaVisionModel, Any]:
    """Return our encoder and theirs with the same weights, none near its initial value."""
    ours = ConvLlavaVisionModel(ConvLlavaVisionConfig(depths=depths, hidden_sizes=hidden_sizes)).eval()
    for parameter in ours.parameters():
        torch.nn.init.normal_(parameter, mean=0.1, std=0.3)
    config = ConvNextConfig(num_stages=len(depths), depths=depths, hidden_sizes=hidden_sizes)
    theirs = ConvNextModel(config).eval()
    missing, unexpected = theirs.load_state_dict(ours.state_dict(), strict=False)
    assert sorted(missing) == ["layernorm.bias", "layernorm.weight"]
    assert not unexpected
    return ours, theirs


@pytest.mark.parametrize("tower", TOWERS)
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: f"{shape[0]}x{shape[1]}")
def test_values_and_gradients_equal(tower: str, shape: tuple[int, int]) -> None:
    ours, theirs = _pair(*TOWERS[tower])
    pixels = torch.randn(2, 3, *shape)
    our_map, their_map = ours(pixels).last_hidden_state, theirs(pixels).last_hidden_state
    scale = their_map.abs().max()
    assert our_map.shape == their_map.shape
    assert (our_map - their_map).abs().max() < 1e-4 * scale

    weights = torch.randn_like(our_map)
    (our_map * weights).sum().backward()
    (their_map * weights).sum().backward()
    their_gradients = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    for name, parameter in ours.named_parameters():
        expected = their_gradients[name]
        assert parameter.grad is not None, name
        assert (parameter.grad - expected).abs().max() <= 1e-4 * expected.abs().max() + 1e-6, name


@pytest.mark.parametrize("tower", TOWERS)
@torch.no_grad()
def test_every_stage_map_equals(tower: str) -> None:
    ours, theirs = _pair(*TOWERS[tower])
    pixels = torch.randn(1, 3, 128, 192)
    our_maps = ours(pixels, output_hidden_states=True).hidden_states
    their_maps = theirs(pixels, output_hidden_states=True).hidden_states
    for our_map, their_map in zip(our_maps[1:], their_maps[-len(our_maps) + 1 :], strict=True):
        assert torch.allclose(our_map, their_map, atol=1e-4 * float(their_map.abs().max()))
