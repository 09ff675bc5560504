# The bodies of kernels are Triton's language, which has no annotations beyond its constants:
# ruff: noqa: ANN001, ANN202
# mypy: disable-error-code="no-untyped-def, misc"
"""Kernels of the vision encoder for a GPU, in Triton: what moves bytes between the matrix products.

- depthwise convolution, its bias and the norm behind it, in one pass over the features, with their gradients;
- bias and GELU in one pass over the hidden layer;
- bias, layer scale and residual in one pass.

Features are (N, H, W, C) in memory. Products stay with the library.
"""

from typing import Any

import torch
from torch import Tensor

try:
    import triton
    import triton.language as tl
except ImportError as error:
    raise ImportError("the fused kernels need triton, which comes with CUDA builds of torch") from error

POSITIONS_AND_CHANNELS = 2048
"""Values that a program of the fused convolution keeps in registers, at least one position of all channels."""

CHANNELS = 32
"""Of a program of the weight gradient, which keeps a sum for each of them and each offset."""

ROWS = 8
"""Of an image, that a program of the weight gradient sums up."""

ELEMENTS = 1024
"""Of a program of the elementwise kernels."""


@triton.jit
def _convolved(source, weight, batch, y, xs, height, width, channels, column, kernel: tl.constexpr, flip: tl.constexpr):
    """Return the depthwise convolution (positions, channels) at one row's positions, zero beyond the borders."""
    total = tl.zeros((xs.shape[0], column.shape[0]), dtype=tl.float32)
    inside = column < channels
    for offset in range(kernel * kernel):
        from_y = y + offset // kernel - kernel // 2
        from_x = xs + offset % kernel - kernel // 2
        exists = (from_y >= 0) & (from_y < height) & (from_x >= 0) & (from_x < width)
        place = ((batch * height + from_y) * width + from_x).to(tl.int64) * channels
        mask = exists[:, None] & inside[None, :]
        values = tl.load(source + place[:, None] + column[None, :], mask=mask, other=0.0).to(tl.float32)
        tap = kernel * kernel - 1 - offset if flip else offset
        factors = tl.load(weight + tap * channels + column, mask=inside, other=0.0).to(tl.float32)
        total += values * factors[None, :]
    return total


@triton.jit
def _convolve_and_norm(
    source,
    weight,
    bias,
    norm_weight,
    norm_bias,
    target,
    convolved,
    height,
    width,
    channels,
    epsilon,
    kernel: tl.constexpr,
    keep: tl.constexpr,
    positions: tl.constexpr,
    block: tl.constexpr,
):
    row = tl.program_id(0)
    batch, y = row // height, row % height
    xs = tl.program_id(1) * positions + tl.arange(0, positions)
    column = tl.arange(0, block)
    inside = column < channels
    total = _convolved(source, weight, batch, y, xs, height, width, channels, column, kernel, False)
    total += tl.load(bias + column, mask=inside, other=0.0).to(tl.float32)[None, :]
    place = (row * width + xs).to(tl.int64)[:, None] * channels + column[None, :]
    mask = (xs < width)[:, None] & inside[None, :]
    if keep:
        tl.store(convolved + place, total, mask=mask)
    mean = tl.sum(total, axis=1) / channels
    centered = tl.where(inside[None, :], total - mean[:, None], 0.0)
    spread = 1 / tl.sqrt(tl.sum(centered * centered, axis=1) / channels + epsilon)
    factors = tl.load(norm_weight + column, mask=inside, other=0.0).to(tl.float32)
    offsets = tl.load(norm_bias + column, mask=inside, other=0.0).to(tl.float32)
    tl.store(target + place, centered * spread[:, None] * factors[None, :] + offsets[None, :], mask=mask)


@triton.jit
def _norm_backward(
    gradient,
    convolved,
    norm_weight,
    target,
    to_weight,
    to_bias,
    rows,
    channels,
    epsilon,
    rows_each: tl.constexpr,
    block: tl.constexpr,
):
    """Gradient before the norm, and this program's part of the gradients of the norm's weight and bias."""
    program = tl.program_id(0)
    column = tl.arange(0, block)
    inside = column < channels
    factors = tl.load(norm_weight + column, mask=inside, other=0.0).to(tl.float32)
    weight_sum = tl.zeros((block,), dtype=tl.float32)
    bias_sum = tl.zeros((block,), dtype=tl.float32)
    for number in range(rows_each):
        row = program * rows_each + number
        mask = inside & (row < rows)
        place = tl.cast(row, tl.int64) * channels + column
        values = tl.load(convolved + place, mask=mask, other=0.0).to(tl.float32)
        outer = tl.load(gradient + place, mask=mask, other=0.0).to(tl.float32)
        centered = tl.where(inside, values - tl.sum(values, axis=0) / channels, 0.0)
        spread = 1 / tl.sqrt(tl.sum(centered * centered, axis=0) / channels + epsilon)
        normed = centered * spread
        inner = outer * factors
        common = tl.sum(inner, axis=0) / channels
        along = tl.sum(inner * normed, axis=0) / channels
        tl.store(target + place, (inner - common - normed * along) * spread, mask=mask)
        weight_sum += outer * normed
        bias_sum += outer
    tl.store(to_weight + program * channels + column, weight_sum, mask=inside)
    tl.store(to_bias + program * channels + column, bias_sum, mask=inside)


@triton.jit
def _convolve_back(
    gradient,
    weight,
    target,
    height,
    width,
    channels,
    kernel: tl.constexpr,
    positions: tl.constexpr,
    block: tl.constexpr,
):
    """Gradient of the convolution's input: the same convolution with the kernel turned round."""
    row = tl.program_id(0)
    xs = tl.program_id(1) * positions + tl.arange(0, positions)
    column = tl.arange(0, block)
    total = _convolved(gradient, weight, row // height, row % height, xs, height, width, channels, column, kernel, True)
    place = (row * width + xs).to(tl.int64)[:, None] * channels + column[None, :]
    tl.store(target + place, total, mask=(xs < width)[:, None] & (column < channels)[None, :])


@triton.jit
def _weight_backward(
    source,
    gradient,
    target,
    rows,
    height,
    width,
    channels,
    kernel: tl.constexpr,
    taps: tl.constexpr,
    rows_each: tl.constexpr,
    block: tl.constexpr,
):
    """This program's part of the gradient of the kernel, (offsets, channels)."""
    tap = tl.arange(0, taps)
    down, right = tap // kernel - kernel // 2, tap % kernel - kernel // 2
    column = tl.program_id(1) * block + tl.arange(0, block)
    inside = column < channels
    total = tl.zeros((taps, block), dtype=tl.float32)
    for number in range(rows_each):
        row = tl.program_id(0) * rows_each + number
        batch, y = row // height, row % height
        from_y = y + down
        row_exists = (row < rows) & (tap < kernel * kernel) & (from_y >= 0) & (from_y < height)
        for x in range(width):
            place = tl.cast(row * width + x, tl.int64) * channels + column
            outer = tl.load(gradient + place, mask=inside & (row < rows), other=0.0).to(tl.float32)
            from_x = x + right
            exists = row_exists & (from_x >= 0) & (from_x < width)
            there = ((batch * height + from_y) * width + from_x).to(tl.int64) * channels
            mask = exists[:, None] & inside[None, :]
            values = tl.load(source + there[:, None] + column[None, :], mask=mask, other=0.0).to(tl.float32)
            total += values * outer[None, :]
    place = (tl.program_id(0) * kernel * kernel + tap)[:, None] * channels + column[None, :]
    tl.store(target + place, total, mask=(tap < kernel * kernel)[:, None] & inside[None, :])


@triton.jit
def _bias_gelu(values, bias, count, channels, size: tl.constexpr):
    place = tl.program_id(0).to(tl.int64) * size + tl.arange(0, size)
    mask = place < count
    sums = tl.load(values + place, mask=mask, other=0.0).to(tl.float32)
    sums += tl.load(bias + place % channels, mask=mask, other=0.0).to(tl.float32)
    tl.store(values + place, 0.5 * sums * (1 + tl.erf(sums * 0.7071067811865476)), mask=mask)


@triton.jit
def _scale_and_add(features, values, bias, scale, count, channels, size: tl.constexpr):
    place = tl.program_id(0).to(tl.int64) * size + tl.arange(0, size)
    mask = place < count
    column = place % channels
    sums = tl.load(values + place, mask=mask, other=0.0).to(tl.float32)
    sums += tl.load(bias + column, mask=mask, other=0.0).to(tl.float32)
    sums *= tl.load(scale + column, mask=mask, other=0.0).to(tl.float32)
    sums += tl.load(features + place, mask=mask, other=0.0).to(tl.float32)
    tl.store(features + place, sums, mask=mask)


def depthwise_norm(
    features: Tensor, weight: Tensor, bias: Tensor, norm_weight: Tensor, norm_bias: Tensor, epsilon: float
) -> Tensor:
    """Convolve each channel with its own kernel ("same" padding), add the bias, normalize over the channels.

    Args:
        features: (N, H, W, C).
        weight: (C, 1, k, k).
        bias, norm_weight, norm_bias: (C,).
        epsilon: Of the norm.

    Returns:
        (N, H, W, C) in the dtype of the features; gradients flow to all five.
    """
    tensors = (features, weight, bias, norm_weight, norm_bias)
    keep = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)
    return _DepthwiseNorm.apply(*tensors, epsilon, keep)


def bias_gelu_(values: Tensor, bias: Tensor) -> Tensor:
    """Replace values (..., C) by GELU(values + bias)."""
    assert values.is_contiguous()
    _bias_gelu[(triton.cdiv(values.numel(), ELEMENTS),)](values, bias, values.numel(), values.shape[-1], ELEMENTS)
    return values


def scale_and_add_(features: Tensor, values: Tensor, bias: Tensor, scale: Tensor) -> Tensor:
    """Add (values + bias) * scale to features (..., C), in place."""
    assert features.is_contiguous() and values.is_contiguous()
    grid = (triton.cdiv(features.numel(), ELEMENTS),)
    _scale_and_add[grid](features, values, bias, scale, features.numel(), features.shape[-1], ELEMENTS)
    return features


class _DepthwiseNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        features: Tensor,
        weight: Tensor,
        bias: Tensor,
        norm_weight: Tensor,
        norm_bias: Tensor,
        epsilon: float,
        keep: bool,
    ) -> Tensor:
        features = features.contiguous()
        batch, height, width, channels = features.shape
        kernel = weight.shape[-1]
        taps = _taps_first(weight)
        target = torch.empty_like(features)
        convolved = torch.empty_like(features, dtype=torch.float32) if keep else target
        positions, block = _tile(width, channels)
        _convolve_and_norm[(batch * height, triton.cdiv(width, positions))](
            features,
            taps,
            bias,
            norm_weight,
            norm_bias,
            target,
            convolved,
            height,
            width,
            channels,
            epsilon,
            kernel,
            keep,
            positions,
            block,
        )
        if keep:
            ctx.save_for_backward(features, weight, norm_weight, convolved)
        ctx.epsilon = epsilon
        return target

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        features, weight, norm_weight, convolved = ctx.saved_tensors
        inner, to_norm_weight, to_norm_bias = _through_norm(gradient.contiguous(), convolved, norm_weight, ctx.epsilon)
        to_features = _through_convolution(inner, weight, features.dtype) if ctx.needs_input_grad[0] else None
        to_weight = _to_kernel(features, inner, weight) if ctx.needs_input_grad[1] else None
        to_bias = inner.sum(dim=(0, 1, 2)).to(weight.dtype) if ctx.needs_input_grad[2] else None
        return (
            to_features,
            to_weight,
            to_bias,
            to_norm_weight.to(norm_weight.dtype),
            to_norm_bias.to(norm_weight.dtype),
            None,
            None,
        )


def _taps_first(weight: Tensor) -> Tensor:
    """Return kernels (C, 1, k, k) as (k * k, C): neighboring channels are neighbors in memory."""
    return weight.flatten(1).t().contiguous()


def _tile(width: int, channels: int) -> tuple[int, int]:
    """Return positions and channels of a program: all channels, which the norm needs, of as many positions as fit."""
    block = triton.next_power_of_2(channels)
    positions = max(1, min(triton.next_power_of_2(width), POSITIONS_AND_CHANNELS // block))
    return positions, block


def _through_norm(
    gradient: Tensor, convolved: Tensor, norm_weight: Tensor, epsilon: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradient before the norm, float32, and those of the norm's weight and bias."""
    channels = convolved.shape[-1]
    rows = convolved.numel() // channels
    rows_each = max(1, triton.next_power_of_2(triton.cdiv(rows, 2048)))  # some thousand programs fill any GPU
    programs = triton.cdiv(rows, rows_each)
    target = torch.empty_like(convolved)
    to_weight, to_bias = (torch.empty(programs, channels, device=convolved.device) for _ in range(2))
    _norm_backward[(programs,)](
        gradient,
        convolved,
        norm_weight,
        target,
        to_weight,
        to_bias,
        rows,
        channels,
        epsilon,
        rows_each,
        triton.next_power_of_2(channels),
    )
    return target, to_weight.sum(dim=0), to_bias.sum(dim=0)


def _through_convolution(gradient: Tensor, weight: Tensor, dtype: torch.dtype) -> Tensor:
    batch, height, width, channels = gradient.shape
    target = torch.empty_like(gradient, dtype=dtype)
    positions, block = _tile(width, channels)
    _convolve_back[(batch * height, triton.cdiv(width, positions))](
        gradient, _taps_first(weight), target, height, width, channels, weight.shape[-1], positions, block
    )
    return target


def _to_kernel(features: Tensor, gradient: Tensor, weight: Tensor) -> Tensor:
    batch, height, width, channels = features.shape
    kernel = weight.shape[-1]
    rows = batch * height
    parts = triton.cdiv(rows, ROWS)
    target = torch.empty(parts, kernel * kernel, channels, device=features.device)
    taps = triton.next_power_of_2(kernel * kernel)
    _weight_backward[(parts, triton.cdiv(channels, CHANNELS))](
        features, gradient, target, rows, height, width, channels, kernel, taps, ROWS, CHANNELS
    )
    return target.sum(dim=0).t().reshape(weight.shape).to(weight.dtype)
