"""Keys and values of a running batch: sequences join and leave, positions are appended, little is copied."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

SPARE_POSITIONS = 128
"""Positions that are allocated at a time beyond those in use."""


class KVCapacity(NamedTuple):
    """Minimum size of an allocation.

    Attributes:
        sequences: Number of sequences.
        positions: Number of positions beyond those in use.
    """

    sequences: int = 0
    positions: int = SPARE_POSITIONS


class SlabLayer(DynamicLayer):
    """Keys and values (sequences, heads, positions, head_dim) of one layer, a window of a larger buffer.

    All sequences end at the same position. A sequence shorter than the window has finite values on its left, which
    are masked. Appending a token, adding a sequence or dropping one mostly copies no more than that token or sequence.

    Args:
        capacity: Minimum size of an allocation.
    """

    def __init__(self, capacity: KVCapacity | None = None) -> None:
        super().__init__()
        self._capacity = capacity or KVCapacity()
        self._buffers: list[Tensor] = []
        self._num_sequences = 0
        self._left = self._right = 0

    @property
    def allocated(self) -> tuple[int, int]:
        """Number of sequences and positions that the buffers hold."""
        return (self._buffers[0].shape[0], self._buffers[0].shape[-2]) if self._buffers else (0, 0)

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Append keys and values (sequences, heads, n, head_dim) and return all of them."""
        new = key_states.shape[-2]
        if self._right + new > self._buffers[0].shape[-2]:
            self._reallocate(self._buffers[0].shape[0], self._right - self._left)
        for buffer, states in zip(self._buffers, (key_states, value_states), strict=True):
            buffer[: self._num_sequences, :, self._right : self._right + new] = states
        self._right += new
        self._show()
        return self.keys, self.values

    def add(self, keys: Tensor, values: Tensor) -> None:
        """Add sequences (n, heads, positions, head_dim), padded on the left to one length."""
        if not self._buffers:
            self.dtype, self.device, self.is_initialized = keys.dtype, keys.device, True
            self._buffers = [keys[:0, :, :0], values[:0, :, :0]]
        sequences, positions = self._num_sequences + len(keys), keys.shape[-2]
        if sequences > self._buffers[0].shape[0] or positions > self._right:
            self._reallocate(max(sequences, self._buffers[0].shape[0]), max(positions, self._right - self._left))
        for buffer, states in zip(self._buffers, (keys, values), strict=True):
            buffer[self._num_sequences : sequences, :, self._right - positions : self._right] = states
        self._num_sequences, self._left = sequences, min(self._left, self._right - positions)
        self._show()

    def drop(self, index: int) -> None:
        """Remove a sequence; the last one takes its place."""
        self._num_sequences -= 1
        last = self._num_sequences
        if index != last:
            for buffer in self._buffers:
                buffer[index, :, self._left : self._right] = buffer[last, :, self._left : self._right]
        self._show()

    def narrow(self, positions: int) -> None:
        """Forget all but the last positions."""
        self._left = self._right - positions
        self._show()

    def sequence(self, index: int, positions: int) -> tuple[Tensor, Tensor]:
        """Return copies of the last keys and values of a sequence, (1, heads, positions, head_dim)."""
        start = self._right - positions
        keys, values = (buffer[index : index + 1, :, start : self._right].clone() for buffer in self._buffers)
        return keys, values

    def _reallocate(self, sequences: int, positions: int) -> None:
        """Move to buffers of this size, with the end of the window at the last of these positions."""
        length, sequences = self._right - self._left, max(sequences, self._capacity.sequences)
        if positions < length:
            raise ValueError(f"a KV cache of {positions} positions cannot hold the {length} that are in use")
        used = self._num_sequences
        larger = []
        for old in self._buffers:
            # zeros: masked positions are multiplied by 0, which does not help against a NaN
            new = old.new_zeros(sequences, old.shape[1], positions + self._capacity.positions, old.shape[3])
            new[:used, :, positions - length : positions] = old[:used, :, self._left : self._right]
            larger.append(new)
        self._buffers = larger
        self._left, self._right = positions - length, positions

    def _show(self) -> None:
        used = self._num_sequences
        self.keys, self.values = (buffer[:used, :, self._left : self._right] for buffer in self._buffers)


class BatchCache:
    """The KV cache of a running batch: a `Cache` for the model, and the length of each sequence.

    Args:
        capacity: Minimum size of an allocation; the maximum of sequences and positions makes the cache static.
    """

    def __init__(self, capacity: KVCapacity | None = None) -> None:
        self._capacity = capacity
        self.lengths: list[int] = []
        self.cache = Cache(layer_class_to_replicate=SlabLayer)

    @property
    def num_positions(self) -> int:
        """Length of the longest sequence."""
        return max(self.lengths, default=0)

    def add(self, filled: Cache, lengths: Sequence[int]) -> None:
        """Add sequences that were prefilled in another cache, padded on the left."""
        positions = max(lengths)
        for index, layer in enumerate(filled.layers):
            if len(self.cache.layers) == index:
                self.cache.layers.append(SlabLayer(self._capacity))
            self.cache.layers[index].add(layer.keys[:, :, -positions:], layer.values[:, :, -positions:])
        self.lengths += lengths

    def drop(self, index: int) -> None:
        """Remove a sequence; the last one takes its place."""
        last = self.lengths.pop()
        if index < len(self.lengths):
            self.lengths[index] = last
        for layer in self.cache.layers:
            layer.drop(index)
            layer.narrow(self.num_positions)

    def grow(self) -> tuple[Tensor, Tensor]:
        """Count one more token in each sequence; return its position (N, 1) and the mask (N, T) up to it."""
        lengths = torch.tensor(self.lengths)[:, None]
        self.lengths = [length + 1 for length in self.lengths]
        num_positions = self.num_positions
        mask = torch.arange(num_positions)[None] >= num_positions - 1 - lengths
        return lengths, mask.long()

    def sequence(self, index: int) -> list[tuple[Tensor, Tensor]]:
        """Return copies of a sequence's keys and values, (1, heads, length, head_dim) for each layer."""
        return [layer.sequence(index, self.lengths[index]) for layer in self.cache.layers]
