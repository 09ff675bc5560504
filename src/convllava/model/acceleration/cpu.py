"""Inference of the vision encoder on a CPU: the same function in fewer passes over memory.

Three changes make it faster than the eager encoder; apart from rounding, none changes the result:

- The pointwise half of a block runs on a chunk of positions at a time. Its hidden layer is four times as wide as the
  block; computed for all positions at once it leaves the processor's caches between two operations, in chunks it stays.
- Weights are packed once, in the order in which the products read them.
- Features are updated in place.

Which products and which chunk size are fastest depends on processor, width, dtype and number of threads, so a few are
timed once for each stage. Int8 products are used on request only; they change the features by one to three hundredths.

Shapes: N images of H x W pixels, feature maps (N, h, w, C), P = N * h * w positions.
"""

import logging
import time
from collections.abc import Iterable, Sequence
from copy import deepcopy
from itertools import product
from typing import Any, ClassVar, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...compat import (
    cpu_has_vnni,
    cpu_multiplies_bfloat16,
    gelu_in_place,
    mkl_linear,
    onednn_int8_linear,
    onednn_linear,
)
from ..depthwise import depthwise_convolve, is_native
from ..vision_convllava import ConvLlavaVisionLayer, ConvLlavaVisionModel

DEFAULT_SIZE = (768, 768)
"""(height, width) that the backend is tuned for where no size is given."""

POSITIONS_PER_THREAD = 512
MIN_POSITIONS = 1024
"""Positions in a chunk, at least; with fewer the products are slower, by a tenth at 256."""

CACHED_BYTES = 4 << 20
"""Size up to which a hidden layer is not split into chunks, since all of it stays in a cache."""

LARGE_CHUNK_FACTOR = 4
"""Ratio of the larger chunk size that is timed to the smaller one."""

MAX_UNSPLIT_BYTES = 64 << 20
"""Size up to which a hidden layer is also timed without chunks; above, the memory costs more than it gains."""

TIMED_RUNS = 3

TIMED_CHUNKS = 8
"""Chunks of the smallest size whose positions suffice to time all candidates."""

logger = logging.getLogger(__name__)


class Products(Protocol):
    """The two products of a block, the activation between them, layer scale and residual."""

    name: ClassVar[str]

    def __call__(self, normed: Tensor, features: Tensor) -> None:
        """Add the block's result for normed features (P, C) to features (P, C), in place."""


class PlainProducts:
    """Ordinary linear layers on the layer's own weights."""

    name = "plain"

    def __init__(self, layer: ConvLlavaVisionLayer, chunk_size: int) -> None:
        self._layer = layer

    def __call__(self, normed: Tensor, features: Tensor) -> None:
        """Implement `Products`."""
        layer = self._layer
        hidden = _activate(layer.act, layer.pwconv1(normed))
        features.addcmul_(layer.pwconv2(hidden), layer.layer_scale_parameter)


class PackedProducts:
    """Weights packed by MKL for one chunk size; a shorter last chunk takes the ordinary product."""

    name = "packed"

    def __init__(self, layer: ConvLlavaVisionLayer, chunk_size: int) -> None:
        operations = mkl_linear()
        if operations is None:  # otherwise not among the candidates
            raise ValueError("this build of torch has no packed products of MKL: use the plain ones")
        pack, self._linear = operations
        self._layer, self._chunk_size = layer, chunk_size
        self._first, self._second = pack(layer.pwconv1.weight, chunk_size), pack(layer.pwconv2.weight, chunk_size)

    def __call__(self, normed: Tensor, features: Tensor) -> None:
        """Implement `Products`."""
        layer, linear = self._layer, self._linear
        hidden = linear(normed, self._first, layer.pwconv1.weight, layer.pwconv1.bias, self._chunk_size)
        hidden = _activate(layer.act, hidden)
        hidden = linear(hidden, self._second, layer.pwconv2.weight, layer.pwconv2.bias, self._chunk_size)
        features.addcmul_(hidden, layer.layer_scale_parameter)


class FusedProducts:
    """oneDNN's products: packed weights, GELU and residual inside them, layer scale folded into the weights."""

    name = "fused"

    def __init__(self, layer: ConvLlavaVisionLayer, chunk_size: int) -> None:
        (pack, self._linear), scale = onednn_linear(), layer.layer_scale_parameter
        self._first, self._first_bias = pack(layer.pwconv1.weight, chunk_size), layer.pwconv1.bias
        self._second = pack(layer.pwconv2.weight * scale[:, None], chunk_size)
        self._second_bias = layer.pwconv2.bias * scale

    def __call__(self, normed: Tensor, features: Tensor) -> None:
        """Implement `Products`."""
        linear = self._linear
        hidden = linear(normed, self._first, self._first_bias, "gelu", [], "none")
        features.copy_(linear.binary(hidden, features, self._second, self._second_bias, "add"))


class Int8Products:
    """Products of 8-bit integers: weights with a scale for each output, activations with one for each chunk."""

    name = "int8"

    def __init__(self, layer: ConvLlavaVisionLayer, chunk_size: int) -> None:
        self._layer = layer
        self._first = _Int8Linear(layer.pwconv1.weight, layer.pwconv1.bias, chunk_size)
        scale = layer.layer_scale_parameter
        self._second = _Int8Linear(layer.pwconv2.weight * scale[:, None], layer.pwconv2.bias * scale, chunk_size)

    def __call__(self, normed: Tensor, features: Tensor) -> None:
        """Implement `Products`."""
        features.add_(self._second(_activate(self._layer.act, self._first(normed))))


class _Int8Linear:
    """A linear layer that multiplies 8-bit integers; inputs and outputs are float32."""

    def __init__(self, weight: Tensor, bias: Tensor, chunk_size: int) -> None:
        pack, self._linear = onednn_int8_linear()
        largest = weight.abs().amax(dim=1).clamp(min=torch.finfo(weight.dtype).tiny)
        self._scales = largest / 127
        self._zeros = torch.zeros(len(weight), dtype=torch.int64)
        levels = (weight / self._scales[:, None]).round().clamp(-127, 127).to(torch.int8)
        self._levels = pack(levels, [chunk_size, weight.shape[1]])
        self._bias = bias.clone()
        self._highest = _highest_level()

    def __call__(self, values: Tensor) -> Tensor:
        """Return the products (P, outputs) of values (P, inputs)."""
        low, high = (float(bound) for bound in torch.aminmax(values))
        low, high = min(low, 0.0), max(high, 0.0)  # zero must be exactly one of the levels
        # one level fewer than there are: rounding zero to its level moves the others by up to half a level
        scale = max((high - low) / (self._highest - 1), 1e-30)
        zero = round(-low / scale)
        # levels are not negative, so that truncation after adding 0.5 rounds to the nearest
        levels = torch.add(torch.tensor(zero + 0.5), values, alpha=1 / scale).to(torch.uint8)
        output: Tensor = self._linear(
            levels,
            scale,
            zero,
            self._levels,
            self._scales,
            self._zeros,
            self._bias,
            1.0,
            0,
            torch.float32,
            "none",
            [],
            "",
        )
        return output


def _highest_level() -> int:
    """Return the highest level of an activation: without VNNI, sums of two 8-bit products overflow 16 bits."""
    return 255 if cpu_has_vnni() else 127


class CpuEncoder:
    """Backend "cpu-float32", "cpu-bfloat16" or "cpu-int8".

    Args:
        tower: The eager encoder, on the CPU; its weights are used, so it must keep them.
        precision: "float32", "bfloat16" or "int8".
        size: (height, width) of the images that are expected most often; others work too.
        products: Name of the products to use in all stages; by default the fastest of each stage are measured.

    Raises:
        ValueError: This processor or model cannot run the precision or the products.
    """

    for_training = False

    def __init__(
        self,
        tower: ConvLlavaVisionModel,
        precision: str,
        size: tuple[int, int] = DEFAULT_SIZE,
        products: str | None = None,
    ) -> None:
        self.name = f"cpu-{precision}"
        self.precision = precision
        self.dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
        self._output_dtype = tower.dtype
        self._tower = tower if tower.dtype == self.dtype else deepcopy(tower).to(self.dtype)
        self.products: list[str] = []  # names, one for each stage
        self._products: list[list[Products]] = []
        self._chunk_sizes: list[int] = []
        with torch.no_grad():
            self._prepare(size, products)
        logger.info("vision encoder in %s: products of the stages %s", precision, ", ".join(self.products))

    @torch.no_grad()
    def __call__(self, pixel_values: Tensor) -> Tensor:
        """Return the last stage's features (N, h, w, C) of images (N, 3, H, W)."""
        features = self._tower.embeddings(pixel_values.to(self.dtype))
        for stage, products, chunk_size in zip(
            self._tower.encoder.stages, self._products, self._chunk_sizes, strict=True
        ):
            features = stage.downsample(features).contiguous()
            for layer, layer_products in zip(stage.layers, products, strict=True):
                convolved = depthwise_convolve(layer.dwconv, features.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
                _pointwise(layer.layernorm, layer_products, convolved.flatten(0, 2), features.flatten(0, 2), chunk_size)
        return features.to(self._output_dtype)

    def close(self) -> None:
        """Do nothing: the encoder is unchanged."""

    def _prepare(self, size: tuple[int, int], name: str | None) -> None:
        positions = max(1, size[0] // 4 * (size[1] // 4))
        stages: Iterable[Any] = self._tower.encoder.stages
        for stage in stages:
            width = stage.layers[0].layer_scale_parameter.numel()
            builders = _available_products(stage.layers[0].act, self.precision)
            if name is not None:
                builders = [_named(builders, name)]
            chunk_sizes = chunk_sizes_to_try(positions, 4 * width * self.dtype.itemsize)
            timed = min(positions, TIMED_CHUNKS * chunk_sizes[0])
            builder, chunk_size = fastest_products(list(product(builders, chunk_sizes)), stage.layers[0], timed)
            self.products.append(builder.name)
            self._chunk_sizes.append(chunk_size)
            self._products.append([builder(layer, chunk_size) for layer in stage.layers])
            positions = max(1, positions // 4)


def fastest_precision() -> str:
    """Return bfloat16 where the processor multiplies it, else float32."""
    return "bfloat16" if cpu_multiplies_bfloat16() else "float32"


def chunk_sizes_to_try(positions: int, hidden_bytes: int) -> list[int]:
    """Return numbers of positions to compute at a time: all, or equal chunks of at most one or four thousand.

    Args:
        positions: Positions of one image.
        hidden_bytes: Bytes of one position's hidden layer.

    Returns:
        Chunk sizes, smallest first.
    """
    if positions * hidden_bytes <= CACHED_BYTES:
        return [positions]
    most = max(MIN_POSITIONS, POSITIONS_PER_THREAD * torch.get_num_threads())
    found = {_equal_chunk(positions, most), _equal_chunk(positions, LARGE_CHUNK_FACTOR * most)}
    if positions * hidden_bytes <= MAX_UNSPLIT_BYTES:
        found.add(positions)
    return sorted(found)


def _equal_chunk(positions: int, most: int) -> int:
    return -(-positions // -(-positions // most))


def _pointwise(norm: nn.LayerNorm, products: Products, convolved: Tensor, features: Tensor, chunk_size: int) -> None:
    """Run the pointwise half of a block, chunk by chunk: convolved (P, C) is added to features (P, C) in place."""
    for start in range(0, len(features), chunk_size):
        chunk = slice(start, start + chunk_size)
        normed = F.layer_norm(convolved[chunk], norm.normalized_shape, norm.weight, norm.bias, norm.eps)
        products(normed, features[chunk])


def _activate(activation: nn.Module, values: Tensor) -> Tensor:
    """Return activated values (P, 4 * C), in place if the activation is GELU."""
    return gelu_in_place(values) if _is_gelu(activation) else activation(values)


def _is_gelu(activation: nn.Module) -> bool:
    if isinstance(activation, nn.GELU):
        return activation.approximate == "none"
    return getattr(activation, "act", None) is F.gelu  # transformers' own class


def _available_products(activation: nn.Module, precision: str) -> list[Any]:
    """Return the classes of products that this processor can run."""
    if precision == "int8":
        if not torch.backends.mkldnn.is_available():
            raise ValueError("cpu-int8 needs a torch with oneDNN: use cpu-float32")
        return [Int8Products]
    found: list[Any] = [PlainProducts]
    if not _is_gelu(activation):
        return found
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    if dtype == torch.float32 and mkl_linear() is not None:
        found.append(PackedProducts)
    if torch.backends.mkldnn.is_available() and is_native(dtype):
        found.append(FusedProducts)
    return found


def _named(available: Sequence[Any], name: str) -> Any:
    for products in available:
        if products.name == name:
            return products
    names = ", ".join(products.name for products in available)
    raise ValueError(f"products {name!r} are not available here: choose one of {names}")


def fastest_products(
    candidates: Sequence[tuple[Any, int]], layer: ConvLlavaVisionLayer, positions: int
) -> tuple[Any, int]:
    """Time the pointwise half of one block at ``positions``; return the fastest products and chunk size."""
    if len(candidates) == 1:
        return candidates[0]
    weight = layer.pwconv1.weight
    convolved = torch.randn(positions, weight.shape[1], dtype=weight.dtype)
    features = torch.zeros_like(convolved)
    built = {candidate: candidate[0](layer, candidate[1]) for candidate in candidates}
    seconds = dict.fromkeys(candidates, float("inf"))
    for _ in range(TIMED_RUNS + 1):  # interleaved; the best run counts, and the first warms up
        for candidate, products in built.items():
            started = time.perf_counter()
            _pointwise(layer.layernorm, products, convolved, features, candidate[1])
            seconds[candidate] = min(seconds[candidate], time.perf_counter() - started)
    return min(candidates, key=lambda candidate: seconds[candidate])
