"""Caches of earlier results: features of images, and keys and values of dialogues."""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from typing import Generic, NamedTuple, TypeVar

import torch
from torch import Tensor

from .prompt import Prompt

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")

KeysAndValues = list[tuple[Tensor, Tensor]]
"""Keys and values of each layer, (1, heads, positions, head_dim)."""

WORTH_REUSING = 64
"""Minimum length of a reused prefix, unless it is half of the prompt.

A prompt with a reused prefix is prefilled by itself; for a shorter prefix (a system message that all prompts share)
this costs more than it saves.
"""


class RecentlyUsed(Generic[Key, Value]):
    """A mapping of bounded size that evicts the least recently used value first."""

    def __init__(self, max_bytes: int, num_bytes: Callable[[Value], int]) -> None:
        self._max_bytes, self._measure = max_bytes, num_bytes
        self._values: OrderedDict[Key, Value] = OrderedDict()
        self.num_bytes = 0

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: Key) -> Value | None:
        """Return a value and mark it as the most recently used; None if it is not cached."""
        if key in self._values:
            self._values.move_to_end(key)
        return self._values.get(key)

    def put(self, key: Key, value: Value) -> None:
        """Store a value unless it alone exceeds the limit."""
        self.drop(key)
        size = self._measure(value)
        if size > self._max_bytes:
            return
        while self.num_bytes + size > self._max_bytes:
            self.drop(next(iter(self._values)))
        self._values[key] = value
        self.num_bytes += size

    def drop(self, key: Key) -> None:
        """Remove a value if it is cached."""
        value = self._values.pop(key, None)
        if value is not None:
            self.num_bytes -= self._measure(value)

    def items(self) -> list[tuple[Key, Value]]:
        """Return all keys and values, the least recently used first."""
        return list(self._values.items())


def feature_cache(max_bytes: int) -> RecentlyUsed[bytes, Tensor]:
    """Return an empty cache of projected features (n, D) by the digest of the preprocessed image."""
    return RecentlyUsed(max_bytes, lambda features: features.nbytes)


class Reused(NamedTuple):
    """The prefix of a prompt whose keys and values are known."""

    length: int
    keys_and_values: KeysAndValues


NOTHING = Reused(0, [])


class Dialogue(NamedTuple):
    """A stored dialogue: tokens (T,) of its prompt and answer, keys and values, and the requests that may reuse it."""

    tokens: Tensor
    num_prompt_tokens: int
    salt: str
    keys_and_values: KeysAndValues


class PrefixCache:
    """Keys and values of the latest dialogues, with which the next turn of one continues.

    Two prompts share a prefix if their salts and tokens are equal and, at image tokens, the pixels of the images too.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._dialogues: RecentlyUsed[int, Dialogue] = RecentlyUsed(
            max_bytes, lambda dialogue: sum(keys.nbytes + values.nbytes for keys, values in dialogue.keys_and_values)
        )
        self._next = 0

    def __len__(self) -> int:
        return len(self._dialogues)

    @property
    def is_on(self) -> bool:
        """Whether dialogues are kept."""
        return self._max_bytes > 0

    def find(self, prompt: Prompt) -> Reused:
        """Return the longest prefix of a prompt that is worth reusing; at least one token is left to compute."""
        if not self._dialogues:
            return NOTHING
        wanted = signature(prompt)
        best, found = NOTHING, None
        for key, stored in self._dialogues.items():
            if stored.salt != prompt.cache_salt:
                continue
            length = min(common_length(stored.tokens, wanted), len(wanted) - 1)
            if prompt.reuse_dialogue_only and length < stored.num_prompt_tokens:
                continue
            if length > best.length and (length >= WORTH_REUSING or 2 * length >= len(wanted)):
                best, found = Reused(length, stored.keys_and_values), key
        if found is None:
            return NOTHING
        self._dialogues.get(found)
        return Reused(best.length, [(k[:, :, : best.length], v[:, :, : best.length]) for k, v in best.keys_and_values])

    def keep(self, prompt: Prompt, answer: Sequence[int], keys_and_values: KeysAndValues) -> None:
        """Keep the keys and values of a prompt and its answer, in place of those of its prefixes."""
        length = keys_and_values[0][0].shape[-2]
        tokens = torch.cat([signature(prompt), torch.tensor(answer, dtype=torch.int64)])[:length]
        for key, stored in self._dialogues.items():
            known = stored.tokens
            is_prefix = len(known) <= len(tokens) and common_length(known, tokens) == len(known)
            if is_prefix and stored.salt == prompt.cache_salt:
                self._dialogues.drop(key)
        dialogue = Dialogue(tokens, len(prompt.input_ids), prompt.cache_salt, keys_and_values)
        self._dialogues.put(self._next, dialogue)
        self._next += 1


def signature(prompt: Prompt) -> Tensor:
    """Return the prompt's tokens (T,), those of an image replaced by a negative number made of its digest."""
    marks: list[int] = []
    for digest, count in zip(prompt.image_digests, prompt.tokens_per_image, strict=True):
        marks += [-1 - (int.from_bytes(digest[:8], "big") >> 1)] * count
    return prompt.input_ids.masked_scatter(prompt.is_image, torch.tensor(marks, dtype=torch.int64))


def common_length(first: Tensor, second: Tensor) -> int:
    """Return the length of the common prefix of two sequences (T,)."""
    length = min(len(first), len(second))
    different = (first[:length] != second[:length]).nonzero()
    return int(different[0]) if len(different) else length
