"""The encoder on a GPU: which shapes are recorded (anywhere), and what it computes (on a GPU)."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from convllava.model import ConvLlavaVisionConfig, ConvLlavaVisionModel, gpu_tower


def _tower(**values: object) -> ConvLlavaVisionModel:
    config = ConvLlavaVisionConfig(depths=[1, 2], hidden_sizes=[16, 24], layer_scale_init_value=0.5, **values)
    return ConvLlavaVisionModel(config).eval()


def test_shapes_that_come_again_are_recorded_and_few_are_kept() -> None:
    events: list[str] = []

    def run(values: Tensor) -> Tensor:
        events.append(f"run {len(values)}")
        return values + 1

    def record(function: Callable[[Tensor], Tensor], values: Tensor) -> Callable[[Tensor], Tensor]:
        events.append(f"record {len(values)}")
        return lambda inputs: inputs + 1

    graphs = gpu_tower.Graphs(run, record)
    for length in (3, 5, 3, 3, 5):
        assert torch.equal(graphs(torch.zeros(length)), torch.ones(length))
    assert events == ["run 3", "run 5", "record 3", "record 5"]
    for length in range(10, 10 + gpu_tower.MOST_GRAPHS):  # they push the others out
        graphs(torch.zeros(length))
        graphs(torch.zeros(length))
    events.clear()
    graphs(torch.zeros(3))
    assert events == ["run 3"]


def test_another_dtype_is_refused() -> None:
    with pytest.raises(ValueError, match="keeps its dtype, float32: take precision 'auto' instead of 'int8'"):
        gpu_tower.GpuTower(_tower(), "int8")


def test_fused_kernels_need_a_gpu() -> None:
    tower = _tower()
    with pytest.raises(ValueError, match="for NVIDIA GPUs; the vision encoder is on cpu"):
        tower.use_fused_kernels()
    tower.use_fused_kernels(False)


@pytest.mark.gpu
def test_fused_kernels_give_the_same_gradients() -> None:
    tower = _tower().cuda().train()
    pixels = torch.randn(2, 3, 64, 96, device="cuda")
    found = []
    for fused in (False, True):
        tower.use_fused_kernels(fused)
        output = tower(pixels).last_hidden_state
        found.append((output, *torch.autograd.grad(output.square().sum(), list(tower.parameters()))))
    for plain, ours in zip(*found, strict=True):
        assert (ours - plain).abs().max() < 5e-3 * plain.abs().max() + 1e-6


@pytest.mark.gpu
@pytest.mark.parametrize("activation", ["gelu", "relu"])
@torch.no_grad()
def test_features_equal_the_plain_encoders(activation: str) -> None:
    tower = _tower(hidden_act=activation).cuda()
    images = torch.randn(4, 2, 3, 64, 96, device="cuda")
    exact = [tower(pixels).last_hidden_state for pixels in images]
    tower.optimize_for_inference()
    found = [tower(pixels).last_hidden_state for pixels in images]  # run, recorded, replayed twice
    for ours, plain in zip(found, exact, strict=True):
        assert (ours - plain).abs().max() < 2e-3 * plain.abs().max()
