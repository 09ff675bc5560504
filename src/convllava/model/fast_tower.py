"""The vision encoder made ready for inference on a CPU: the same function in fewer passes over memory.

Three things make it faster than the plain encoder, and none of them changes what it computes, rounding aside:

- The pointwise half of a block runs on a part of the positions at a time. Its hidden layer is four times as wide as
  the block; as a whole it leaves the processor's caches between one operation and the next, in parts it does not.
- Weights are packed once, in the order in which the products read them.
- Features are updated in place.

Which products and how large a part are fastest depends on processor, width and dtype (and on how long sleeping threads
take to wake up: they do for every operation on every part), so a few are timed once for each stage. On request products
run on 8-bit integers; that does change the features, by one to three hundredths.
"""

import logging
import time
from collections.abc import Callable, Sequence
from copy import deepcopy
from itertools import product
from typing import Any, ClassVar, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .depthwise import depthwise_convolve, is_native

PRECISIONS = ("auto", "float32", "bfloat16", "int8")

USUAL_SIZE = (768, 768)
"""(height, width) for which an encoder is made ready unless somebody knows better."""

ROWS_PER_THREAD = 512
MIN_ROWS = 1024
"""Positions in a part, at least; with fewer the products are slower, by a tenth at 256."""

CACHED_BYTES = 4 << 20
"""A hidden layer of so many bytes is not parted: it stays in a cache as a whole."""

LARGER = 4
"""Times as many positions in the larger parts that are tried."""

WHOLE_BYTES = 64 << 20
"""A hidden layer of so many bytes is tried as a whole; larger ones would cost more memory than they are worth."""

TIMED_RUNS = 3

TIMED_PARTS = 8
"""Of the smallest kind: so many positions are enough to time them all."""

logger = logging.getLogger(__name__)


class Products(Protocol):
    """The two products of a block and what lies between and behind them."""

    name: ClassVar[str]

    def __call__(self, normed: Tensor, features: Tensor) -> None:
        """Add the block's result for normed features (P, C) to features (P, C), in place."""


class PlainProducts:
    """Ordinary linear layers; holds no weights of its own."""

    name = "plain"

    def __init__(self, layer: Any, rows: int) -> None:
        self._layer = layer

    def __call__(self, normed: Tensor, features: Tensor) -> None:
        """See `Products`."""
        layer = self._layer
        hidden = _activate(layer.act, layer.pwconv1(normed))
        features.addcmul_(layer.pwconv2(hidden), layer.layer_scale_parameter)


class PackedProducts:
    """Weights packed by MKL for parts of so many rows; a shorter last part takes the ordinary product."""

    name = "packed"

    def __init__(self, layer: Any, rows: int) -> None:
        self._layer, self._rows = layer, rows
        pack = torch.ops.mkl._mkl_reorder_linear_weight
        self._first, self._second = pack(layer.pwconv1.weight, rows), pack(layer.pwconv2.weight, rows)

    def __call__(self, normed: Tensor, features: Tensor) -> None:
        """See `Products`."""
        layer, linear = self._layer, torch.ops.mkl._mkl_linear
        hidden = linear(normed, self._first, layer.pwconv1.weight, layer.pwconv1.bias, self._rows)
        hidden = _activate(layer.act, hidden)
        hidden = linear(hidden, self._second, layer.pwconv2.weight, layer.pwconv2.bias, self._rows)
        features.addcmul_(hidden, layer.layer_scale_parameter)


class FusedProducts:
    """oneDNN's products: packed weights, GELU and residual inside them, layer scale folded into the weights."""

    name = "fused"

    def __init__(self, layer: Any, rows: int) -> None:
        pack, scale = torch.ops.mkldnn._reorder_linear_weight, layer.layer_scale_parameter
        self._first, self._first_bias = pack(layer.pwconv1.weight, rows), layer.pwconv1.bias
        self._second = pack(layer.pwconv2.weight * scale[:, None], rows)
        self._second_bias = layer.pwconv2.bias * scale

    def __call__(self, normed: Tensor, features: Tensor) -> None:
        """See `Products`."""
        linear = torch.ops.mkldnn._linear_pointwise
        hidden = linear(normed, self._first, self._first_bias, "gelu", [], "none")
        features.copy_(linear.binary(hidden, features, self._second, self._second_bias, "add"))


class Int8Products:
    """Products of 8-bit integers: weights with a scale for each output, activations with one for each part."""

    name = "int8"

    def __init__(self, layer: Any, rows: int) -> None:
        self._layer = layer
        self._first = _Int8Linear(layer.pwconv1.weight, layer.pwconv1.bias, rows)
        scale = layer.layer_scale_parameter
        self._second = _Int8Linear(layer.pwconv2.weight * scale[:, None], layer.pwconv2.bias * scale, rows)

    def __call__(self, normed: Tensor, features: Tensor) -> None:
        """See `Products`."""
        features.add_(self._second(_activate(self._layer.act, self._first(normed))))


class _Int8Linear:
    """A linear layer on 8-bit integers, float32 outside."""

    def __init__(self, weight: Tensor, bias: Tensor, rows: int) -> None:
        largest = weight.abs().amax(dim=1).clamp(min=torch.finfo(weight.dtype).tiny)
        self._scales = largest / 127
        self._zeros = torch.zeros(len(weight), dtype=torch.int64)
        levels = (weight / self._scales[:, None]).round().clamp(-127, 127).to(torch.int8)
        self._levels = torch.ops.onednn.qlinear_prepack(levels, [rows, weight.shape[1]])
        self._bias = bias.clone()
        self._highest = _highest_level()

    def __call__(self, values: Tensor) -> Tensor:
        """Multiply values (P, C)."""
        low, high = (float(bound) for bound in torch.aminmax(values))
        low, high = min(low, 0.0), max(high, 0.0)  # zero has a level of its own
        # one level less than there are: rounding zero to its level moves the others by up to a half
        scale = max((high - low) / (self._highest - 1), 1e-30)
        zero = round(-low / scale)
        # all levels are positive, so that cutting off the fraction, a half added, is rounding
        levels = torch.add(torch.tensor(zero + 0.5), values, alpha=1 / scale).to(torch.uint8)
        return torch.ops.onednn.qlinear_pointwise(
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


def _highest_level() -> int:
    """Return the highest level of an activation: without VNNI, sums of two 8-bit products overflow their 16 bits."""
    return 255 if torch.cpu._is_vnni_supported() else 127


class FastTower:
    """A vision encoder ready for inference.

    Args:
        tower: The plain encoder; its weights are used, so it must keep them.
        precision: One of `PRECISIONS`.
        size: (height, width) of the images that are expected most often; others work too.
        way: The products to use; None measures which are fastest.

    Raises:
        ValueError: The precision is unknown, or this processor or model cannot do it.
    """

    def __init__(
        self, tower: Any, precision: str = "auto", size: tuple[int, int] = USUAL_SIZE, way: str | None = None
    ) -> None:
        if precision not in PRECISIONS:
            raise ValueError(f"precision is one of {', '.join(PRECISIONS)}, got {precision!r}")
        self.precision = fastest_precision() if precision == "auto" else precision
        self.dtype = torch.bfloat16 if self.precision == "bfloat16" else torch.float32
        # a copy has no fast form of its own; see __reduce__
        self._tower = tower if tower.dtype == self.dtype else deepcopy(tower).to(self.dtype)
        self.ways: list[str] = []
        self._products: list[list[Products]] = []
        self._rows: list[int] = []
        with torch.no_grad():
            self._prepare(size, way)
        logger.info("vision encoder in %s: products of the stages %s", self.precision, ", ".join(self.ways))

    def __reduce__(self) -> Any:
        """Copies and files begin without: packed weights belong to this process."""
        return type(None), ()

    @torch.no_grad()
    def __call__(self, pixel_values: Tensor) -> Tensor:
        """Return the last stage's features (N, h, w, C) of images (N, 3, H, W)."""
        features = self._tower.embeddings(pixel_values.to(self.dtype))
        for stage, products, rows in zip(self._tower.encoder.stages, self._products, self._rows, strict=True):
            features = stage.downsample(features).contiguous()
            for layer, own in zip(stage.layers, products, strict=True):
                convolved = depthwise_convolve(layer.dwconv, features.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
                _pointwise(layer.layernorm, own, convolved.flatten(0, 2), features.flatten(0, 2), rows)
        return features

    def _prepare(self, size: tuple[int, int], way: str | None) -> None:
        positions = max(1, size[0] // 4 * (size[1] // 4))
        for stage in self._tower.encoder.stages:
            width = stage.layers[0].layer_scale_parameter.numel()
            kinds = _kinds(stage.layers[0].act, self.precision)
            if way is not None:
                kinds = [_named(kinds, way)]
            parts = parts_to_try(positions, 4 * width * self.dtype.itemsize)
            kind, rows = _fastest(list(product(kinds, parts)), stage.layers[0], min(positions, TIMED_PARTS * parts[0]))
            self.ways.append(kind.name)
            self._rows.append(rows)
            self._products.append([kind(layer, rows) for layer in stage.layers])
            positions = max(1, positions // 4)


def fastest_precision() -> str:
    """Return bfloat16 where the processor multiplies it, else float32."""
    amx = bool(getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)())
    return "bfloat16" if amx or torch.cpu._is_avx512_bf16_supported() else "float32"


def parts_to_try(positions: int, hidden_bytes: int) -> list[int]:
    """Return how many positions may run at a time, fewest first: all, or equal parts of at most one or four thousand.

    Args:
        positions: Of an image.
        hidden_bytes: Of one position's hidden layer.
    """
    if positions * hidden_bytes <= CACHED_BYTES:
        return [positions]
    most = max(MIN_ROWS, ROWS_PER_THREAD * torch.get_num_threads())
    found = {_equal_part(positions, most), _equal_part(positions, LARGER * most)}
    if positions * hidden_bytes <= WHOLE_BYTES:
        found.add(positions)
    return sorted(found)


def _equal_part(positions: int, most: int) -> int:
    return -(-positions // -(-positions // most))


def _pointwise(norm: Any, products: Products, convolved: Tensor, features: Tensor, rows: int) -> None:
    """Run the second half of a block on (P, C), part by part; features are changed in place."""
    for start in range(0, len(features), rows):
        part = slice(start, start + rows)
        normed = F.layer_norm(convolved[part], norm.normalized_shape, norm.weight, norm.bias, norm.eps)
        products(normed, features[part])


def _activate(activation: nn.Module, values: Tensor) -> Tensor:
    """Apply the activation, in place if it is the usual one."""
    return torch.ops.aten.gelu_(values) if _is_gelu(activation) else activation(values)


def _is_gelu(activation: nn.Module) -> bool:
    if isinstance(activation, nn.GELU):
        return activation.approximate == "none"
    return getattr(activation, "act", None) is F.gelu  # transformers' own class


def _kinds(activation: nn.Module, precision: str) -> list[Callable[[Any, int], Products] | Any]:
    """Return the products that this processor can do."""
    if precision == "int8":
        if not torch.backends.mkldnn.is_available():
            raise ValueError("int8 needs a torch with oneDNN: take float32")
        return [Int8Products]
    kinds: list[Any] = [PlainProducts]
    if not _is_gelu(activation):
        return kinds
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    if dtype == torch.float32 and torch.backends.mkl.is_available() and hasattr(torch.ops.mkl, "_mkl_linear"):
        kinds.append(PackedProducts)
    if torch.backends.mkldnn.is_available() and is_native(dtype):
        kinds.append(FusedProducts)
    return kinds


def _named(kinds: Sequence[Any], way: str) -> Any:
    for kind in kinds:
        if kind.name == way:
            return kind
    raise ValueError(f"products are {', '.join(kind.name for kind in kinds)} here, got {way!r}")


def _fastest(ways: Sequence[tuple[Any, int]], layer: Any, positions: int) -> tuple[Any, int]:
    """Time the second half of one block on so many positions; return the quickest kind of products and its part."""
    if len(ways) == 1:
        return ways[0]
    weight = layer.pwconv1.weight
    convolved = torch.randn(positions, weight.shape[1], dtype=weight.dtype)
    features = torch.zeros_like(convolved)
    candidates = {way: way[0](layer, way[1]) for way in ways}
    seconds = dict.fromkeys(ways, float("inf"))
    for _ in range(TIMED_RUNS + 1):  # in turns; the first run warms up, and the best of the others counts
        for way, products in candidates.items():
            started = time.perf_counter()
            _pointwise(layer.layernorm, products, convolved, features, way[1])
            seconds[way] = min(seconds[way], time.perf_counter() - started)
    return min(ways, key=lambda way: seconds[way])
