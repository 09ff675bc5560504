"""The vision encoder on an NVIDIA GPU: fused kernels and CUDA graphs for inference, fused layers for training.

Fused kernels compute everything between the matrix products (see `triton_conv_norm`), and a CUDA graph replays the
encoder for shapes that recur: more than a hundred small launches become one. Without Triton the plain operations are
recorded in graphs instead.

Shapes: N images of H x W pixels, feature maps (N, h, w, C).
"""

import importlib.util
import logging
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...support import dtype_name
from ..vision_convllava import ConvLlavaVisionLayer, ConvLlavaVisionModel

MAX_GRAPHS = 8
"""Shapes whose graphs are kept; each holds on to the memory of its intermediate features."""

RECORDED_FROM = 2
"""Occurrence of a shape at which its graph is recorded."""

WARM_UPS = 3
"""Runs before recording, in which libraries choose their algorithms and Triton compiles."""

logger = logging.getLogger(__name__)


class CudaEncoder:
    """Backend "cuda": inference in the encoder's own dtype.

    Args:
        tower: The eager encoder, on the GPU.
    """

    name = "cuda"
    for_training = False

    def __init__(self, tower: ConvLlavaVisionModel) -> None:
        self._tower = tower
        self._dtype = tower.dtype
        has_triton = importlib.util.find_spec("triton") is not None
        self._graphs = GraphCache(self._fused if has_triton else self._eager)
        kernels = "fused kernels" if has_triton else "plain kernels, as triton is not installed"
        logger.info("vision encoder in %s with %s", dtype_name(tower.dtype), kernels)

    @torch.no_grad()
    def __call__(self, pixel_values: Tensor) -> Tensor:
        """Return the last stage's features (N, h, w, C) of images (N, 3, H, W)."""
        return self._graphs(pixel_values.to(self._dtype))

    def close(self) -> None:
        """Do nothing: the encoder is unchanged."""

    def _eager(self, pixel_values: Tensor) -> Tensor:
        return self._tower.feature_maps(pixel_values)[-1]

    def _fused(self, pixel_values: Tensor) -> Tensor:
        features = self._tower.embeddings(pixel_values)
        stages: Iterable[Any] = self._tower.encoder.stages
        for stage in stages:
            features = stage.downsample(features).contiguous()
            for layer in stage.layers:
                _block(layer, features)
        return features


def _block(layer: ConvLlavaVisionLayer, features: Tensor) -> None:
    """Run one block on features (N, h, w, C), which are changed in place."""
    from .triton_conv_norm import bias_gelu_, scale_and_add_

    hidden = convolve_and_norm(layer, features)
    if getattr(layer.act, "act", None) is F.gelu:
        hidden = bias_gelu_(F.linear(hidden, layer.pwconv1.weight), layer.pwconv1.bias)
    else:
        hidden = layer.act(layer.pwconv1(hidden))
    scale_and_add_(features, F.linear(hidden, layer.pwconv2.weight), layer.pwconv2.bias, layer.layer_scale_parameter)


def convolve_and_norm(layer: ConvLlavaVisionLayer, features: Tensor) -> Tensor:
    """Return the layer's convolved and normalized features (N, h, w, C) from one differentiable kernel."""
    from .triton_conv_norm import depthwise_norm

    convolution, norm = layer.dwconv, layer.layernorm
    if convolution.bias is None:
        raise ValueError("the fused kernel needs a depthwise convolution with a bias: use the eager backend")
    return depthwise_norm(features, convolution.weight, convolution.bias, norm.weight, norm.bias, norm.eps)


class FusedLayers:
    """Backend "triton": the eager encoder with convolution and norm of every layer fused, forward and backward.

    It works inside the layers, so gradient checkpointing and sharding see the encoder that they know.

    Args:
        tower: The eager encoder, on the GPU.

    Raises:
        ValueError: triton is not installed.
    """

    name = "triton"
    for_training = True

    def __init__(self, tower: ConvLlavaVisionModel) -> None:
        if importlib.util.find_spec("triton") is None:
            raise ValueError("backend 'triton' needs triton, which comes with CUDA builds of torch: pip install triton")
        self._tower = tower
        self._set(convolve_and_norm)

    def __call__(self, pixel_values: Tensor) -> Tensor:
        """Return the last stage's features (N, h, w, C) of images (N, 3, H, W)."""
        return self._tower.feature_maps(pixel_values)[-1]

    def close(self) -> None:
        """Run convolution and norm one after the other again."""
        self._set(None)

    def _set(self, function: Callable[[ConvLlavaVisionLayer, Tensor], Tensor] | None) -> None:
        for module in self._tower.modules():
            if isinstance(module, ConvLlavaVisionLayer):
                module.fused_convolve_and_norm = function


class GraphCache:
    """Runs a function of one tensor on a GPU and replays a recording of it for shapes that recur.

    Args:
        run: A function without branches on values that never waits for the GPU.
        record: Replacement for `CudaGraph` in tests.
    """

    def __init__(
        self,
        run: Callable[[Tensor], Tensor],
        record: "Callable[[Callable[[Tensor], Tensor], Tensor], Any] | None" = None,
    ) -> None:
        self._run, self._record = run, record or CudaGraph
        self._seen: OrderedDict[tuple[int, ...], int] = OrderedDict()
        self._recordings: OrderedDict[tuple[int, ...], Any] = OrderedDict()

    def __call__(self, inputs: Tensor) -> Tensor:
        """Return the function's output in newly allocated memory."""
        shape = tuple(inputs.shape)
        if shape in self._recordings:
            self._recordings.move_to_end(shape)
            return self._recordings[shape](inputs)
        self._seen[shape] = self._seen.pop(shape, 0) + 1
        if self._seen[shape] < RECORDED_FROM:
            while len(self._seen) > 16 * MAX_GRAPHS:
                self._seen.popitem(last=False)
            return self._run(inputs)
        del self._seen[shape]
        if len(self._recordings) == MAX_GRAPHS:
            self._recordings.popitem(last=False)
        self._recordings[shape] = self._record(self._run, inputs)
        return self._recordings[shape](inputs)


class CudaGraph:
    """A CUDA graph of a function at one shape, with its input and output memory."""

    def __init__(self, run: Callable[[Tensor], Tensor], inputs: Tensor) -> None:
        self._inputs = inputs.clone()
        stream = torch.cuda.Stream(inputs.device)
        stream.wait_stream(torch.cuda.current_stream(inputs.device))
        with torch.cuda.stream(stream):
            for _ in range(WARM_UPS):
                run(self._inputs)
        torch.cuda.current_stream(inputs.device).wait_stream(stream)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._outputs = run(self._inputs)

    def __call__(self, inputs: Tensor) -> Tensor:
        """Copy the inputs, replay the graph and return a copy of its outputs."""
        self._inputs.copy_(inputs)
        self._graph.replay()
        return self._outputs.clone()
