"""Depthwise convolution whose backward pass is fast on small maps on a CPU.

There PyTorch's weight gradient takes 5 to 10 ms however small the map is: up to 70 times the forward pass. Written as
one product and sum per kernel offset it takes 1 to 3 ms; on larger maps the library wins and is used.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

SMALL_MAP = 96
"""Positions up to which the products are faster; measured with one thread at 32 to 512 channels."""


def depthwise_convolve(convolution: nn.Conv2d, features: Tensor) -> Tensor:
    """Apply a depthwise "same" convolution to (N, C, H, W) features in channels-last memory."""
    if _products_are_faster(features):
        return _SmallMapConvolution.apply(features, convolution.weight, convolution.bias)
    return convolution(features)


def _products_are_faster(features: Tensor) -> bool:
    on_cpu = features.device.type == "cpu" and features.dtype == torch.float32
    small = features.shape[2] * features.shape[3] <= SMALL_MAP
    eager = not torch.compiler.is_compiling() and not torch.is_autocast_enabled("cpu")
    return on_cpu and small and eager and torch.is_grad_enabled()


class _SmallMapConvolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(features, weight)
        return F.conv2d(features, weight, bias, padding=weight.shape[-1] // 2, groups=len(weight))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        features, weight = ctx.saved_tensors
        needs_features, needs_weight, needs_bias = ctx.needs_input_grad
        to_features = to_weight = to_bias = None
        if needs_features:
            padding = weight.shape[-1] // 2
            to_features = F.conv2d(gradient, weight.flip(2, 3), padding=padding, groups=len(weight))
        if needs_weight:
            to_weight = _weight_gradient(features, gradient, weight.shape[-1]).to(weight.dtype)
        if needs_bias:
            to_bias = gradient.sum(dim=(0, 2, 3))
        return to_features, to_weight, to_bias


def _weight_gradient(features: Tensor, gradient: Tensor, kernel_size: int) -> Tensor:
    """Sum feature times gradient for every offset that both maps share; the others stay zero."""
    _, channels, height, width = features.shape
    reach = kernel_size // 2
    result = features.new_zeros(channels, 1, kernel_size, kernel_size)
    features, gradient = features.permute(0, 2, 3, 1), gradient.permute(0, 2, 3, 1).contiguous()
    for down in range(-min(reach, height - 1), min(reach, height - 1) + 1):
        for right in range(-min(reach, width - 1), min(reach, width - 1) + 1):
            there = features[:, max(down, 0) : height + min(down, 0), max(right, 0) : width + min(right, 0)]
            here = gradient[:, max(-down, 0) : height - max(down, 0), max(-right, 0) : width - max(right, 0)]
            result[:, 0, reach + down, reach + right] = (there * here).sum(dim=(0, 1, 2))
    return result
