"""Packed rows: every sample once, none seeing another, the loss and the gradients of the samples side by side."""

from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from tiny import tiny_model

from convllava.data.batching import Collator, encode_sample
from convllava.data.packing import PackingCollator, fill_bins
from convllava.data.samples import Sample, assistant_message, user_message

MODEL, PROCESSOR = tiny_model()


def _row(number: int, *sizes: tuple[int, int], words: int = 1) -> dict[str, Any]:
    images = tuple(Image.effect_noise(size, 90 + number).convert("RGB") for size in sizes)
    messages = [user_message(f"Question {number}?", len(sizes)), assistant_message("yes " * words)]
    return encode_sample(Sample(str(number), images, messages), PROCESSOR, 512)


ROWS = [
    _row(0, (64, 64), words=7),
    _row(1),
    _row(2, (128, 64), (64, 128), words=3),
    _row(3, words=12),
    _row(4, (192, 64)),
]


def _loss_and_gradients(batch: dict[str, Any]) -> tuple[float, dict[str, torch.Tensor]]:
    MODEL.zero_grad()
    inputs = {key: value for key, value in batch.items() if isinstance(value, torch.Tensor)}
    loss = MODEL(**inputs, use_cache=False, num_items_in_batch=10).loss
    loss.backward()
    return loss.item(), {name: weight.grad.clone() for name, weight in MODEL.named_parameters()}


def test_packed_loss_and_gradients_equal_unpacked() -> None:
    side_by_side = Collator(0)(ROWS)
    packed = PackingCollator(Collator(0))(ROWS)
    assert len(packed["input_ids"]) < len(ROWS)
    assert packed["input_ids"].shape[1] == side_by_side["input_ids"].shape[1]
    loss, gradients = _loss_and_gradients(side_by_side)
    packed_loss, packed_gradients = _loss_and_gradients(packed)
    assert packed_loss == pytest.approx(loss, rel=1e-5)
    for name, gradient in gradients.items():
        torch.testing.assert_close(packed_gradients[name], gradient, rtol=1e-3, atol=1e-5, msg=name)


def test_a_sample_does_not_see_the_one_before_it() -> None:
    """Another neighbor leaves every logit of a sample as it was."""

    def logits_of_last(first: dict[str, Any]) -> torch.Tensor:
        batch = PackingCollator(Collator(0))([first, ROWS[1], long])
        inputs = {key: value for key, value in batch.items() if isinstance(value, torch.Tensor) and key != "labels"}
        length = len(ROWS[1]["input_ids"])
        first_length = len(first["input_ids"])
        assert inputs["input_ids"].shape == (2, len(long["input_ids"])), "the two share a row"
        with torch.no_grad():
            return MODEL(**inputs, use_cache=False).logits[1, first_length : first_length + length]

    one, other, long = _row(5, (64, 64), words=9), _row(6, words=11), _row(7, words=60)
    torch.testing.assert_close(logits_of_last(one), logits_of_last(other), rtol=0, atol=1e-5)


def _lengths_of_samples(packed: dict[str, Any]) -> list[int]:
    """Measure from one position 0 to the next, and leave out what pads the end of a row."""
    found = []
    for positions, labels in zip(packed["position_ids"], packed["labels"], strict=True):
        starts = [*(positions == 0).nonzero().flatten().tolist(), len(positions)]
        spans = [slice(first, last) for first, last in pairwise(starts)]
        found += [span.stop - span.start for span in spans if bool((labels[span] != -100).any())]
    return found


def test_what_a_packed_batch_holds() -> None:
    packed = PackingCollator(Collator(0))(ROWS)
    assert "attention_mask" not in packed
    assert sorted(packed["sample_ids"]) == [str(number) for number in range(5)]
    lengths = sorted(len(row["input_ids"]) for row in ROWS)
    assert sorted(_lengths_of_samples(packed)) == lengths
    assert bool((packed["labels"][packed["position_ids"] == 0] == -100).all())


def test_padding_is_the_pad_token() -> None:
    packed = PackingCollator(Collator(pad_token_id=7))(ROWS)
    ends = [ids[-1].item() for ids, labels in zip(packed["input_ids"], packed["labels"], strict=True) if labels[-1] < 0]
    assert ends and set(ends) == {7}


@given(lengths=st.lists(st.integers(1, 50), min_size=1, max_size=40))
def test_bins_hold_every_item_once_and_are_rarely_half_empty(lengths: list[int]) -> None:
    bins = fill_bins(lengths)
    assert sorted(index for members in bins for index in members) == list(range(len(lengths)))
    filled = [sum(lengths[index] for index in members) for members in bins]
    assert max(filled) == max(lengths)
    assert sum(2 * total <= max(lengths) for total in filled) <= 1  # two of them would have gone into one
