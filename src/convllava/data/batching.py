"""Samples to batches: encoding, labels, padding, and grouping by shape so that little is padded."""

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
from .samples import Sample, SampleSource, text_length

_FEWEST_CHARACTERS = 100_000
"""Characters below which a text is tokenized, whatever its length in tokens."""

_MARGIN = 4
"""Factor for tokenizers that drop or join characters."""

POOL_BATCHES = 16
"""Global batches whose samples are sorted by shape and length together; more would pad less and shuffle less."""


class Encoder(Protocol):
    """The part of a processor that training needs: it encodes messages and images as token ids and pixels.

    Attributes:
        image_processor: Has ``resized_shape``.
        tokenizer: Has ``get_vocab``.
    """

    image_processor: Any
    tokenizer: Any

    def encode(self, messages: Sequence[Any], images: Sequence[Any], **options: Any) -> Mapping[str, Tensor]: ...


class EncodedDataset(torch.utils.data.Dataset[dict[str, Any]]):
    """Encoded samples of a source, ready to be padded.

    Args:
        source: The samples.
        processor: An object with ``encode``.
        max_length: Maximum tokens of a sample, visual tokens included.
        on_bad_sample: "stop": a sample that cannot be used is an error. "skip": it is replaced by a placeholder, one
            token without a label, that carries its ``fault``.
        one_image: Whether a sample without exactly one image cannot be used.
    """

    def __init__(
        self,
        source: SampleSource,
        processor: Encoder,
        max_length: int,
        *,
        on_bad_sample: OnBadSample = "stop",
        one_image: bool = False,
    ) -> None:
        self.source = source
        self.processor = processor
        self.max_length = max_length
        self.on_bad_sample = on_bad_sample
        self.one_image = one_image

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return ``sample_id``, ``input_ids`` (T,), ``labels`` (T,), ``pixel_values`` (n, 3, H, W), ``image_sizes``."""
        try:
            sample = self.source[index]
            if self.one_image:
                check_one_image(sample)
            return encode_sample(sample, self.processor, self.max_length)
        except BadSampleError as error:
            if self.on_bad_sample == "stop":
                raise
            return placeholder(error.fault)


def encode_sample(sample: Sample, processor: Encoder, max_length: int) -> dict[str, Any]:
    """Return one sample encoded; its labels supervise the assistant's text and end token only.

    Returns:
        ``sample_id``, ``input_ids`` (T,), ``labels`` (T,), ``pixel_values`` (n, 3, H, W) and ``image_sizes`` (n, 2).

    Raises:
        BadSampleError: The sample is too long, has no answer or an unreadable image; the message names it.
    """
    check_characters(sample, processor, max_length)
    images = [open_sample_image(image, sample) for image in sample.images]
    resized_shapes(sample, [(image.height, image.width) for image in images], processor)
    try:
        encoded = processor.encode(sample.messages, images)
    except ValueError as error:
        raise sample.bad("malformed", str(error)) from error
    input_ids, supervised = encoded["input_ids"], encoded["labels_mask"]
    check_tokens(sample, len(input_ids), int(supervised.sum()), max_length)
    return {
        "sample_id": sample.sample_id,
        "input_ids": input_ids,
        "labels": torch.where(supervised, input_ids, IGNORE_INDEX),
        "pixel_values": encoded["pixel_values"],
        "image_sizes": encoded["image_sizes"],
    }


def resized_shapes(sample: Sample, sizes: Sequence[tuple[int, int]], processor: Encoder) -> list[tuple[int, int]]:
    """Return the (height, width) to which the images of a sample are resized.

    Args:
        sample: The sample.
        sizes: (height, width) of each of its images.
        processor: The processor.

    Raises:
        BadSampleError: An image has a shape that the model cannot take.
    """
    try:
        return [processor.image_processor.resized_shape(*size) for size in sizes]
    except ValueError as error:
        raise sample.bad("bad_shape", str(error)) from error


def check_characters(sample: Sample, processor: Encoder, max_length: int) -> None:
    """Check that a sample is not too long by far, before its texts are tokenized, which takes minutes for megabytes.

    Raises:
        BadSampleError: With tokens of the longest kind alone, it would be several times too long.
    """
    characters = text_length(sample.messages)
    if characters <= _FEWEST_CHARACTERS:
        return
    longest = max(map(len, processor.tokenizer.get_vocab()))
    if characters > _MARGIN * max_length * longest:
        raise sample.bad("too_long", f"{characters} characters, far more than max_length {max_length} tokens hold")


def check_one_image(sample: Sample) -> None:
    """Check that a sample can train an encoder alone.

    Raises:
        BadSampleError: It has no image, or several.
    """
    if len(sample.images) != 1:
        reason = f"training_stage encoder needs one image in each sample, this one has {len(sample.images)}"
        raise sample.bad("image_count", f"{reason}: leave it out of the data")


def check_tokens(sample: Sample, tokens: int, supervised: int, max_length: int) -> None:
    """Check the numbers of all tokens and of supervised tokens of an encoded sample.

    Raises:
        BadSampleError: The sample is too long, or has nothing to learn from.
    """
    if tokens > max_length:
        reason = (
            f"{tokens} tokens, more than max_length {max_length}; shorten it, lower the resolution or raise max_length"
        )
        raise sample.bad("too_long", reason)
    if supervised == 0:
        raise sample.bad("no_answer", "no assistant text to learn from")


def placeholder(fault: Fault) -> dict[str, Any]:
    """Return an encoded sample of one token without a label, in place of a sample that is left out."""
    return {
        "sample_id": fault.sample_id,
        "input_ids": torch.zeros(1, dtype=torch.int64),
        "labels": torch.full((1,), IGNORE_INDEX),
        "pixel_values": torch.zeros(0, 3, 0, 0),
        "image_sizes": torch.zeros(0, 2, dtype=torch.int64),
        "fault": fault,
    }


def open_sample_image(image: StoredImage, sample: Sample) -> Image.Image:
    """Return an image of a sample, upright and in RGB.

    Raises:
        BadSampleError: It cannot be decoded; names it and the sample.
    """
    try:
        return open_stored(image)
    except ImageError as error:
        raise sample.bad(*fault_of(error)) from error


class Collator:
    """Pads encoded samples on the right into a batch.

    Keys in: those of :class:`EncodedDataset`. Keys out: ``input_ids``, ``attention_mask`` and ``labels`` (N, T);
    ``pixel_values`` (M, 3, Hmax, Wmax) zero-padded right and bottom and ``image_sizes`` (M, 2) of all M images in
    reading order, both absent when there are none; ``sample_ids``, a list of N, and ``indices``, the same of each
    example's ``index`` where it has one; ``faults`` of the samples that were left out, absent when there are none: a
    placeholder is kept only in a batch without any other sample. For a sample with an image and one without::

        input_ids [[1, 5, 427, 427, 6, 40, 2], [1, 5, 41, 6, 42, 2, 0]]   labels [[-100, ..., 40, 2], ...]
        pixel_values (1, 3, 64, 128)   image_sizes [[64, 128]]
    """

    def __init__(self, pad_token_id: int) -> None:
        self.pad_token_id = pad_token_id

    def __call__(self, examples: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Return the batch."""
        faults = [example["fault"] for example in examples if "fault" in example]
        examples = [example for example in examples if "fault" not in example] or examples[:1]
        batch: dict[str, Any] = {
            "input_ids": _pad([example["input_ids"] for example in examples], self.pad_token_id),
            "attention_mask": _pad([torch.ones_like(example["input_ids"]) for example in examples], 0),
            "labels": _pad([example["labels"] for example in examples], IGNORE_INDEX),
            "sample_ids": [example["sample_id"] for example in examples],
        }
        if "index" in examples[0]:
            batch["indices"] = [example["index"] for example in examples]
        with_images = [example for example in examples if len(example["image_sizes"])]
        if with_images:
            batch["image_sizes"] = torch.cat([example["image_sizes"] for example in with_images])
            batch["pixel_values"] = _stack_pixels([example["pixel_values"] for example in with_images])
        if faults:
            batch["faults"] = faults
        return batch


class ShapeGroupedBatches(torch.utils.data.Sampler[list[int]]):
    """Batches of similar samples, in a random order fixed by the seed.

    Samples are taken pool by pool in their given order; inside a pool they are sorted by the images' shapes, then text
    length, and cut into groups, which are shuffled. The micro-batches of one step follow each other, so a step sees the
    same samples for any number of devices and accumulation steps.

    Args:
        source: The samples.
        batch_size: Samples in a micro-batch of one device; divides ``global_batch_size``.
        global_batch_size: Samples in a step; the last incomplete step is left out.
        groups: Groups of similar samples in a step: 1 pads least, more mix different samples in each step.
        seed: Fixes the order.
    """

    def __init__(
        self, source: SampleSource, batch_size: int, *, global_batch_size: int, groups: int = 1, seed: int = 0
    ) -> None:
        if global_batch_size % batch_size or global_batch_size % groups:
            raise ValueError(
                f"global_batch_size {global_batch_size} is not a multiple of batch_size {batch_size} and of groups "
                f"{groups}"
            )
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


def _pad(sequences: Sequence[Tensor], value: int) -> Tensor:
    """Pad sequences (T_i,) on the right: (N, T)."""
    return torch.nn.utils.rnn.pad_sequence(list(sequences), batch_first=True, padding_value=value)


def _stack_pixels(images: Sequence[Tensor]) -> Tensor:
    """Stack images (n_i, 3, H_i, W_i) into one tensor (M, 3, Hmax, Wmax), padded right and bottom with zeros."""
    height = max(pixels.shape[-2] for pixels in images)
    width = max(pixels.shape[-1] for pixels in images)
    stacked = images[0].new_zeros(sum(len(pixels) for pixels in images), 3, height, width)
    first = 0
    for pixels in images:
        stacked[first : first + len(pixels), :, : pixels.shape[-2], : pixels.shape[-1]] = pixels
        first += len(pixels)
    return stacked
