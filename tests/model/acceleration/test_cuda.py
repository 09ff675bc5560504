"""The encoder on a GPU: which shapes are recorded (anywhere), and what it computes (on a GPU)."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from convllava.model import ConvLlavaVisionConfig, ConvLlavaVisionModel
from convllava.model.acceleration import cuda


def _tower(**values: object) -> ConvLlavaVisionModel:
    config = ConvLlavaVisionConfig(depths=[1, 2], hidden_sizes=[16, 24], layer_scale_init_value=0.5, **values)
    return ConvLlavaVisionModel(config).eval()


def test_recurring_shapes_are_recorded_and_few_are_kept() -> None:
    events: list[str] = []

    def run(values: Tensor) -> Tensor:
        events.append(f"run {len(values)}")
        return values + 1

    def record(function: Callable[[Tensor], Tensor], values: Tensor) -> Callable[[Tensor], Tensor]:
        events.append(f"record {len(values)}")
        return lambda inputs: inputs + 1

    graphs = cuda.GraphCache(run, record)
    for length in (3, 5, 3, 3, 5):
        assert torch.equal(graphs(torch.zeros(length)), torch.ones(length))
    assert events == ["run 3", "run 5", "record 3", "record 5"]
    for length in range(10, 10 + cuda.MAX_GRAPHS):  # which evicts the others
        graphs(torch.zeros(length))
        graphs(torch.zeros(length))
    events.clear()
    graphs(torch.zeros(3))
    assert events == ["run 3"]


@pytest.mark.parametrize("name", ["cuda", "triton"])
def test_a_gpu_is_needed(name: str) -> None:
    tower = _tower()
    with pytest.raises(ValueError, match=f"backend '{name}' needs an NVIDIA GPU and the vision encoder is on cpu"):
        tower.set_backend(name)
    assert tower.backend is None


@pytest.mark.parametrize("name", ["cpu-int8", "auto"])
def test_a_backend_is_for_its_own_device(name: str) -> None:
    with pytest.raises(ValueError, match=r"needs a CPU and the vision encoder is on meta|no backend is faster on meta"):
        _tower().to("meta").set_backend(name)


@pytest.mark.gpu
def test_fused_kernels_give_the_same_gradients() -> None:
    tower = _tower().cuda().train()
    pixels = torch.randn(2, 3, 64, 96, device="cuda")
    found = []
    for backend in ("eager", "triton"):
        tower.set_backend(backend)
        output = tower(pixels).last_hidden_state
        found.append((output, *torch.autograd.grad(output.square().sum(), list(tower.parameters()))))
    for eager, ours in zip(*found, strict=True):
        assert (ours - eager).abs().max() < 5e-3 * eager.abs().max() + 1e-6
    assert tower.backend is not None and tower.training


@pytest.mark.gpu
@pytest.mark.parametrize("activation", ["gelu", "relu"])
@torch.no_grad()
def test_features_equal_the_eager_encoders(activation: str) -> None:
    tower = _tower(hidden_act=activation).cuda()
    images = torch.randn(4, 2, 3, 64, 96, device="cuda")
    exact = [tower(pixels).last_hidden_state for pixels in images]
    tower.set_backend("cuda")
    found = [tower(pixels).last_hidden_state for pixels in images]  # computed, recorded, replayed twice
    for ours, eager in zip(found, exact, strict=True):
        assert (ours - eager).abs().max() < 2e-3 * eager.abs().max()
