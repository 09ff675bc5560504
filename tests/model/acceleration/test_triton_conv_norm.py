"""The Triton kernels: in Triton's interpreter on the CPU, and on a GPU where one is present."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

HERE = Path(__file__)

needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="triton is not installed (pip install triton; Linux only)"
)


def _tensors(channels: int, size: tuple[int, int], kernel: int, device: str, dtype: torch.dtype) -> list[torch.Tensor]:
    torch.manual_seed(0)
    shapes = [(2, *size, channels), (channels, 1, kernel, kernel), *[(channels,)] * 3]
    return [torch.randn(shape, device=device, dtype=dtype).requires_grad_() for shape in shapes]


def _unfused(features: torch.Tensor, *weights: torch.Tensor) -> torch.Tensor:
    weight, bias, norm_weight, norm_bias = weights
    convolved = F.conv2d(
        features.permute(0, 3, 1, 2), weight, bias, padding=weight.shape[-1] // 2, groups=len(weight)
    ).permute(0, 2, 3, 1)
    return F.layer_norm(convolved, norm_bias.shape, norm_weight, norm_bias, 1e-6)


def check(device: str, dtype: torch.dtype = torch.float32, tolerance: float = 1e-4) -> None:
    """Compare values and gradients of the kernels with those of PyTorch's operations."""
    from convllava.model.acceleration.triton_conv_norm import bias_gelu_, depthwise_norm, scale_and_add_

    for channels, size, kernel in [(6, (2, 4), 7), (33, (2, 1), 3), (4, (9, 2), 3)]:
        found, exact = (_tensors(channels, size, kernel, device, dtype) for _ in range(2))
        exact = [tensor.detach().double().requires_grad_() for tensor in exact]
        ours, theirs = depthwise_norm(*found, 1e-6), _unfused(*exact)
        with torch.no_grad():
            assert torch.equal(depthwise_norm(*found, 1e-6), ours)
        weights = torch.randn_like(ours)
        our_gradients = torch.autograd.grad((ours * weights).sum(), found)
        their_gradients = torch.autograd.grad((theirs * weights).sum(), exact)
        for one, other in zip((ours, *our_gradients), (theirs, *their_gradients), strict=True):
            assert one.dtype == dtype
            assert (one.double() - other).abs().max() < tolerance * other.abs().max(), (channels, size, kernel)
    values, features = (torch.randn(3, 7, 5, device=device, dtype=dtype) for _ in range(2))
    bias, scale = (torch.randn(5, device=device, dtype=dtype) for _ in range(2))
    expected = F.gelu(values + bias), features + (values + bias) * scale
    close = {"atol": tolerance, "rtol": tolerance}
    assert torch.allclose(scale_and_add_(features, values, bias, scale), expected[1], **close)
    assert torch.allclose(bias_gelu_(values, bias), expected[0], **close)


@needs_triton
def test_kernels_in_the_interpreter() -> None:
    # in a separate process: triton reads the variable when it is imported
    code = f"import sys; sys.path.insert(0, {str(HERE.parent)!r}); import {HERE.stem}; {HERE.stem}.check('cpu')"
    environment = os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)


@needs_triton
@pytest.mark.gpu
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-3), (torch.bfloat16, 0.03)])
def test_kernels_on_a_gpu(dtype: torch.dtype, tolerance: float) -> None:
    check("cuda", dtype, tolerance)
