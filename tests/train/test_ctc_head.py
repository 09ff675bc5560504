"""The CTC head: its loss against the definition, exact for each image of a mixed batch, and it learns lines."""

import itertools
import math

import pytest
import torch
from torch import Tensor

from convllava.data.batching import Collator, EncodedDataset
from convllava.synthetic import SyntheticDataset
from convllava.train.ctc_head import EncoderWithCtcHead
from tests.tiny import tiny_model

POSITION_END = 15
"""Id of a tab in the character vocabulary: six control tokens, then the bytes."""


def _batch(count: int) -> tuple[EncoderWithCtcHead, dict[str, Tensor]]:
    model, processor = tiny_model(stages=4)
    processor.set_prompt_format("plain")
    lines = SyntheticDataset("line", count=count, sizes=[[32, 32], [32, 96]], cap=(0.5, 0.7), noise=0.0)
    rows = EncodedDataset(lines, processor, max_length=200)
    batch = Collator(processor.tokenizer.pad_token_id)([rows[index] for index in range(count)])
    torch.manual_seed(0)
    return EncoderWithCtcHead(model, POSITION_END), {
        key: value for key, value in batch.items() if isinstance(value, Tensor)
    }


def _read_lines(encoder: EncoderWithCtcHead, pixels: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor]:
    return encoder.read(encoder.strips(pixels, sizes, [1] * len(pixels)))


def _read_greedily(encoder: EncoderWithCtcHead, batch: dict[str, Tensor]) -> list[list[int]]:
    log_probabilities, lengths = _read_lines(encoder, batch["pixel_values"], batch["image_sizes"])
    best = [row[:length].argmax(-1).tolist() for row, length in zip(log_probabilities, lengths, strict=True)]
    merged = [[step for step, _ in itertools.groupby(row)] for row in best]
    return [[step for step in row if step != encoder.blank] for row in merged]


def _texts(encoder: EncoderWithCtcHead, labels: Tensor) -> list[list[int]]:
    return [[label for label in row if label not in (-100, encoder.end)] for row in labels.tolist()]


def _alignments(log_probabilities: Tensor, text: list[int], blank: int) -> float:
    """Return the loss by its definition, a sum over all paths, for short texts over few steps."""
    symbols = sorted({*text, blank})
    paths = itertools.product(symbols, repeat=len(log_probabilities))
    spelled = [path for path in paths if [s for s, _ in itertools.groupby(path) if s != blank] == text]
    return -math.log(sum(math.exp(sum(log_probabilities[i, s].item() for i, s in enumerate(path))) for path in spelled))


def test_the_loss_sums_over_all_alignments() -> None:
    encoder, _ = _batch(1)
    pixels, sizes = torch.randn(1, 3, 32, 32), torch.tensor([[32, 32]])
    text = [20, 30, 30]
    labels = torch.tensor([[-100, *text, encoder.end]])
    log_probabilities, lengths = _read_lines(encoder, pixels, sizes)
    assert lengths.tolist() == [8]
    expected = _alignments(log_probabilities[0].double(), text, encoder.blank) / labels.ne(-100).sum().item()
    assert encoder(pixels, sizes, labels)["loss"].item() == pytest.approx(expected, rel=1e-5)


def test_a_text_too_long_for_its_image_has_an_infinite_loss() -> None:
    encoder, _ = _batch(1)
    labels = torch.tensor([[20] * 8 + [encoder.end]])  # equal neighbors need a blank between them
    assert math.isinf(encoder(torch.randn(1, 3, 32, 32), torch.tensor([[32, 32]]), labels)["loss"].item())


def test_padding_changes_nothing() -> None:
    encoder, batch = _batch(6)
    together, lengths = _read_lines(encoder, batch["pixel_values"], batch["image_sizes"])
    assert len(set(lengths.tolist())) == 2
    for index, (height, width) in enumerate(batch["image_sizes"].tolist()):
        alone, _ = _read_lines(
            encoder,
            batch["pixel_values"][index : index + 1, :, :height, :width],
            batch["image_sizes"][index : index + 1],
        )
        torch.testing.assert_close(together[index, : lengths[index]], alone[0], rtol=1e-4, atol=1e-5)


def test_lines_are_memorized_through_the_encoder() -> None:
    encoder, batch = _batch(4)
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=3e-3)
    for _ in range(250):
        loss = encoder(**batch)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert _read_greedily(encoder, batch) == _texts(encoder, batch["labels"])
    assert all(parameter.grad is not None for parameter in encoder.vision_tower.parameters())


def test_positions_are_read_one_by_one() -> None:
    encoder, _ = _batch(1)
    pixels, sizes = torch.randn(1, 3, 32, 64), torch.tensor([[32, 64]])
    first, second = [20, 30], [40]
    labels = torch.tensor([[-100, *first, POSITION_END, *second, encoder.end]])
    together = encoder(pixels, sizes, labels)["loss"] * labels.ne(-100).sum()
    log_probabilities, lengths = encoder.read(encoder.strips(pixels, sizes, [2]))
    assert lengths.tolist() == [8, 8]
    expected = sum(
        _alignments(row.double(), text, encoder.blank)
        for row, text in zip(log_probabilities, (first, second), strict=True)
    )
    assert together.item() == pytest.approx(expected, rel=1e-5)


def test_texts_of_more_positions_than_the_image_has_are_rejected() -> None:
    encoder, _ = _batch(1)
    labels = torch.tensor([[20, POSITION_END, 30, POSITION_END, 40]])
    with pytest.raises(ValueError, match="1x2 positions has the texts of 3: set the data's option stride"):
        encoder(torch.randn(1, 3, 32, 64), torch.tensor([[32, 64]]), labels)
