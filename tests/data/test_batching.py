"""Batches: labels, padding, mixtures, and grouping that loses no sample."""

from itertools import chain
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from convllava.data.batching import Collator, EncodedDataset, ShapeGroupedBatches, encode_sample
from convllava.data.faults import BadSampleError
from convllava.data.mixture import Mixture
from convllava.data.samples import Sample, assistant_message, user_message
from convllava.model import build_nano_processor
from convllava.synthetic import SyntheticDataset

PROCESSOR = build_nano_processor()


def _sample(*turns: str, images: tuple[Image.Image | Path, ...] = ()) -> Sample:
    messages = []
    for number, turn in enumerate(turns):
        asked = user_message(turn, len(images) if number == 0 else 0)
        messages.append(asked if number % 2 == 0 else assistant_message(turn))
    return Sample("s1", images, messages)


def _supervised_text(sample: Sample) -> str:
    labels = encode_sample(sample, PROCESSOR, 512)["labels"]
    return PROCESSOR.tokenizer.decode(labels[labels != -100])


IMAGE = Image.new("RGB", (128, 64))


def test_exactly_the_answers_and_their_ends_are_supervised() -> None:
    assert _supervised_text(_sample("What?", "12.50", images=(IMAGE,))) == "12.50</s>"
    assert _supervised_text(_sample("a", "bc", "d", "ef g")) == "bc</s>ef g</s>"
    assert _supervised_text(_sample("<|assistant|>", "é漢</s>")) == "é漢</s></s>"


def test_labels_equal_their_tokens() -> None:
    row = encode_sample(_sample("What?", "yes", images=(IMAGE,)), PROCESSOR, 512)
    kept = row["labels"] != -100
    assert torch.equal(row["labels"][kept], row["input_ids"][kept])
    assert int((row["input_ids"] == PROCESSOR.image_token_id).sum()) == 2
    assert not bool(kept[row["input_ids"] == PROCESSOR.image_token_id].any())


def test_a_too_long_sample_is_an_error_with_its_name() -> None:
    with pytest.raises(ValueError, match=r"sample s1: \d+ tokens, more than max_length 10"):
        encode_sample(_sample("What is it?", "an image"), PROCESSOR, 10)


def test_an_unreadable_image_names_file_and_sample(tmp_path: Path) -> None:
    path = tmp_path / "broken.jpg"
    path.write_bytes(b"not an image")
    with pytest.raises(ValueError, match=r"sample s1: image .*broken\.jpg is not an image"):
        encode_sample(_sample("What?", "x", images=(path,)), PROCESSOR, 512)


def test_collator_pads_sequences_and_images() -> None:
    samples = [_sample("A?", "b", images=(IMAGE,)), _sample("No image here", "right"), _sample("C?", "d")]
    wide = Image.new("RGB", (64, 192), "white")
    samples[2] = _sample("C?", "d", images=(wide,))
    batch = Collator(0)([encode_sample(sample, PROCESSOR, 512) for sample in samples])
    assert batch["pixel_values"].shape == (2, 3, 192, 128)
    assert batch["image_sizes"].tolist() == [[64, 128], [192, 64]]
    assert not bool(batch["pixel_values"][0, :, 64:].any())
    assert batch["sample_ids"] == ["s1"] * 3
    assert torch.equal(batch["attention_mask"] == 0, batch["input_ids"] == 0)
    assert bool((batch["labels"][batch["attention_mask"] == 0] == -100).all())


def test_a_batch_of_text_has_no_images() -> None:
    batch = Collator(0)([encode_sample(_sample("Hi", "Hello"), PROCESSOR, 512)])
    assert "pixel_values" not in batch and "image_sizes" not in batch


def _lines(count: int) -> SyntheticDataset:
    return SyntheticDataset("line", count=count, sizes=[[32, 32], [32, 64], [32, 96]])


@settings(deadline=None)  # a busy machine is no failure
@given(count=st.integers(0, 200), batch_size=st.integers(1, 8), parts=st.integers(1, 3))
def test_batches_use_each_sample_once(count: int, batch_size: int, parts: int) -> None:
    size = batch_size * parts
    batches = list(ShapeGroupedBatches(_lines(count), batch_size, global_batch_size=size, seed=1))
    used = [index for batch in batches for index in batch]
    assert len(batches) == count // size * parts
    assert all(len(batch) == batch_size for batch in batches)
    assert sorted(used) == list(range(len(used)))


def test_a_step_holds_the_same_samples_for_any_micro_batch_size() -> None:
    complete = list(ShapeGroupedBatches(_lines(640), 8, global_batch_size=8, seed=3))
    split = list(ShapeGroupedBatches(_lines(640), 2, global_batch_size=8, seed=3))
    joined = [[index for batch in split[first : first + 4] for index in batch] for first in range(0, len(split), 4)]
    assert joined == complete


def test_batches_are_mostly_of_one_shape_and_repeatable() -> None:
    source = _lines(640)
    batches = list(ShapeGroupedBatches(source, 8, global_batch_size=8, seed=3))
    mixed = sum(len({source.image_sizes(index)[0] for index in batch}) > 1 for batch in batches)
    assert mixed <= len(batches) // 4
    assert batches == list(ShapeGroupedBatches(source, 8, global_batch_size=8, seed=3))
    assert batches != list(ShapeGroupedBatches(source, 8, global_batch_size=8, seed=4))


def test_groups_mix_shapes_within_a_step_but_not_within_a_group() -> None:
    source = _lines(1024)
    batches = list(ShapeGroupedBatches(source, 8, global_batch_size=32, groups=4, seed=3))
    assert sorted(index for batch in batches for index in batch) == list(range(1024))

    def shapes(indices: list[int]) -> int:
        return len({tuple(source.image_sizes(index)) for index in indices})

    steps = [list(chain.from_iterable(batches[first : first + 4])) for first in range(0, len(batches), 4)]
    assert sum(map(shapes, steps)) > 1.5 * len(steps)
    assert sum(map(shapes, batches)) < 1.2 * len(batches)


def test_mixture_by_weight_draws_the_right_shares() -> None:
    sources = [SyntheticDataset("line", count=1000, seed=seed) for seed in (0, 1)]
    mixture = Mixture(sources, [3, 1], total=400, seed=5)
    ids = [mixture[index].sample_id for index in range(0, 400, 20)]
    assert len(mixture) == 400
    assert len(set(ids)) == len(ids)
    origins = [int(mixture._source[index]) for index in range(400)]
    assert origins.count(0) == 300


def test_mixture_by_epochs_takes_everything() -> None:
    mixture = Mixture([_lines(5), _lines(3)], [1, 1], epochs=2)
    drawn = sorted((int(source), int(index)) for source, index in zip(mixture._source, mixture._index, strict=True))
    assert drawn == sorted([(0, i) for i in range(5)] * 2 + [(1, i) for i in range(3)] * 2)


def test_an_epoch_is_complete_before_the_next_one_begins() -> None:
    mixture = Mixture([_lines(5), _lines(3)], [1, 1], epochs=3)
    drawn = list(zip(mixture._source.tolist(), mixture._index.tolist(), strict=True))
    passes = [drawn[first : first + 8] for first in (0, 8, 16)]
    assert all(len(set(one)) == 8 for one in passes) and passes[0] != passes[1]
    once = Mixture([_lines(5), _lines(3)], [1, 1], epochs=1)
    assert list(zip(once._source.tolist(), once._index.tolist(), strict=True)) == passes[0]


def test_an_end_token_that_is_also_the_padding_stays_supervised() -> None:
    end = PROCESSOR.tokenizer.eos_token_id
    samples = [encode_sample(_sample("What?", answer), PROCESSOR, 512) for answer in ("yes", "no, it is not")]
    batches = [Collator(padding)(samples) for padding in (end, PROCESSOR.tokenizer.pad_token_id)]
    assert torch.equal(batches[0]["labels"], batches[1]["labels"])
    assert torch.equal(batches[0]["attention_mask"], batches[1]["attention_mask"])
    assert (batches[0]["labels"] == end).sum(dim=1).tolist() == [1, 1]


def test_a_mixture_without_sources_or_weights_is_rejected() -> None:
    with pytest.raises(ValueError, match="a weight above 0"):
        Mixture([_lines(5)], [0.0])


def test_encoded_dataset_has_the_samples_of_its_source() -> None:
    dataset = EncodedDataset(_lines(3), PROCESSOR, 512)
    assert len(dataset) == 3
    assert dataset[2]["sample_id"] == "synthetic/line/train/0/2"


def test_megabytes_of_text_are_too_long_without_being_tokenized(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(PROCESSOR), "encode", lambda *given: pytest.fail("it was tokenized"))
    with pytest.raises(BadSampleError, match="4000000 characters, far more than max_length 512 tokens hold"):
        encode_sample(_sample("", "yes " * 1_000_000), PROCESSOR, 512)
