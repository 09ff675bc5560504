"""The CPU backends: values, when they serve and when they end."""

import pickle
import time
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import ConvNextConfig, ConvNextModel

from convllava.model import ConvLlavaVisionConfig, ConvLlavaVisionModel
from convllava.model.acceleration import cpu
from convllava.model.depthwise import is_native

SHAPES = [(1, 3, 128, 64), (2, 3, 97, 150)]
PRODUCTS = ["plain", "packed", "fused"]


def _tower(**values: Any) -> ConvLlavaVisionModel:
    """Return an encoder in which every weight changes the features."""
    config = ConvLlavaVisionConfig(depths=[1, 1, 2, 1, 1], hidden_sizes=[16, 24, 32, 48, 64], **values)
    tower = ConvLlavaVisionModel(config).eval()
    for parameter in tower.parameters():
        torch.nn.init.normal_(parameter, mean=0.1, std=0.3)
    return tower


def _error(found: Tensor, exact: Tensor) -> float:
    return float((found.float() - exact).norm() / exact.norm())


@pytest.mark.parametrize("products", PRODUCTS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@torch.no_grad()
def test_float32_equals_the_eager_encoder(
    products: str, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu, "CACHED_BYTES", 0)  # all stages in chunks, the last one shorter
    monkeypatch.setattr(cpu, "MIN_POSITIONS", 48)
    monkeypatch.setattr(cpu, "POSITIONS_PER_THREAD", 1)
    monkeypatch.setattr(cpu, "LARGE_CHUNK_FACTOR", 1)
    monkeypatch.setattr(cpu, "MAX_UNSPLIT_BYTES", 0)
    tower, pixels = _tower(), torch.randn(shape)
    exact = tower(pixels).last_hidden_state
    found = cpu.CpuEncoder(tower, "float32", (128, 64), products)(pixels).permute(0, 3, 1, 2)
    assert found.shape == exact.shape
    assert (found - exact).abs().max() < 1e-4 * exact.abs().max()


@torch.no_grad()
def test_bfloat16_is_as_good_as_transformers_own() -> None:
    tower, pixels = _tower(), torch.randn(1, 3, 128, 192)
    exact = tower(pixels).last_hidden_state
    theirs = ConvNextModel(
        ConvNextConfig(num_stages=5, depths=tower.config.depths, hidden_sizes=tower.config.hidden_sizes)
    ).eval()
    theirs.load_state_dict(tower.state_dict(), strict=False)
    theirs = theirs.to(torch.bfloat16)
    allowed = _error(theirs(pixels.bfloat16()).last_hidden_state, exact)
    for products in ["plain", "fused"] if is_native(torch.bfloat16) else ["plain"]:
        backend = cpu.CpuEncoder(tower, "bfloat16", products=products)
        found = backend(pixels).permute(0, 3, 1, 2)
        assert backend.dtype == torch.bfloat16
        assert found.dtype == tower.dtype
        assert torch.equal(found, found.bfloat16().float())
        assert _error(found, exact) < 1.2 * allowed


@torch.no_grad()
def test_int8_stays_close_and_differs() -> None:
    tower, pixels = _tower(), torch.randn(1, 3, 256, 192)
    exact = tower(pixels).last_hidden_state
    tower.set_backend("cpu-int8")
    found = tower(pixels).last_hidden_state
    assert 1e-5 < _error(found, exact) < 0.05


@torch.no_grad()
def test_a_backend_serves_both_forms_of_the_call() -> None:
    tower = _tower()
    pixels, sizes = torch.randn(2, 3, 130, 192), torch.tensor([(130, 70), (64, 192)])
    eager = [tower(pixels).last_hidden_state, tower(pixels, image_sizes=sizes).last_hidden_state]
    tower.set_backend("cpu-float32")
    assert tower.backend is not None and tower.backend.name == "cpu-float32"
    quick = [tower(pixels).last_hidden_state, tower(pixels, image_sizes=sizes).last_hidden_state]
    for ours, exact in zip(quick, eager, strict=True):
        assert ours.shape == exact.shape
        assert torch.allclose(ours, exact, atol=1e-4 * float(exact.abs().max()))
    with pytest.raises(ValueError, match="smaller than one visual token"):
        tower(pixels[:, :, :63])


def test_gradients_are_computed_eagerly() -> None:
    tower = _tower()
    tower.set_backend("cpu-float32")
    pixels = torch.randn(1, 3, 64, 64, requires_grad=True)
    tower(pixels).last_hidden_state.sum().backward()
    assert pixels.grad is not None


@pytest.mark.parametrize("end", ["train", "to", "load_state_dict", "load the model around it"])
def test_a_backend_ends_when_weights_may_change(end: str) -> None:
    tower = _tower()
    tower.set_backend("cpu-float32")
    match end:
        case "train":
            tower.train()
        case "to":
            tower.to(torch.float64)
        case "load_state_dict":
            tower.load_state_dict(tower.state_dict())
        case _:
            around = torch.nn.Sequential(tower)
            around.load_state_dict(around.state_dict())
    assert tower.backend is None


@torch.no_grad()
def test_a_copy_is_eager_and_the_names_of_the_weights_stay() -> None:
    tower, pixels = _tower(), torch.randn(1, 3, 64, 64)
    names = set(tower.state_dict())
    tower.set_backend("cpu-float32")
    copy = deepcopy(tower)
    assert copy.backend is None
    assert pickle.loads(pickle.dumps(tower)).backend is None
    assert tower.backend is not None
    assert set(tower.state_dict()) == names
    assert torch.allclose(copy(pixels).last_hidden_state, tower(pixels).last_hidden_state, atol=1e-2)


@torch.no_grad()
def test_another_activation_is_kept() -> None:
    tower, pixels = _tower(hidden_act="relu"), torch.randn(1, 3, 64, 128)
    exact = tower(pixels).last_hidden_state
    tower.set_backend("cpu-float32")
    assert torch.allclose(tower(pixels).last_hidden_state, exact, atol=1e-4 * float(exact.abs().max()))


def test_an_unknown_backend_is_named() -> None:
    names = "eager, auto, cpu-float32, cpu-bfloat16, cpu-int8, cuda, triton"
    with pytest.raises(ValueError, match=f"backend is 'fp8': choose one of {names}"):
        _tower().set_backend("fp8")
    with pytest.raises(ValueError, match="products 'packed' are not available here: choose one of int8"):
        cpu.CpuEncoder(_tower(), "int8", products="packed")


def test_chunks_are_equal_and_small_maps_are_not_split(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "POSITIONS_PER_THREAD", 1)
    assert cpu.chunk_sizes_to_try(256, 4 * 128 * 4) == [256]  # fits into a cache
    assert cpu.chunk_sizes_to_try(2304, 4 * 768 * 4) == [768, 2304]
    assert cpu.chunk_sizes_to_try(36864, 4 * 192 * 4) == [1024, 4096]  # unsplit it would take 113 MB
    assert cpu.chunk_sizes_to_try(16384, 4 * 32 * 4) == [1024, 4096, 16384]


def test_the_fastest_chunk_size_is_taken() -> None:
    class SlowToStart:
        """Takes as long for a small chunk as for a large one."""

        def __init__(self, layer: object, chunk_size: int) -> None:
            pass

        def __call__(self, normed: Tensor, features: Tensor) -> None:
            time.sleep(0.005)

    layer = _tower().encoder.stages[0].layers[0]
    assert cpu.fastest_products([(SlowToStart, 4), (SlowToStart, 16)], layer, 16) == (SlowToStart, 16)


class CountingBackend:
    """Counts the images that it encodes eagerly."""

    name = "counting"

    def __init__(self, tower: ConvLlavaVisionModel, for_training: bool) -> None:
        self.tower, self.for_training = tower, for_training
        self.count, self.is_closed = 0, False

    def __call__(self, pixel_values: Tensor) -> Tensor:
        self.count += len(pixel_values)
        return self.tower.feature_maps(pixel_values)[-1]

    def close(self) -> None:
        self.is_closed = True


def test_a_backend_for_training_serves_gradients_and_stays_until_it_is_replaced() -> None:
    tower, pixels = _tower(), torch.randn(2, 3, 64, 64)
    backend = CountingBackend(tower, for_training=True)
    tower.set_backend(backend)
    tower.train()
    tower.load_state_dict(tower.state_dict())
    tower.to(torch.float32)(pixels).last_hidden_state.sum().backward()
    assert backend.count == 2 and tower.training
    assert deepcopy(tower).backend is not None
    tower.set_backend("eager")
    assert backend.is_closed and tower.backend is None


def test_a_backend_for_inference_of_ones_own() -> None:
    tower, pixels = _tower(), torch.randn(2, 3, 64, 64)
    backend = CountingBackend(tower, for_training=False)
    tower.train()
    tower.set_backend(backend)
    assert not tower.training
    tower(pixels)
    assert backend.count == 0
    with torch.no_grad():
        tower(pixels)
    assert backend.count == 2
    tower.train()
    assert backend.is_closed and tower.backend is None
