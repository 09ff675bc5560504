"""Several samples in one sequence, so that little is padded; no sample attends to another."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..constants import IGNORE_INDEX
from .batching import Collator


class PackingCollator:
    """Collates a batch, then packs its samples into as few sequences of the longest one's length as they need.

    Longer sequences would be fuller, but their attention, most of it masked, would cost the square of their length.

    Keys in: those of :class:`Collator`. Keys out: those of :class:`Collator` with fewer, fuller sequences; in place of
    ``attention_mask`` there are ``position_ids`` (N, T) that restart at 0 with every sample, by which the language
    model keeps the samples apart. The padding at the end of a sequence is a sample without labels. The batch holds the
    same samples and supervised tokens as without packing, and so has the same loss::

        input_ids    [[1, 5, 40, 2, 1, 6, 41, 42, 2, 0]]
        labels       [[-100, -100, 40, 2, -100, -100, 41, 42, 2, -100]]
        position_ids [[0, 1, 2, 3, 0, 1, 2, 3, 4, 0]]

    Args:
        collate: Pads sequences on the right and keeps the images in the order of the examples.
    """

    def __init__(self, collate: Collator) -> None:
        self.collate = collate

    def __call__(self, examples: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Return the packed batch."""
        bins = fill_bins([len(example["input_ids"]) for example in examples])
        batch = self.collate([examples[index] for members in bins for index in members])
        lengths = batch.pop("attention_mask").sum(dim=1).tolist()
        ids = [row[:length] for row, length in zip(batch["input_ids"], lengths, strict=True)]
        labels = [_without_first(row[:length]) for row, length in zip(batch["labels"], lengths, strict=True)]
        positions = [torch.arange(length) for length in lengths]
        counts = _samples_per_bin(lengths)  # the bins again, without the examples that ``collate`` left out
        pad_token_id = self.collate.pad_token_id
        return batch | {
            "input_ids": _join(ids, counts, lambda padding: torch.full((padding,), pad_token_id)),
            "labels": _join(labels, counts, lambda padding: torch.full((padding,), IGNORE_INDEX)),
            "position_ids": _join(positions, counts, torch.arange),
        }


def fill_bins(lengths: Sequence[int]) -> list[list[int]]:
    """Distribute items over bins as long as the longest item (first-fit decreasing).

    Returns:
        The items' indices, bin by bin.
    """
    capacity = max(lengths)
    bins: list[list[int]] = []
    free: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        chosen = next((number for number, left in enumerate(free) if left >= lengths[index]), len(bins))
        if chosen == len(bins):
            bins.append([])
            free.append(capacity)
        bins[chosen].append(index)
        free[chosen] -= lengths[index]
    return bins


def _samples_per_bin(lengths: Sequence[int]) -> list[int]:
    """Return how many consecutive items go into each bin when a bin is closed as soon as one does not fit."""
    capacity = max(lengths)
    counts, free = [0], capacity
    for length in lengths:
        if length > free:
            counts.append(0)
            free = capacity
        counts[-1] += 1
        free -= length
    return counts


def _without_first(labels: Tensor) -> Tensor:
    """Ignore the first label (T,), which would be predicted from the last token of the sample before it."""
    return torch.cat([labels.new_full((1,), IGNORE_INDEX), labels[1:]])


def _join(samples: Sequence[Tensor], counts: Sequence[int], padding: Callable[[int], Tensor]) -> Tensor:
    """Concatenate ``counts`` samples (T_i,) to each sequence and pad to the longest: (N, T)."""
    sequences, first = [], 0
    for count in counts:
        sequences.append(torch.cat(list(samples[first : first + count])))
        first += count
    longest = max(len(sequence) for sequence in sequences)
    return torch.stack([torch.cat([sequence, padding(longest - len(sequence))]) for sequence in sequences])
