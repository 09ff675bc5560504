"""Samples to batches: encoded, labeled, padded, and grouped so that little is padded."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..constants import IGNORE_INDEX
from ..images import ImageError
from .conversations import OnBadSample
from .faults import BadSampleError, Fault
from .images import StoredImage, fault_of, open_stored
from .samples import Sample, SampleSource

POOL_BATCHES = 16
"""Global batches whose samples are sorted by shape and length together; more would pad less and mix less."""


class Encoder(Protocol):
    """The part of a processor that training needs: messages and images to token ids and pixels."""

    def encode(self, messages: Sequence[Any], images: Sequence[Any], **options: Any) -> Mapping[str, Tensor]: ...


class EncodedDataset(torch.utils.data.Dataset[dict[str, Any]]):
    """Samples of a source as rows ready to be padded.

    Args:
        source: Where samples come from.
        processor: Anything with ``encode``.
        max_length: Longest allowed row in tokens, visual tokens included.
        on_bad_sample: "stop": a sample that cannot be used is an error. "skip": a row with its ``fault`` stands in
            its place, one token that nothing is learned from.
    """

    def __init__(
        self, source: SampleSource, processor: Encoder, max_length: int, *, on_bad_sample: OnBadSample = "stop"
    ) -> None:
        self.source = source
        self.processor = processor
        self.max_length = max_length
        self.on_bad_sample = on_bad_sample

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return ``sample_id``, ``input_ids`` (T,), ``labels`` (T,), ``pixel_values`` (n, 3, H, W), ``image_sizes``."""
        try:
            return encode_sample(self.source[index], self.processor, self.max_length)
        except BadSampleError as error:
            if self.on_bad_sample == "stop":
                raise
            return empty_row(error.fault)


def encode_sample(sample: Sample, processor: Encoder, max_length: int) -> dict[str, Any]:
    """Encode one sample; its labels supervise the assistant's text and end token only.

    Raises:
        BadSampleError: When it is too long, supervises nothing or has an unreadable image; names the sample.
    """
    images = [open_image(image, sample) for image in sample.images]
    try:
        row = processor.encode(sample.messages, images)
    except ValueError as error:
        raise sample.bad("malformed", str(error)) from error
    input_ids, supervised = row["input_ids"], row["labels_mask"]
    if len(input_ids) > max_length:
        raise sample.bad(
            "too_long",
            f"{len(input_ids)} tokens, more than max_length {max_length}; shorten it, lower the resolution or raise "
            "max_length",
        )
    if not bool(supervised.any()):
        raise sample.bad("no_answer", "no assistant text to learn from")
    return {
        "sample_id": sample.sample_id,
        "input_ids": input_ids,
        "labels": torch.where(supervised, input_ids, IGNORE_INDEX),
        "pixel_values": row["pixel_values"],
        "image_sizes": row["image_sizes"],
    }


def empty_row(fault: Fault) -> dict[str, Any]:
    """Return a row in the place of a sample that is left out."""
    return {
        "sample_id": fault.sample_id,
        "input_ids": torch.zeros(1, dtype=torch.int64),
        "labels": torch.full((1,), IGNORE_INDEX),
        "pixel_values": torch.zeros(0, 3, 0, 0),
        "image_sizes": torch.zeros(0, 2, dtype=torch.int64),
        "fault": fault,
    }


def open_image(image: StoredImage, sample: Sample) -> Image.Image:
    """Return an image of a sample, upright and in RGB.

    Raises:
        BadSampleError: It cannot be decoded; names it and the sample.
    """
    try:
        return open_stored(image)
    except ImageError as error:
        raise sample.bad(*fault_of(error)) from error


class Collator:
    """Pads rows on the right into a batch.

    Keys in: those of :class:`EncodedDataset`. Keys out: ``input_ids``, ``attention_mask`` and ``labels`` (N, T);
    ``pixel_values`` (M, 3, Hmax, Wmax) zero-padded right and bottom and ``image_sizes`` (M, 2) of all M images in
    reading order, both absent when there are none; ``sample_ids``, a list of N; ``faults`` of the samples that were
    left out, absent when there are none: their rows are taken only where there is no other. For a line and a
    text-only row::

        input_ids [[1, 5, 427, 427, 6, 40, 2], [1, 5, 41, 6, 42, 2, 0]]   labels [[-100, ..., 40, 2], ...]
        pixel_values (1, 3, 64, 128)   image_sizes [[64, 128]]
    """

    def __init__(self, pad_token_id: int) -> None:
        self.pad_token_id = pad_token_id

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
        faults = [row["fault"] for row in rows if "fault" in row]
        rows = [row for row in rows if "fault" not in row] or rows[:1]
        batch: dict[str, Any] = {
            "input_ids": _pad([row["input_ids"] for row in rows], self.pad_token_id),
            "attention_mask": _pad([torch.ones_like(row["input_ids"]) for row in rows], 0),
            "labels": _pad([row["labels"] for row in rows], IGNORE_INDEX),
            "sample_ids": [row["sample_id"] for row in rows],
        }
        with_images = [row for row in rows if len(row["image_sizes"])]
        if with_images:
            batch["image_sizes"] = torch.cat([row["image_sizes"] for row in with_images])
            batch["pixel_values"] = _stack_pixels([row["pixel_values"] for row in with_images])
        if faults:
            batch["faults"] = faults
        return batch


class ShapeGroupedBatches(torch.utils.data.Sampler[list[int]]):
    """Batches of similar rows, in a random order fixed by the seed.

    Samples are taken pool by pool in their given order; inside a pool they are sorted by the images' shapes, then
    text length, and cut into groups, which are shuffled. The batches of one update follow each other, so an update
    holds the same samples however it is split among devices and accumulation steps.

    Args:
        source: What is drawn from.
        batch_size: Samples that one device takes at a time; divides ``global_batch_size``.
        global_batch_size: Samples of one update; the last incomplete one is left out.
        groups: Groups of similar rows in one update: 1 pads least, more mix the kinds of samples in each update.
        seed: Fixes the order.
    """

    def __init__(
        self, source: SampleSource, batch_size: int, *, global_batch_size: int, groups: int = 1, seed: int = 0
    ) -> None:
        assert global_batch_size % batch_size == 0 and global_batch_size % groups == 0
        self.source = source
        self.batch_size = batch_size
        self.global_batch_size = global_batch_size
        self.group_size = global_batch_size // groups
        self.seed = seed

    def __len__(self) -> int:
        return self._usable() // self.batch_size

    def __iter__(self) -> Iterator[list[int]]:
        rng = np.random.default_rng(self.seed)
        size = self.global_batch_size
        for start in range(0, self._usable(), size * POOL_BATCHES):
            pool = sorted(range(start, min(start + size * POOL_BATCHES, self._usable())), key=self._key)
            groups = list(_cut(pool, self.group_size))
            shuffled = [index for chosen in rng.permutation(len(groups)) for index in groups[chosen]]
            yield from _cut(shuffled, self.batch_size)

    def _usable(self) -> int:
        return len(self.source) // self.global_batch_size * self.global_batch_size

    def _key(self, index: int) -> tuple[Any, ...]:
        return (sorted(self.source.image_sizes(index)), self.source.text_length(index))


def _cut(indices: list[int], size: int) -> Iterator[list[int]]:
    for first in range(0, len(indices), size):
        yield indices[first : first + size]


def _pad(rows: Sequence[Tensor], value: int) -> Tensor:
    return torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True, padding_value=value)


def _stack_pixels(parts: Sequence[Tensor]) -> Tensor:
    """Stack images (n_i, 3, H_i, W_i) into one tensor, padded right and bottom with zeros."""
    height = max(part.shape[-2] for part in parts)
    width = max(part.shape[-1] for part in parts)
    stacked = parts[0].new_zeros(sum(len(part) for part in parts), 3, height, width)
    first = 0
    for part in parts:
        stacked[first : first + len(part), :, : part.shape[-2], : part.shape[-1]] = part
        first += len(part)
    return stacked
