"""Several prompts in one pass of the model, then token by token, while others join and leave."""

from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer
from transformers.modeling_outputs import BaseModelOutputWithPooling

from ..model import ConvLlavaForConditionalGeneration
from .kv_cache import Room, RowCache
from .prompt import Prompt
from .reuse import NOTHING, KeysAndValues, RecentlyUsed, Reused

MAX_ENCODER_PIXELS = 1 << 23
"""Pixels that go through the vision encoder at a time: its first stage needs kilobytes for each."""

MAX_ENCODER_PIXELS_ON_CPU = 1 << 18
"""On a CPU one image of 512 x 512 already keeps all cores busy, and a few of them leave its caches: measured with
nano on two cores, four together take a quarter to twice as long as one by one."""


class Batch:
    """Rows that are answered together, each at its own place of its own dialogue.

    `encode` and `prefill` read new prompts, `add` lets them join, `decode` gives every row its next token.
    """

    def __init__(
        self,
        model: ConvLlavaForConditionalGeneration,
        pad_token_id: int,
        features: RecentlyUsed[bytes, Tensor],
        room: Room = Room(),  # noqa: B008, a constant
    ) -> None:
        self._model, self._pad_token_id = model, pad_token_id
        self._features = features
        self._rows = RowCache(room)

    def encode(self, prompts: Sequence[Prompt], reused: Reused = NOTHING) -> list[Tensor]:
        """Return the projected features (n, D) of the images that prompts still have to read, in order.

        An image that was encoded before, or stands here twice, is encoded once; equal shapes go together.

        Args:
            prompts: With images or without.
            reused: A beginning of which nothing needs to be encoded, where there is only one prompt.
        """
        wanted = [image for prompt in prompts for image in _unread(prompt, reused.length)]
        found = {digest: self._features.get(digest) for _, digest, _ in wanted}
        new = {digest: pixels for pixels, digest, _ in wanted if found[digest] is None}
        for digest, features in zip(new, encode_images(self._model, list(new.values())), strict=True):
            found[digest] = features
            self._features.put(digest, features)
        if new and self._model.device.type == "cuda":
            torch.cuda.synchronize()  # so that the time it took can be told
        features_of = {digest: features for digest, features in found.items() if features is not None}
        return [features_of[digest][-count:] for _, digest, count in wanted]

    def prefill(
        self, prompts: Sequence[Prompt], features: Sequence[Tensor], reused: Reused = NOTHING
    ) -> tuple[Tensor, "Prefilled"]:
        """Read prompts and return logits (N, V) of the first token of each answer, and what `add` wants.

        Args:
            prompts: Of any lengths.
            features: From `encode`.
            reused: A beginning that is not read again, where there is only one prompt.
        """
        assert reused.length == 0 or len(prompts) == 1  # with several there would be holes behind the beginning
        cache = Cache(layer_class_to_replicate=DynamicLayer)
        for index, (keys, values) in enumerate(reused.keys_and_values):
            cache.update(keys, values, index)
        input_ids, mask = pad_left([prompt.input_ids[reused.length :] for prompt in prompts], self._pad_token_id)
        mask = torch.cat([mask.new_ones(len(mask), reused.length), mask], dim=1)
        positions = (mask.cumsum(dim=1) - 1).clamp(min=0)[:, reused.length :]
        encoded = {"image": BaseModelOutputWithPooling(pooler_output=list(features))} if features else None
        logits = self._forward(input_ids, mask, positions, cache, encoded)
        return logits, Prefilled(cache, [len(prompt.input_ids) for prompt in prompts])

    def add(self, prefilled: "Prefilled") -> None:
        """Let prompts that were read join, behind the rows that are here."""
        self._rows.add(prefilled.cache, prefilled.lengths)

    def decode(self, tokens: Sequence[int]) -> Tensor:
        """Append one token to each row and return logits (N, V) of the next."""
        positions, mask = self._rows.grow()
        return self._forward(torch.tensor(tokens)[:, None], mask, positions, self._rows.cache)

    def drop(self, row: int) -> None:
        """Let a row leave; the last one takes its place."""
        self._rows.drop(row)

    def keys_and_values(self, row: int) -> KeysAndValues:
        """Return copies of what was computed for a row."""
        return self._rows.row(row)

    def _forward(
        self,
        input_ids: Tensor,
        mask: Tensor,
        positions: Tensor,
        cache: Cache,
        encoded: dict[str, BaseModelOutputWithPooling] | None = None,
    ) -> Tensor:
        device = self._model.device
        outputs = self._model(
            input_ids=input_ids.to(device),
            attention_mask=mask.to(device),
            position_ids=positions.to(device),
            past_key_values=cache,
            mm_encoder_outputs=encoded,
            use_cache=True,
            logits_to_keep=1,
        )
        return outputs.logits[:, -1].float()


class Prefilled:
    """Prompts that were read, not yet among the rows of a batch."""

    def __init__(self, cache: Cache, lengths: list[int]) -> None:
        self.cache, self.lengths = cache, lengths


def pad_left(rows: Sequence[Tensor], filler: int) -> tuple[Tensor, Tensor]:
    """Return rows (T_i,) as one (N, T) of equal ends, and the mask (N, T) of what is not padding."""
    length = max(map(len, rows))
    padded = torch.full((len(rows), length), filler, dtype=torch.int64)
    mask = torch.zeros_like(padded)
    for row, target, own in zip(rows, padded, mask, strict=True):
        target[length - len(row) :] = row
        own[length - len(row) :] = 1
    return padded, mask


def encode_images(model: ConvLlavaForConditionalGeneration, images: Sequence[Tensor]) -> list[Tensor]:
    """Return projected features (n_i, D) of images (3, H_i, W_i), in order; equal shapes are encoded together."""
    groups: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for index, image in enumerate(images):
        groups[tuple(image.shape)].append(index)
    features: dict[int, Tensor] = {}
    pixels = MAX_ENCODER_PIXELS_ON_CPU if model.device.type == "cpu" else MAX_ENCODER_PIXELS
    for (_, height, width), members in groups.items():
        most = max(1, pixels // (height * width))
        for start in range(0, len(members), most):
            part = members[start : start + most]
            stacked = torch.stack([images[index] for index in part]).to(model.device)
            # clones: a view would keep the features of the whole group in memory
            outputs = (own.clone() for own in model.get_image_features(stacked).pooler_output)
            features.update(zip(part, outputs, strict=True))
    return [features[index] for index in range(len(images))]


def _unread(prompt: Prompt, start: int) -> list[tuple[Tensor, bytes, int]]:
    """Return (pixels, digest, visual tokens) of the images that a prompt has from position `start` on."""
    left = int(prompt.is_image[start:].sum())
    unread = []
    for pixels, digest, count in reversed(
        list(zip(prompt.images, prompt.image_digests, prompt.tokens_per_image, strict=True))
    ):
        if left > 0:
            unread.append((pixels, digest, min(count, left)))
        left -= count
    return unread[::-1]
