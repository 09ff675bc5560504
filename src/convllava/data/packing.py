"""Several samples in one row, so that little is padded; no sample sees another."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..constants import IGNORE_INDEX

Rows = Sequence[dict[str, Any]]


class PackingCollator:
    """Collates a batch, then lays its samples end to end in as few rows of the longest one's length as they need.

    Longer rows would be fuller, but attention that masks what lies between samples would pay for their square.

    Keys in: those of ``collate``. Keys out: those of ``collate`` with fewer, longer rows; in place of
    ``attention_mask`` there are ``position_ids`` (N, T) that begin at 0 with every sample, by which the language model
    keeps the samples apart. What pads the end of a row is a sample of its own, which nothing is learned from. The
    update holds the same samples and the same supervised tokens, so its loss is that of the samples side by side::

        input_ids    [[1, 5, 40, 2, 1, 6, 41, 42, 2, 0]]
        labels       [[-100, -100, 40, 2, -100, -100, 41, 42, 2, -100]]
        position_ids [[0, 1, 2, 3, 0, 1, 2, 3, 4, 0]]

    Args:
        collate: Pads rows on the right, images in the order of the rows.
    """

    def __init__(self, collate: Callable[[Rows], dict[str, Any]]) -> None:
        self.collate = collate

    def __call__(self, rows: Rows) -> dict[str, Any]:
        bins = fill_bins([len(row["input_ids"]) for row in rows])
        batch = self.collate([rows[index] for members in bins for index in members])
        lengths = batch.pop("attention_mask").sum(dim=1).tolist()
        ids = [row[:length] for row, length in zip(batch["input_ids"], lengths, strict=True)]
        labels = [_without_first(row[:length]) for row, length in zip(batch["labels"], lengths, strict=True)]
        positions = [torch.arange(length) for length in lengths]
        sizes = _next_fit(lengths)  # the bins again, less what ``collate`` may have left out
        return batch | {
            "input_ids": _join(ids, sizes, lambda padding: torch.zeros(padding, dtype=torch.int64)),
            "labels": _join(labels, sizes, lambda padding: torch.full((padding,), IGNORE_INDEX)),
            "position_ids": _join(positions, sizes, torch.arange),
        }


def fill_bins(lengths: Sequence[int]) -> list[list[int]]:
    """Spread items over bins as long as the longest: that first, each into the first bin that has room for it.

    Returns:
        The items' indices, bin by bin.
    """
    capacity = max(lengths)
    bins: list[list[int]] = []
    room: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        chosen = next((number for number, left in enumerate(room) if left >= lengths[index]), len(bins))
        if chosen == len(bins):
            bins.append([])
            room.append(capacity)
        bins[chosen].append(index)
        room[chosen] -= lengths[index]
    return bins


def _next_fit(lengths: Sequence[int]) -> list[int]:
    """Return how many items in a row go into each bin when a bin is closed as soon as one does not fit."""
    capacity = max(lengths)
    sizes, room = [0], capacity
    for length in lengths:
        if length > room:
            sizes.append(0)
            room = capacity
        sizes[-1] += 1
        room -= length
    return sizes


def _without_first(labels: Tensor) -> Tensor:
    """A sample's first token would be predicted from the last of the sample before it."""
    return torch.cat([labels.new_full((1,), IGNORE_INDEX), labels[1:]])


def _join(pieces: Sequence[Tensor], sizes: Sequence[int], padding: Callable[[int], Tensor]) -> Tensor:
    """Concatenate ``sizes`` pieces a row, and fill up what is short: (N, T)."""
    rows, first = [], 0
    for size in sizes:
        rows.append(torch.cat(list(pieces[first : first + size])))
        first += size
    longest = max(len(row) for row in rows)
    return torch.stack([torch.cat([row, padding(longest - len(row))]) for row in rows])
