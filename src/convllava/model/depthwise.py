"""Depthwise convolution, each pass by the method that is fastest on the CPU it runs on.

PyTorch's own is slow there in four cases:

- The weight gradient takes 5 to 10 ms however small the map is: up to 70 times the forward pass. On small maps it is
  one product and sum for each kernel offset takes 1 to 3 ms; on larger maps PyTorch's own is faster.
- In bfloat16 a processor without instructions for it takes 50 times as long as in float32, in both directions.
- In bfloat16 the backward pass is slower than in float32 even on processors that have them.
- In bfloat16 kernels of 15 x 15 and more take minutes on processors that have them.

In the last three cases the computation runs in float32 and the result is rounded once: it is closer to the exact one.

Shapes: N images, C channels, h x w positions, kernels of k x k.
"""

from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ..compat import depthwise_backward, mkldnn_supports

MAX_SMALL_POSITIONS = 96
"""Positions (h * w) up to which the products are faster; measured with one thread at 32 to 512 channels."""

MAX_HALF_KERNEL = 13
"""Side of the largest kernel that runs in bfloat16 or float16 on processors with instructions for it.

From 15 on, oneDNN in torch 2.13 takes minutes on maps of 32 x 32 (13: 5 ms) with AMX or AVX512-BF16.
"""

HALF_DTYPES = (torch.bfloat16, torch.float16)


def depthwise_convolve(convolution: nn.Conv2d, features: Tensor) -> Tensor:
    """Apply a depthwise "same" convolution.

    Args:
        convolution: The layer, with weight (C, 1, k, k).
        features: (N, C, h, w) in channels-last memory.

    Returns:
        (N, C, h, w) in channels-last memory.
    """
    if features.device.type != "cpu":
        return convolution(features)
    dtype = _compute_dtype(features)
    if torch.compiler.is_compiling():  # the compiler takes no method of ours, and large kernels in half precision hang
        is_large = dtype in HALF_DTYPES and convolution.kernel_size[0] > MAX_HALF_KERNEL
        return _in_float32(convolution, features, dtype) if is_large else convolution(features)
    if dtype in HALF_DTYPES:
        return _in_half(convolution, features, dtype)
    is_small = features.shape[2] * features.shape[3] <= MAX_SMALL_POSITIONS
    if is_small and dtype == torch.float32 and torch.is_grad_enabled():
        return _SmallMapConvolution.apply(features, convolution.weight, convolution.bias)
    return convolution(features)


@cache
def is_native(dtype: torch.dtype) -> bool:
    """Return whether this processor has instructions for a dtype and PyTorch uses them."""
    return dtype not in HALF_DTYPES or mkldnn_supports(dtype)


def _compute_dtype(features: Tensor) -> torch.dtype:
    return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else features.dtype


def _in_half(convolution: nn.Conv2d, features: Tensor, dtype: torch.dtype) -> Tensor:  # (N, C, h, w) -> same
    if convolution.bias is None:
        return convolution(features)
    if not is_native(dtype) or convolution.kernel_size[0] > MAX_HALF_KERNEL:
        return _in_float32(convolution, features, dtype)
    tensors = (features, convolution.weight, convolution.bias)
    with torch.autocast("cpu", enabled=False):
        return _HalfConvolution.apply(*(tensor.to(dtype) for tensor in tensors))


def _in_float32(convolution: nn.Conv2d, features: Tensor, dtype: torch.dtype) -> Tensor:  # (N, C, h, w) -> same
    bias = None if convolution.bias is None else convolution.bias.float()
    with torch.autocast("cpu", enabled=False):
        return _convolve(features.float(), convolution.weight.float(), bias).to(dtype)


def _convolve(features: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:  # (N, C, h, w) -> same
    return F.conv2d(features, weight, bias, padding=weight.shape[-1] // 2, groups=len(weight))


class _SmallMapConvolution(torch.autograd.Function):
    """Features (N, C, h, w), weight (C, 1, k, k) and bias (C,) to (N, C, h, w), with a weight gradient by products."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(features, weight)
        return _convolve(features, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        features, weight = ctx.saved_tensors
        needs_features, needs_weight, needs_bias = ctx.needs_input_grad
        to_features = to_weight = to_bias = None
        if needs_features:
            to_features = _convolve(gradient, weight.flip(2, 3), None)
        if needs_weight:
            to_weight = _weight_gradient(features, gradient, weight.shape[-1]).to(weight.dtype)
        if needs_bias:
            to_bias = gradient.sum(dim=(0, 2, 3))
        return to_features, to_weight, to_bias


class _HalfConvolution(torch.autograd.Function):
    """Features (N, C, h, w), weight (C, 1, k, k) and bias (C,) to (N, C, h, w): backward in float32."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(features, weight)
        return _convolve(features, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        features, weight = ctx.saved_tensors
        gradients = depthwise_backward(gradient.float(), features.float(), weight.float(), ctx.needs_input_grad)
        return tuple(None if found is None else found.to(gradient.dtype) for found in gradients)


def _weight_gradient(features: Tensor, gradient: Tensor, kernel_size: int) -> Tensor:
    """Return the weight gradient (C, 1, k, k) of features (N, C, h, w) and the output's gradient (N, C, h, w).

    The gradient at one kernel offset is the sum of feature times gradient over all pairs of positions that are this
    offset apart; offsets beyond the map have none and stay zero.
    """
    _, channels, height, width = features.shape
    reach = kernel_size // 2
    result = features.new_zeros(channels, 1, kernel_size, kernel_size)
    features, gradient = features.permute(0, 2, 3, 1), gradient.permute(0, 2, 3, 1).contiguous()  # (N, h, w, C)
    for dy in range(-min(reach, height - 1), min(reach, height - 1) + 1):
        for dx in range(-min(reach, width - 1), min(reach, width - 1) + 1):
            inputs = features[:, max(dy, 0) : height + min(dy, 0), max(dx, 0) : width + min(dx, 0)]
            outputs = gradient[:, max(-dy, 0) : height - max(dy, 0), max(-dx, 0) : width - max(dx, 0)]
            result[:, 0, reach + dy, reach + dx] = (inputs * outputs).sum(dim=(0, 1, 2))
    return result
