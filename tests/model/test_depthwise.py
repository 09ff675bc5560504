"""The backward pass on small maps against PyTorch's own."""

from copy import deepcopy

import pytest
import torch
from torch import nn

from convllava.model import depthwise


@pytest.mark.parametrize("shape", [(1, 1), (1, 6), (2, 3), (5, 1), (8, 9), (12, 8)])
@pytest.mark.parametrize("kernel_size", [1, 3, 7, 13])
def test_gradients_equal_the_librarys(
    shape: tuple[int, int], kernel_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    convolution = nn.Conv2d(8, 8, kernel_size, padding=kernel_size // 2, groups=8)
    pixels = torch.randn(3, 8, *shape).to(memory_format=torch.channels_last)
    weights = torch.randn_like(pixels)
    results = []
    for small_map in (depthwise.MAX_SMALL_POSITIONS, 0):
        monkeypatch.setattr(depthwise, "MAX_SMALL_POSITIONS", small_map)
        features = pixels.clone().requires_grad_()
        output = depthwise.depthwise_convolve(convolution, features)
        parameters = (features, convolution.weight, convolution.bias)
        results.append((output, *torch.autograd.grad((output * weights).sum(), parameters)))
    for ours, theirs in zip(*results, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-4)


def test_frozen_weights_get_no_gradient() -> None:
    convolution = nn.Conv2d(4, 4, 3, padding=1, groups=4).requires_grad_(False)
    features = torch.randn(1, 4, 3, 3, requires_grad=True)
    depthwise.depthwise_convolve(convolution, features).sum().backward()
    assert features.grad is not None
    assert convolution.weight.grad is None


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("autocast", [True, False])
def test_half_precision_goes_through_float32(native: bool, autocast: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(depthwise, "is_native", lambda dtype: native)
    exact = nn.Conv2d(8, 8, 7, padding=3, groups=8).double()
    convolution = deepcopy(exact).to(torch.float32 if autocast else torch.bfloat16)
    pixels = torch.randn(2, 8, 12, 11).to(memory_format=torch.channels_last)
    weights = torch.randn_like(pixels)
    results = []
    for layer in (exact, convolution):
        features = pixels.to(layer.weight.dtype).requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast and layer is convolution):
            output = depthwise.depthwise_convolve(layer, features)
        gradients = torch.autograd.grad((output * weights).sum(), (features, layer.weight, layer.bias))
        results.append((output, *gradients))
    assert results[1][0].dtype == torch.bfloat16
    assert results[1][2].dtype == convolution.weight.dtype
    for theirs, ours in zip(*results, strict=True):
        assert (ours.double() - theirs).abs().max() < 0.02 * theirs.abs().max()


def test_half_precision_without_gradients_is_float32_rounded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(depthwise, "is_native", lambda dtype: False)
    convolution = nn.Conv2d(8, 8, 7, padding=3, groups=8).to(torch.bfloat16)
    features = torch.randn(1, 8, 20, 20).to(torch.bfloat16)
    with torch.no_grad():
        found = depthwise.depthwise_convolve(convolution, features)
        assert torch.equal(found, deepcopy(convolution).float()(features.float()).to(torch.bfloat16))


@pytest.mark.parametrize("autocast", [True, False])
@pytest.mark.parametrize("kernel_size", [13, 15])
def test_large_kernels_run_in_float32_when_they_are_compiled(kernel_size: int, autocast: bool) -> None:
    graphs: list[str] = []

    def backend(module: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> torch.fx.GraphModule:
        graphs.append(module.code)
        return module

    dtype = torch.float32 if autocast else torch.bfloat16
    convolution = nn.Conv2d(4, 4, kernel_size, padding=kernel_size // 2, groups=4).to(dtype)
    pixels = torch.randn(1, 4, 9, 9, dtype=dtype)
    compiled = torch.compile(depthwise.depthwise_convolve, backend=backend, fullgraph=True)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        output = compiled(convolution, pixels)
    assert output.dtype == torch.bfloat16
    assert (".float()" in graphs[0]) == (kernel_size > depthwise.MAX_HALF_KERNEL), graphs


@pytest.mark.parametrize("kernel_size", [13, 15, 17, 31])
def test_large_kernels_run_in_float32_where_half_precision_is_native(
    kernel_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(depthwise, "is_native", lambda dtype: True)
    convolution = nn.Conv2d(4, 4, kernel_size, padding=kernel_size // 2, groups=4).bfloat16()
    pixels = torch.randn(1, 4, 9, 9, dtype=torch.bfloat16).to(memory_format=torch.channels_last)
    seen: list[torch.dtype] = []

    def convolve(features: torch.Tensor, weight: torch.Tensor, *rest: object, **options: object) -> torch.Tensor:
        seen.append(features.dtype)
        output = original(features.float(), weight.float(), rest[0].float(), **options)  # type: ignore[union-attr]
        return output.to(features.dtype)

    original = torch.nn.functional.conv2d
    monkeypatch.setattr(depthwise.F, "conv2d", convolve)
    with torch.no_grad():
        output = depthwise.depthwise_convolve(convolution, pixels)
    assert output.dtype == torch.bfloat16
    assert seen == [torch.bfloat16 if kernel_size <= 13 else torch.float32]
