# Triton's language has no annotations but constexpr:
# ruff: noqa: ANN001, ANN202
# mypy: disable-error-code="no-untyped-def, misc"
"""Triton kernels of the vision encoder: everything between the matrix products, which stay with cuBLAS.

- `depthwise_norm`: depthwise convolution, bias and LayerNorm in one pass over the features, with gradients;
- `bias_gelu_`: bias and GELU in one pass over the hidden layer;
- `scale_and_add_`: bias, layer scale and residual in one pass.

Shapes: N images, h x w positions, C channels; features are contiguous (N, h, w, C), kernels of the convolution are
(k * k, C), so that neighboring channels are neighbors in memory. Kernels compute in float32 and store the dtype of
their output. Names: ``*_ptr`` are pointers, ``*_offsets`` index vectors of a block, upper case compile-time constants.
LayerNorm and its gradient follow Triton's tutorial (https://triton-lang.org, "Layer Normalization").
"""

from typing import Any

import torch
from torch import Tensor

try:
    import triton
    import triton.language as tl
except ImportError as error:
    raise ImportError("the fused kernels need triton, which comes with CUDA builds of torch") from error

BLOCK_VALUES = 2048
"""Values that a program of the fused convolution keeps in registers: at least one position of all channels."""

WEIGHT_BLOCK_C = 32
"""Channels of one program of the weight-gradient kernel, which keeps a sum for each channel and kernel offset."""

WEIGHT_ROWS = 8
"""Image rows accumulated by one program of the weight-gradient kernel."""

ELEMENTWISE_BLOCK = 1024
"""Values of one program of the elementwise kernels."""

NORM_BACKWARD_PROGRAMS = 2048
"""Programs of the LayerNorm gradient, at most; some thousand occupy any GPU."""


@triton.jit
def _depthwise_conv(
    x_ptr,
    weight_ptr,
    image_idx,
    y,
    x_offsets,
    height,
    width,
    channels,
    c_offsets,
    KERNEL: tl.constexpr,
    FLIP: tl.constexpr,
):
    """Return ``sum_{i,j} x[n, y + i - k//2, x + j - k//2, c] * weight[i, j, c]``, zero outside the image.

    Args:
        x_ptr: (N, h, w, C).
        weight_ptr: (k * k, C).
        x_offsets: (BLOCK_W,), the positions in row ``y`` of image ``image_idx``.
        c_offsets: (BLOCK_C,), the channels.
        FLIP: Whether to rotate the kernel by 180 degrees, which makes the transposed convolution.

    Returns:
        float32 (BLOCK_W, BLOCK_C).
    """
    acc = tl.zeros((x_offsets.shape[0], c_offsets.shape[0]), dtype=tl.float32)
    c_mask = c_offsets < channels
    for tap in range(KERNEL * KERNEL):
        in_y = y + tap // KERNEL - KERNEL // 2
        in_x = x_offsets + tap % KERNEL - KERNEL // 2
        in_image = (in_y >= 0) & (in_y < height) & (in_x >= 0) & (in_x < width)
        in_offsets = ((image_idx * height + in_y) * width + in_x).to(tl.int64) * channels
        mask = in_image[:, None] & c_mask[None, :]
        x = tl.load(x_ptr + in_offsets[:, None] + c_offsets[None, :], mask=mask, other=0.0).to(tl.float32)
        weight_idx = KERNEL * KERNEL - 1 - tap if FLIP else tap
        weight = tl.load(weight_ptr + weight_idx * channels + c_offsets, mask=c_mask, other=0.0).to(tl.float32)
        acc += x * weight[None, :]
    return acc


@triton.jit
def _conv_norm_forward_kernel(
    x_ptr,
    weight_ptr,
    bias_ptr,
    norm_weight_ptr,
    norm_bias_ptr,
    out_ptr,
    conv_ptr,
    height,
    width,
    channels,
    eps,
    KERNEL: tl.constexpr,
    STORE_CONV: tl.constexpr,
    BLOCK_W: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Compute ``out = (conv - mean) * rstd * norm_weight + norm_bias`` with ``conv = depthwise(x, weight) + bias``.

    One program takes BLOCK_W positions of one image row and all channels. Grid: (N * h, ceil(w / BLOCK_W)).

    Args:
        x_ptr, out_ptr: (N, h, w, C).
        conv_ptr: float32 (N, h, w, C), written for the backward pass if STORE_CONV.
        weight_ptr: (k * k, C).
        bias_ptr, norm_weight_ptr, norm_bias_ptr: (C,).
    """
    row_idx = tl.program_id(0)
    image_idx, y = row_idx // height, row_idx % height
    x_offsets = tl.program_id(1) * BLOCK_W + tl.arange(0, BLOCK_W)
    c_offsets = tl.arange(0, BLOCK_C)
    c_mask = c_offsets < channels
    conv = _depthwise_conv(
        x_ptr, weight_ptr, image_idx, y, x_offsets, height, width, channels, c_offsets, KERNEL, False
    )
    conv += tl.load(bias_ptr + c_offsets, mask=c_mask, other=0.0).to(tl.float32)[None, :]
    offsets = (row_idx * width + x_offsets).to(tl.int64)[:, None] * channels + c_offsets[None, :]
    mask = (x_offsets < width)[:, None] & c_mask[None, :]
    if STORE_CONV:
        tl.store(conv_ptr + offsets, conv, mask=mask)
    mean = tl.sum(conv, axis=1) / channels
    centered = tl.where(c_mask[None, :], conv - mean[:, None], 0.0)
    rstd = 1 / tl.sqrt(tl.sum(centered * centered, axis=1) / channels + eps)
    norm_weight = tl.load(norm_weight_ptr + c_offsets, mask=c_mask, other=0.0).to(tl.float32)
    norm_bias = tl.load(norm_bias_ptr + c_offsets, mask=c_mask, other=0.0).to(tl.float32)
    tl.store(out_ptr + offsets, centered * rstd[:, None] * norm_weight[None, :] + norm_bias[None, :], mask=mask)


@triton.jit
def _norm_backward_kernel(
    dout_ptr,
    conv_ptr,
    norm_weight_ptr,
    dconv_ptr,
    dnorm_weight_ptr,
    dnorm_bias_ptr,
    num_positions,
    channels,
    eps,
    POSITIONS: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Compute ``dconv = (dnormed - mean(dnormed) - normed * mean(dnormed * normed)) * rstd``.

    Here ``dnormed = dout * norm_weight`` and means are over channels. One program takes POSITIONS positions, and also
    writes their sums for the norm's weight and bias, ``dout * normed`` and ``dout``. Grid: (programs,).

    Args:
        dout_ptr: (N, h, w, C).
        conv_ptr, dconv_ptr: float32 (N, h, w, C).
        norm_weight_ptr: (C,).
        dnorm_weight_ptr, dnorm_bias_ptr: float32 (programs, C).
    """
    program_idx = tl.program_id(0)
    c_offsets = tl.arange(0, BLOCK_C)
    c_mask = c_offsets < channels
    norm_weight = tl.load(norm_weight_ptr + c_offsets, mask=c_mask, other=0.0).to(tl.float32)
    dnorm_weight = tl.zeros((BLOCK_C,), dtype=tl.float32)
    dnorm_bias = tl.zeros((BLOCK_C,), dtype=tl.float32)
    for step in range(POSITIONS):
        position_idx = program_idx * POSITIONS + step
        mask = c_mask & (position_idx < num_positions)
        offsets = tl.cast(position_idx, tl.int64) * channels + c_offsets
        conv = tl.load(conv_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
        dout = tl.load(dout_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
        centered = tl.where(c_mask, conv - tl.sum(conv, axis=0) / channels, 0.0)
        rstd = 1 / tl.sqrt(tl.sum(centered * centered, axis=0) / channels + eps)
        normed = centered * rstd
        dnormed = dout * norm_weight
        mean_dnormed = tl.sum(dnormed, axis=0) / channels
        mean_projection = tl.sum(dnormed * normed, axis=0) / channels
        tl.store(dconv_ptr + offsets, (dnormed - mean_dnormed - normed * mean_projection) * rstd, mask=mask)
        dnorm_weight += dout * normed
        dnorm_bias += dout
    tl.store(dnorm_weight_ptr + program_idx * channels + c_offsets, dnorm_weight, mask=c_mask)
    tl.store(dnorm_bias_ptr + program_idx * channels + c_offsets, dnorm_bias, mask=c_mask)


@triton.jit
def _conv_backward_input_kernel(
    dconv_ptr,
    weight_ptr,
    dx_ptr,
    height,
    width,
    channels,
    KERNEL: tl.constexpr,
    BLOCK_W: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Compute ``dx``: the depthwise convolution of ``dconv`` with the kernel rotated by 180 degrees.

    One program takes BLOCK_W positions of one image row and all channels. Grid: (N * h, ceil(w / BLOCK_W)).

    Args:
        dconv_ptr: float32 (N, h, w, C).
        weight_ptr: (k * k, C).
        dx_ptr: (N, h, w, C).
    """
    row_idx = tl.program_id(0)
    image_idx, y = row_idx // height, row_idx % height
    x_offsets = tl.program_id(1) * BLOCK_W + tl.arange(0, BLOCK_W)
    c_offsets = tl.arange(0, BLOCK_C)
    dx = _depthwise_conv(
        dconv_ptr, weight_ptr, image_idx, y, x_offsets, height, width, channels, c_offsets, KERNEL, True
    )
    offsets = (row_idx * width + x_offsets).to(tl.int64)[:, None] * channels + c_offsets[None, :]
    tl.store(dx_ptr + offsets, dx, mask=(x_offsets < width)[:, None] & (c_offsets < channels)[None, :])


@triton.jit
def _conv_backward_weight_kernel(
    x_ptr,
    dconv_ptr,
    dweight_ptr,
    num_rows,
    height,
    width,
    channels,
    KERNEL: tl.constexpr,
    BLOCK_TAPS: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Sum ``dweight[i, j, c] = x[n, y + i - k//2, x + j - k//2, c] * dconv[n, y, x, c]`` over ROWS image rows.

    One program takes BLOCK_C channels. Grid: (ceil(N * h / ROWS), ceil(C / BLOCK_C)).

    Args:
        x_ptr: (N, h, w, C).
        dconv_ptr: float32 (N, h, w, C).
        dweight_ptr: float32 (ceil(N * h / ROWS), k * k, C).
    """
    taps = tl.arange(0, BLOCK_TAPS)
    dy, dx = taps // KERNEL - KERNEL // 2, taps % KERNEL - KERNEL // 2
    c_offsets = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    c_mask = c_offsets < channels
    acc = tl.zeros((BLOCK_TAPS, BLOCK_C), dtype=tl.float32)
    for step in range(ROWS):
        row_idx = tl.program_id(0) * ROWS + step
        image_idx, y = row_idx // height, row_idx % height
        in_y = y + dy
        row_mask = (row_idx < num_rows) & (taps < KERNEL * KERNEL) & (in_y >= 0) & (in_y < height)
        for x_idx in range(width):
            out_offsets = tl.cast(row_idx * width + x_idx, tl.int64) * channels + c_offsets
            dconv = tl.load(dconv_ptr + out_offsets, mask=c_mask & (row_idx < num_rows), other=0.0).to(tl.float32)
            in_x = x_idx + dx
            in_image = row_mask & (in_x >= 0) & (in_x < width)
            in_offsets = ((image_idx * height + in_y) * width + in_x).to(tl.int64) * channels
            mask = in_image[:, None] & c_mask[None, :]
            x = tl.load(x_ptr + in_offsets[:, None] + c_offsets[None, :], mask=mask, other=0.0).to(tl.float32)
            acc += x * dconv[None, :]
    offsets = (tl.program_id(0) * KERNEL * KERNEL + taps)[:, None] * channels + c_offsets[None, :]
    tl.store(dweight_ptr + offsets, acc, mask=(taps < KERNEL * KERNEL)[:, None] & c_mask[None, :])


@triton.jit
def _bias_gelu_kernel(x_ptr, bias_ptr, num_values, channels, BLOCK: tl.constexpr):
    """Compute ``x = 0.5 * s * (1 + erf(s / sqrt(2)))`` in place, with ``s = x + bias``.

    Grid: (ceil(num_values / BLOCK),).

    Args:
        x_ptr: (..., C).
        bias_ptr: (C,).
    """
    offsets = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = offsets < num_values
    x = tl.load(x_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
    x += tl.load(bias_ptr + offsets % channels, mask=mask, other=0.0).to(tl.float32)
    tl.store(x_ptr + offsets, 0.5 * x * (1 + tl.erf(x * 0.7071067811865476)), mask=mask)


@triton.jit
def _scale_and_add_kernel(residual_ptr, x_ptr, bias_ptr, scale_ptr, num_values, channels, BLOCK: tl.constexpr):
    """Compute ``residual = residual + (x + bias) * scale`` in place. Grid: (ceil(num_values / BLOCK),).

    Args:
        residual_ptr, x_ptr: (..., C).
        bias_ptr, scale_ptr: (C,).
    """
    offsets = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = offsets < num_values
    c_offsets = offsets % channels
    x = tl.load(x_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
    x += tl.load(bias_ptr + c_offsets, mask=mask, other=0.0).to(tl.float32)
    x *= tl.load(scale_ptr + c_offsets, mask=mask, other=0.0).to(tl.float32)
    x += tl.load(residual_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
    tl.store(residual_ptr + offsets, x, mask=mask)


def depthwise_norm(
    features: Tensor, weight: Tensor, bias: Tensor, norm_weight: Tensor, norm_bias: Tensor, eps: float
) -> Tensor:
    """Compute ``LayerNorm(depthwise(features, weight) + bias)`` over channels, with "same" padding.

    Args:
        features: (N, h, w, C).
        weight: (C, 1, k, k).
        bias: Bias of the convolution, (C,).
        norm_weight, norm_bias: Affine parameters of the norm, (C,).
        eps: Epsilon of the norm.

    Returns:
        (N, h, w, C) in the dtype of the features, differentiable with respect to all five tensors.
    """
    tensors = (features, weight, bias, norm_weight, norm_bias)
    needs_grad = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)
    return _DepthwiseNorm.apply(*tensors, eps, needs_grad)


def _check_contiguous(*tensors: Tensor) -> None:
    if not all(tensor.is_contiguous() for tensor in tensors):
        raise ValueError("the kernel indexes memory without strides: pass contiguous tensors")


def bias_gelu_(values: Tensor, bias: Tensor) -> Tensor:
    """Replace contiguous values (..., C) by ``GELU(values + bias)``, bias (C,)."""
    _check_contiguous(values)
    grid = (triton.cdiv(values.numel(), ELEMENTWISE_BLOCK),)
    _bias_gelu_kernel[grid](values, bias, values.numel(), values.shape[-1], ELEMENTWISE_BLOCK)
    return values


def scale_and_add_(features: Tensor, values: Tensor, bias: Tensor, scale: Tensor) -> Tensor:
    """Add ``(values + bias) * scale`` to contiguous features (..., C) in place; bias and scale (C,)."""
    _check_contiguous(features, values)
    grid = (triton.cdiv(features.numel(), ELEMENTWISE_BLOCK),)
    _scale_and_add_kernel[grid](features, values, bias, scale, features.numel(), features.shape[-1], ELEMENTWISE_BLOCK)
    return features


class _DepthwiseNorm(torch.autograd.Function):
    """See `depthwise_norm`; with ``needs_grad`` the forward pass keeps the convolved features in float32."""

    @staticmethod
    def forward(
        ctx: Any,
        features: Tensor,
        weight: Tensor,
        bias: Tensor,
        norm_weight: Tensor,
        norm_bias: Tensor,
        eps: float,
        needs_grad: bool,
    ) -> Tensor:
        features = features.contiguous()
        batch, height, width, channels = features.shape
        out = torch.empty_like(features)
        conv = torch.empty_like(features, dtype=torch.float32) if needs_grad else out
        block_w, block_c = _blocks(width, channels)
        _conv_norm_forward_kernel[(batch * height, triton.cdiv(width, block_w))](
            features,
            _taps_first(weight),
            bias,
            norm_weight,
            norm_bias,
            out,
            conv,
            height,
            width,
            channels,
            eps,
            weight.shape[-1],
            needs_grad,
            block_w,
            block_c,
        )
        if needs_grad:
            ctx.save_for_backward(features, weight, norm_weight, conv)
        ctx.eps = eps
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        features, weight, norm_weight, conv = ctx.saved_tensors
        dconv, dnorm_weight, dnorm_bias = _norm_backward(gradient.contiguous(), conv, norm_weight, ctx.eps)
        dx = _conv_backward_input(dconv, weight, features.dtype) if ctx.needs_input_grad[0] else None
        dweight = _conv_backward_weight(features, dconv, weight) if ctx.needs_input_grad[1] else None
        dbias = dconv.sum(dim=(0, 1, 2)).to(weight.dtype) if ctx.needs_input_grad[2] else None
        dtype = norm_weight.dtype
        return dx, dweight, dbias, dnorm_weight.to(dtype), dnorm_bias.to(dtype), None, None


def _taps_first(weight: Tensor) -> Tensor:  # (C, 1, k, k) -> (k * k, C)
    return weight.flatten(1).t().contiguous()


def _blocks(width: int, channels: int) -> tuple[int, int]:
    """Return (BLOCK_W, BLOCK_C): all channels, which the norm needs, of as many positions as fit."""
    block_c = triton.next_power_of_2(channels)
    block_w = max(1, min(triton.next_power_of_2(width), BLOCK_VALUES // block_c))
    return block_w, block_c


def _norm_backward(
    gradient: Tensor, conv: Tensor, norm_weight: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:  # (N, h, w, C) twice, (C,) -> float32 (N, h, w, C), (C,), (C,)
    """Return the gradients before the norm and of the norm's weight and bias."""
    channels = conv.shape[-1]
    num_positions = conv.numel() // channels
    positions = max(1, triton.next_power_of_2(triton.cdiv(num_positions, NORM_BACKWARD_PROGRAMS)))
    programs = triton.cdiv(num_positions, positions)
    dconv = torch.empty_like(conv)
    dnorm_weight, dnorm_bias = (torch.empty(programs, channels, device=conv.device) for _ in range(2))
    _norm_backward_kernel[(programs,)](
        gradient,
        conv,
        norm_weight,
        dconv,
        dnorm_weight,
        dnorm_bias,
        num_positions,
        channels,
        eps,
        positions,
        triton.next_power_of_2(channels),
    )
    return dconv, dnorm_weight.sum(dim=0), dnorm_bias.sum(dim=0)


def _conv_backward_input(dconv: Tensor, weight: Tensor, dtype: torch.dtype) -> Tensor:  # -> (N, h, w, C)
    batch, height, width, channels = dconv.shape
    dx = torch.empty_like(dconv, dtype=dtype)
    block_w, block_c = _blocks(width, channels)
    _conv_backward_input_kernel[(batch * height, triton.cdiv(width, block_w))](
        dconv, _taps_first(weight), dx, height, width, channels, weight.shape[-1], block_w, block_c
    )
    return dx


def _conv_backward_weight(features: Tensor, dconv: Tensor, weight: Tensor) -> Tensor:  # -> (C, 1, k, k)
    batch, height, width, channels = features.shape
    kernel_size = weight.shape[-1]
    num_rows = batch * height
    programs = triton.cdiv(num_rows, WEIGHT_ROWS)
    dweight = torch.empty(programs, kernel_size**2, channels, device=features.device)
    block_taps = triton.next_power_of_2(kernel_size**2)
    _conv_backward_weight_kernel[(programs, triton.cdiv(channels, WEIGHT_BLOCK_C))](
        features,
        dconv,
        dweight,
        num_rows,
        height,
        width,
        channels,
        kernel_size,
        block_taps,
        WEIGHT_ROWS,
        WEIGHT_BLOCK_C,
    )
    return dweight.sum(dim=0).t().reshape(weight.shape).to(weight.dtype)
