"""What was computed once and is needed again: features of images, keys and values of dialogues."""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from typing import Generic, NamedTuple, TypeVar

import torch
from torch import Tensor

from .prompt import Prompt

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")

KeysAndValues = list[tuple[Tensor, Tensor]]
"""Of each layer, (1, heads, positions, width)."""

WORTH_REUSING = 64
"""A common beginning of so many positions, or of half the prompt, is worth a prefill of its own.

Less than that (a system message that all prompts share) costs more in lost company than it saves.
"""


class RecentlyUsed(Generic[Key, Value]):
    """A mapping of bounded size; what was not used for longest leaves first."""

    def __init__(self, max_bytes: int, num_bytes: Callable[[Value], int]) -> None:
        self._max_bytes, self._measure = max_bytes, num_bytes
        self._values: OrderedDict[Key, Value] = OrderedDict()
        self.num_bytes = 0

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: Key) -> Value | None:
        """Return a value, now the last to leave."""
        if key in self._values:
            self._values.move_to_end(key)
        return self._values.get(key)

    def put(self, key: Key, value: Value) -> None:
        """Keep a value if it fits at all."""
        self.drop(key)
        size = self._measure(value)
        if size > self._max_bytes:
            return
        while self.num_bytes + size > self._max_bytes:
            self.drop(next(iter(self._values)))
        self._values[key] = value
        self.num_bytes += size

    def drop(self, key: Key) -> None:
        """Forget a value, if it is here."""
        value = self._values.pop(key, None)
        if value is not None:
            self.num_bytes -= self._measure(value)

    def items(self) -> list[tuple[Key, Value]]:
        """Return all of them, what leaves first in front."""
        return list(self._values.items())


def feature_cache(max_bytes: int) -> RecentlyUsed[bytes, Tensor]:
    """Return an empty cache of projected features (n, D) by the digest of the image as the encoder sees it."""
    return RecentlyUsed(max_bytes, lambda features: features.nbytes)


class Reused(NamedTuple):
    """The beginning of a prompt that was read before."""

    length: int
    keys_and_values: KeysAndValues


NOTHING = Reused(0, [])


class PrefixCache:
    """Keys and values of the latest dialogues; the next turn of one continues where it ended.

    Two prompts share a beginning if their tokens are equal and, where an image stands, its pixels too.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._dialogues: RecentlyUsed[int, tuple[Tensor, KeysAndValues]] = RecentlyUsed(
            max_bytes, lambda dialogue: sum(keys.nbytes + values.nbytes for keys, values in dialogue[1])
        )
        self._next = 0

    def __len__(self) -> int:
        return len(self._dialogues)

    @property
    def is_on(self) -> bool:
        """Whether anything can be kept here."""
        return self._max_bytes > 0

    def find(self, prompt: Prompt) -> Reused:
        """Return the longest beginning of a prompt that is worth reusing; at least one token stays to be read."""
        if not self._dialogues:
            return NOTHING
        wanted = signature(prompt)
        best, found = NOTHING, None
        for key, (stored, keys_and_values) in self._dialogues.items():
            length = min(common_length(stored, wanted), len(wanted) - 1)
            if length > best.length and (length >= WORTH_REUSING or 2 * length >= len(wanted)):
                best, found = Reused(length, keys_and_values), key
        if found is None:
            return NOTHING
        self._dialogues.get(found)
        return Reused(best.length, [(k[:, :, : best.length], v[:, :, : best.length]) for k, v in best.keys_and_values])

    def keep(self, prompt: Prompt, answer: Sequence[int], keys_and_values: KeysAndValues) -> None:
        """Keep what was computed for a prompt and the beginning of its answer, in place of shorter beginnings."""
        length = keys_and_values[0][0].shape[-2]
        own = torch.cat([signature(prompt), torch.tensor(answer, dtype=torch.int64)])[:length]
        for key, (stored, _) in self._dialogues.items():
            if len(stored) <= len(own) and common_length(stored, own) == len(stored):
                self._dialogues.drop(key)
        self._dialogues.put(self._next, (own, keys_and_values))
        self._next += 1


def signature(prompt: Prompt) -> Tensor:
    """Return the prompt's tokens (T,), those of an image replaced by a negative number that stands for it."""
    marks: list[int] = []
    for digest, count in zip(prompt.image_digests, prompt.tokens_per_image, strict=True):
        marks += [-1 - (int.from_bytes(digest[:8], "big") >> 1)] * count
    return prompt.input_ids.masked_scatter(prompt.is_image, torch.tensor(marks, dtype=torch.int64))


def common_length(first: Tensor, second: Tensor) -> int:
    """Return at how many positions from the beginning on two rows (T,) are equal."""
    length = min(len(first), len(second))
    different = (first[:length] != second[:length]).nonzero()
    return int(different[0]) if len(different) else length
