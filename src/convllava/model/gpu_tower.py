"""The vision encoder made ready for inference on an NVIDIA GPU.

Fused kernels take what lies between the matrix products (see `triton_kernels`), and a CUDA graph replays the whole
encoder for shapes that come again: some hundred small launches become one. Without Triton the plain operations run, in
graphs all the same.
"""

import importlib.util
import logging
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

MOST_GRAPHS = 8
"""Shapes whose graphs are kept; each holds on to the memory of its intermediate features."""

WORTH_A_GRAPH = 2
"""A shape is recorded when it comes for this time."""

WARM_UPS = 3
"""Runs before recording, in which libraries choose their algorithms and Triton compiles."""

logger = logging.getLogger(__name__)


class GpuTower:
    """A vision encoder ready for inference on a GPU, in its own dtype.

    Args:
        tower: The plain encoder, on the GPU.
        precision: "auto", or the name of the encoder's dtype.

    Raises:
        ValueError: Another precision is wanted.
    """

    def __init__(self, tower: Any, precision: str = "auto") -> None:
        own = str(tower.dtype).removeprefix("torch.")
        if precision not in ("auto", own):
            raise ValueError(
                f"on a GPU the vision encoder keeps its dtype, {own}: take precision 'auto' instead of {precision!r}, "
                "or load the model in another dtype"
            )
        self._dtype = tower.dtype
        has_triton = importlib.util.find_spec("triton") is not None
        run = FusedEncoder(tower) if has_triton else lambda pixels: tower._feature_maps(pixels)[-1]
        self._graphs = Graphs(run)
        logger.info("vision encoder in %s, %s kernels", own, "fused" if has_triton else "no triton: plain")

    def __reduce__(self) -> Any:
        """Copies and files begin without: graphs belong to this process."""
        return type(None), ()

    @torch.no_grad()
    def __call__(self, pixel_values: Tensor) -> Tensor:
        """Return the last stage's features (N, h, w, C) of images (N, 3, H, W)."""
        return self._graphs(pixel_values.to(self._dtype))


class FusedEncoder:
    """The encoder's forward pass with fused kernels."""

    def __init__(self, tower: Any) -> None:
        self._tower = tower

    def __call__(self, pixel_values: Tensor) -> Tensor:
        """Return the last stage's features (N, h, w, C)."""
        features = self._tower.embeddings(pixel_values)
        for stage in self._tower.encoder.stages:
            features = stage.downsample(features).contiguous()
            for layer in stage.layers:
                _block(layer, features)
        return features


def _block(layer: Any, features: Tensor) -> None:
    """Run one block on features (N, H, W, C), which are changed in place."""
    from .triton_kernels import bias_gelu_, depthwise_norm, scale_and_add_

    convolution, norm = layer.dwconv, layer.layernorm
    hidden = depthwise_norm(features, convolution.weight, convolution.bias, norm.weight, norm.bias, norm.eps)
    if getattr(layer.act, "act", None) is F.gelu:
        hidden = bias_gelu_(F.linear(hidden, layer.pwconv1.weight), layer.pwconv1.bias)
    else:
        hidden = layer.act(layer.pwconv1(hidden))
    scale_and_add_(features, F.linear(hidden, layer.pwconv2.weight), layer.pwconv2.bias, layer.layer_scale_parameter)


class Graphs:
    """Runs a function of one tensor on a GPU, replaying what it recorded for shapes that come again.

    Args:
        run: Without branches on values, and without waiting for the GPU.
        record: For tests; by default a CUDA graph.
    """

    def __init__(
        self,
        run: Callable[[Tensor], Tensor],
        record: "Callable[[Callable[[Tensor], Tensor], Tensor], Any] | None" = None,
    ) -> None:
        self._run, self._record = run, record or Recording
        self._seen: OrderedDict[tuple[int, ...], int] = OrderedDict()
        self._recordings: OrderedDict[tuple[int, ...], Any] = OrderedDict()

    def __call__(self, inputs: Tensor) -> Tensor:
        """Return what the function returns, in memory of its own."""
        shape = tuple(inputs.shape)
        if shape in self._recordings:
            self._recordings.move_to_end(shape)
            return self._recordings[shape](inputs)
        self._seen[shape] = self._seen.pop(shape, 0) + 1
        if self._seen[shape] < WORTH_A_GRAPH:
            while len(self._seen) > 16 * MOST_GRAPHS:
                self._seen.popitem(last=False)
            return self._run(inputs)
        del self._seen[shape]
        if len(self._recordings) == MOST_GRAPHS:
            self._recordings.popitem(last=False)
        self._recordings[shape] = self._record(self._run, inputs)
        return self._recordings[shape](inputs)


class Recording:
    """A CUDA graph of a function at one shape, with the memory it reads from and writes to."""

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
        """Replay."""
        self._inputs.copy_(inputs)
        self._graph.replay()
        return self._outputs.clone()
