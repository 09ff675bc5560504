"""Packing: every sample once, no attention between samples, and the loss and gradients without packing."""

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


def _example(number: int, *sizes: tuple[int, int], words: int = 1) -> dict[str, Any]:
    images = tuple(Image.effect_noise(size, 90 + number).convert("RGB") for size in sizes)
    messages = [user_message(f"Question {number}?", len(sizes)), assistant_message("yes " * words)]
    return encode_sample(Sample(str(number), images, messages), PROCESSOR, 512)


EXAMPLES = [
    _example(0, (64, 64), words=7),
    _example(1),
    _example(2, (128, 64), (64, 128), words=3),
    _example(3, words=12),
    _example(4, (192, 64)),
]


def _loss_and_gradients(batch: dict[str, Any]) -> tuple[float, dict[str, torch.Tensor]]:
    MODEL.zero_grad()
    inputs = {key: value for key, value in batch.items() if isinstance(value, torch.Tensor)}
    loss = MODEL(**inputs, use_cache=False, num_items_in_batch=10).loss
    loss.backward()
    return loss.item(), {name: weight.grad.clone() for name, weight in MODEL.named_parameters()}


def test_packed_loss_and_gradients_equal_unpacked() -> None:
    unpacked = Collator(0)(EXAMPLES)
    packed = PackingCollator(Collator(0))(EXAMPLES)
    assert len(packed["input_ids"]) < len(EXAMPLES)
    assert packed["input_ids"].shape[1] == unpacked["input_ids"].shape[1]
    loss, gradients = _loss_and_gradients(unpacked)
    packed_loss, packed_gradients = _loss_and_gradients(packed)
    assert packed_loss == pytest.approx(loss, rel=1e-5)
    for name, gradient in gradients.items():
        torch.testing.assert_close(packed_gradients[name], gradient, rtol=1e-3, atol=1e-5, msg=name)


def test_a_sample_does_not_attend_to_the_one_before_it() -> None:
    """The logits of a sample do not depend on its neighbor."""

    def logits_of_last(first: dict[str, Any]) -> torch.Tensor:
        batch = PackingCollator(Collator(0))([first, EXAMPLES[1], long])
        inputs = {key: value for key, value in batch.items() if isinstance(value, torch.Tensor) and key != "labels"}
        length = len(EXAMPLES[1]["input_ids"])
        first_length = len(first["input_ids"])
        assert inputs["input_ids"].shape == (2, len(long["input_ids"])), "the two share a sequence"
        with torch.no_grad():
            return MODEL(**inputs, use_cache=False).logits[1, first_length : first_length + length]

    one, other, long = _example(5, (64, 64), words=9), _example(6, words=11), _example(7, words=60)
    torch.testing.assert_close(logits_of_last(one), logits_of_last(other), rtol=0, atol=1e-5)


def _lengths_of_samples(packed: dict[str, Any]) -> list[int]:
    """Return the lengths between positions 0, without the padding at the end of a sequence."""
    found = []
    for positions, labels in zip(packed["position_ids"], packed["labels"], strict=True):
        starts = [*(positions == 0).nonzero().flatten().tolist(), len(positions)]
        spans = [slice(first, last) for first, last in pairwise(starts)]
        found += [span.stop - span.start for span in spans if bool((labels[span] != -100).any())]
    return found


def test_keys_and_lengths_of_a_packed_batch() -> None:
    packed = PackingCollator(Collator(0))(EXAMPLES)
    assert "attention_mask" not in packed
    assert sorted(packed["sample_ids"]) == [str(number) for number in range(5)]
    lengths = sorted(len(row["input_ids"]) for row in EXAMPLES)
    assert sorted(_lengths_of_samples(packed)) == lengths
    assert bool((packed["labels"][packed["position_ids"] == 0] == -100).all())


def test_padding_is_the_pad_token() -> None:
    packed = PackingCollator(Collator(pad_token_id=7))(EXAMPLES)
    ends = [ids[-1].item() for ids, labels in zip(packed["input_ids"], packed["labels"], strict=True) if labels[-1] < 0]
    assert ends and set(ends) == {7}


@given(lengths=st.lists(st.integers(1, 50), min_size=1, max_size=40))
def test_bins_hold_every_item_once_and_are_rarely_half_empty(lengths: list[int]) -> None:
    bins = fill_bins(lengths)
    assert sorted(index for members in bins for index in members) == list(range(len(lengths)))
    filled = [sum(lengths[index] for index in members) for members in bins]
    assert max(filled) == max(lengths)
    assert sum(2 * total <= max(lengths) for total in filled) <= 1  # two of them would have gone into one
