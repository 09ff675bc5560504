"""The forward passes of generation: prompts are prefilled together, then all sequences are decoded token by token."""

from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer
from transformers.modeling_outputs import BaseModelOutputWithPooling

from ..model import ConvLlavaForConditionalGeneration
from .kv_cache import BatchCache, KVCapacity
from .prompt import Prompt
from .reuse import NOTHING, KeysAndValues, RecentlyUsed, Reused

MAX_ENCODER_PIXELS = 1 << 23
"""Maximum pixels in one pass of the vision encoder: its first stage needs kilobytes for each."""

MAX_ENCODER_PIXELS_ON_CPU = 1 << 18
"""The same on a CPU, where one image of 512 x 512 already keeps all cores busy and a few exceed the caches: measured
with nano on two cores, four together take a quarter to twice as long as one by one."""


class Batch:
    """Sequences that are decoded together, each at a position of its own.

    `encode` and `prefill` process new prompts, `add` lets them join, `decode` computes one step of all sequences.

    Args:
        model: The model.
        pad_token_id: Token for the padding of shorter prompts.
        features: Cache of projected features by the digest of the image.
        capacity: Minimum size of an allocation of keys and values.
    """

    def __init__(
        self,
        model: ConvLlavaForConditionalGeneration,
        pad_token_id: int,
        features: RecentlyUsed[bytes, Tensor],
        capacity: KVCapacity | None = None,
    ) -> None:
        self._model, self._pad_token_id = model, pad_token_id
        self._features = features
        self._sequences = BatchCache(capacity)

    def encode(self, prompts: Sequence[Prompt], reused: Reused = NOTHING) -> list[Tensor]:
        """Return the projected features (n, D) of the images in the part of the prompts that is not reused, in order.

        An image that is cached, or occurs twice, is encoded once; equal shapes are encoded together.

        Args:
            prompts: Prompts with or without images.
            reused: Prefix that needs no encoding; only for a single prompt.
        """
        wanted = [image for prompt in prompts for image in _unread(prompt, reused.length)]
        found = {digest: self._features.get(digest) for _, digest, _ in wanted}
        new = {digest: pixels for pixels, digest, _ in wanted if found[digest] is None}
        for digest, features in zip(new, encode_images(self._model, list(new.values())), strict=True):
            found[digest] = features
            self._features.put(digest, features)
        if new and self._model.device.type == "cuda":
            torch.cuda.synchronize()  # so that the measured time includes the encoding
        features_of = {digest: features for digest, features in found.items() if features is not None}
        return [features_of[digest][-count:] for _, digest, count in wanted]

    def prefill(
        self, prompts: Sequence[Prompt], features: Sequence[Tensor], reused: Reused = NOTHING
    ) -> tuple[Tensor, "Prefilled"]:
        """Return the logits (N, V) of the first token of each answer, and the prefilled sequences for `add`.

        Args:
            prompts: Prompts of any lengths.
            features: Result of `encode`.
            reused: Prefix that is not computed again; only for a single prompt, since shorter ones would have
                padding after it.

        Raises:
            ValueError: A prefix and several prompts are given.
        """
        if reused.length and len(prompts) > 1:
            raise ValueError(f"a reused prefix serves one prompt, got {len(prompts)}: prefill them one by one")
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
        """Add prefilled sequences after those of the batch."""
        self._sequences.add(prefilled.cache, prefilled.lengths)

    def decode(self, tokens: Sequence[int]) -> Tensor:
        """Append one token to each sequence and return the logits (N, V) of the next."""
        positions, mask = self._sequences.grow()
        return self._forward(torch.tensor(tokens)[:, None], mask, positions, self._sequences.cache)

    def drop(self, index: int) -> None:
        """Remove a sequence; the last one takes its place."""
        self._sequences.drop(index)

    def keys_and_values(self, index: int) -> KeysAndValues:
        """Return copies of the keys and values of a sequence."""
        return self._sequences.sequence(index)

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
    """Prefilled sequences that are not part of a batch yet."""

    def __init__(self, cache: Cache, lengths: list[int]) -> None:
        self.cache, self.lengths = cache, lengths


def pad_left(sequences: Sequence[Tensor], pad_token_id: int) -> tuple[Tensor, Tensor]:
    """Return sequences (T_i,) padded on the left to (N, T), and the attention mask (N, T)."""
    length = max(map(len, sequences))
    padded = torch.full((len(sequences), length), pad_token_id, dtype=torch.int64)
    mask = torch.zeros_like(padded)
    for sequence, tokens, visible in zip(sequences, padded, mask, strict=True):
        tokens[length - len(sequence) :] = sequence
        visible[length - len(sequence) :] = 1
    return padded, mask


def encode_images(model: ConvLlavaForConditionalGeneration, images: Sequence[Tensor]) -> list[Tensor]:
    """Return the projected features (n_i, D) of images (3, H_i, W_i), in order; equal shapes are encoded together."""
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
            outputs = (output.clone() for output in model.get_image_features(stacked).pooler_output)
            features.update(zip(part, outputs, strict=True))
    return [features[index] for index in range(len(images))]


def _unread(prompt: Prompt, start: int) -> list[tuple[Tensor, bytes, int]]:
    """Return (pixels, digest, number of visual tokens) of the images from position `start` of a prompt on."""
    left = int(prompt.is_image[start:].sum())
    unread = []
    for pixels, digest, count in reversed(
        list(zip(prompt.images, prompt.image_digests, prompt.tokens_per_image, strict=True))
    ):
        if left > 0:
            unread.append((pixels, digest, min(count, left)))
        left -= count
    return unread[::-1]
