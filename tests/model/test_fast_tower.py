"""The encoder made ready for inference: values, where it applies and where it ends."""

import time
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import ConvNextConfig, ConvNextModel

from convllava.model import ConvLlavaVisionConfig, ConvLlavaVisionModel
from convllava.model import fast_tower as fast
from convllava.model.depthwise import is_native

SHAPES = [(1, 3, 128, 64), (2, 3, 97, 150)]
WAYS = ["plain", "packed", "fused"]


def _tower(**values: Any) -> ConvLlavaVisionModel:
    """An encoder whose weights all matter."""
    config = ConvLlavaVisionConfig(depths=[1, 1, 2, 1, 1], hidden_sizes=[16, 24, 32, 48, 64], **values)
    tower = ConvLlavaVisionModel(config).eval()
    for parameter in tower.parameters():
        torch.nn.init.normal_(parameter, mean=0.1, std=0.3)
    return tower


def _error(found: Tensor, exact: Tensor) -> float:
    return float((found.float() - exact).norm() / exact.norm())


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@torch.no_grad()
def test_float32_equals_the_plain_encoder(way: str, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fast, "CACHED_BYTES", 0)  # all stages in parts, the last one shorter
    monkeypatch.setattr(fast, "MIN_ROWS", 48)
    monkeypatch.setattr(fast, "ROWS_PER_THREAD", 1)
    monkeypatch.setattr(fast, "LARGER", 1)
    monkeypatch.setattr(fast, "WHOLE_BYTES", 0)
    tower, pixels = _tower(), torch.randn(shape)
    exact = tower(pixels).last_hidden_state
    found = fast.FastTower(tower, "float32", (128, 64), way=way)(pixels).permute(0, 3, 1, 2)
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
    for way in ["plain", "fused"] if is_native(torch.bfloat16) else ["plain"]:
        found = fast.FastTower(tower, "bfloat16", way=way)(pixels).permute(0, 3, 1, 2)
        assert found.dtype == torch.bfloat16
        assert _error(found, exact) < 1.2 * allowed


@torch.no_grad()
def test_int8_stays_close_and_differs() -> None:
    tower, pixels = _tower(), torch.randn(1, 3, 256, 192)
    exact = tower(pixels).last_hidden_state
    tower.optimize_for_inference("int8")
    found = tower(pixels).last_hidden_state
    assert 1e-5 < _error(found, exact) < 0.05


@torch.no_grad()
def test_one_switch_serves_both_forms_of_the_call() -> None:
    tower = _tower()
    pixels, sizes = torch.randn(2, 3, 130, 192), torch.tensor([(130, 70), (64, 192)])
    plain = [tower(pixels).last_hidden_state, tower(pixels, image_sizes=sizes).last_hidden_state]
    tower.optimize_for_inference("float32")
    assert tower._fast is not None
    quick = [tower(pixels).last_hidden_state, tower(pixels, image_sizes=sizes).last_hidden_state]
    for ours, exact in zip(quick, plain, strict=True):
        assert ours.shape == exact.shape
        assert torch.allclose(ours, exact, atol=1e-4 * float(exact.abs().max()))
    with pytest.raises(ValueError, match="smaller than one output cell"):
        tower(pixels[:, :, :63])


def test_gradients_take_the_plain_way() -> None:
    tower = _tower()
    tower.optimize_for_inference("float32")
    pixels = torch.randn(1, 3, 64, 64, requires_grad=True)
    tower(pixels).last_hidden_state.sum().backward()
    assert pixels.grad is not None


@pytest.mark.parametrize("end", ["train", "to", "load_state_dict", "load into a model around it"])
def test_it_ends_when_weights_may_change(end: str) -> None:
    tower = _tower()
    tower.optimize_for_inference("float32")
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
    assert tower._fast is None


@torch.no_grad()
def test_a_copy_begins_plain_and_the_weights_are_stored_as_ever() -> None:
    tower, pixels = _tower(), torch.randn(1, 3, 64, 64)
    names = set(tower.state_dict())
    tower.optimize_for_inference("float32")
    copy = deepcopy(tower)
    assert copy._fast is None
    assert set(tower.state_dict()) == names
    assert torch.allclose(copy(pixels).last_hidden_state, tower(pixels).last_hidden_state, atol=1e-2)


@torch.no_grad()
def test_an_unusual_activation_is_kept() -> None:
    tower, pixels = _tower(hidden_act="relu"), torch.randn(1, 3, 64, 128)
    exact = tower(pixels).last_hidden_state
    tower.optimize_for_inference("float32")
    assert torch.allclose(tower(pixels).last_hidden_state, exact, atol=1e-4 * float(exact.abs().max()))


def test_an_unknown_precision_is_named() -> None:
    with pytest.raises(ValueError, match="auto, float32, bfloat16, int8, got 'fp8'"):
        _tower().optimize_for_inference("fp8")
    with pytest.raises(ValueError, match="products are int8 here, got 'packed'"):
        fast.FastTower(_tower(), "int8", way="packed")


def test_parts_are_equal_and_small_maps_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fast, "ROWS_PER_THREAD", 1)
    assert fast.parts_to_try(256, 4 * 128 * 4) == [256]  # fits into a cache
    assert fast.parts_to_try(2304, 4 * 768 * 4) == [768, 2304]
    assert fast.parts_to_try(36864, 4 * 192 * 4) == [1024, 4096]  # as a whole it would take 113 MB
    assert fast.parts_to_try(16384, 4 * 32 * 4) == [1024, 4096, 16384]


def test_the_quickest_part_is_taken() -> None:
    class SlowToStart:
        """Takes as long for a small part as for a large one."""

        def __init__(self, layer: object, rows: int) -> None:
            pass

        def __call__(self, normed: Tensor, features: Tensor) -> None:
            time.sleep(0.005)

    layer = _tower().encoder.stages[0].layers[0]
    assert fast._fastest([(SlowToStart, 4), (SlowToStart, 16)], layer, 16) == (SlowToStart, 16)
