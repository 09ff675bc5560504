"""Several prompts in one pass of the model, then token by token with a KV cache."""

from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.modeling_outputs import BaseModelOutputWithPooling

from ..model import ConvLlavaForConditionalGeneration
from .prompt import Prompt

MAX_ENCODER_PIXELS = 1 << 23
"""Pixels that go through the vision encoder at a time: its first stage needs kilobytes for each."""


class Batch:
    """Prompts that are answered together: rows padded on the left, one KV cache.

    Call `encode`, `prefill`, and then `decode` for each further token; `keep` drops rows in between.
    """

    def __init__(self, model: ConvLlavaForConditionalGeneration, prompts: Sequence[Prompt], pad_token_id: int) -> None:
        self._model = model
        self._prompts = prompts
        self._encoded: BaseModelOutputWithPooling | None = None
        self._cache = DynamicCache(config=model.config.get_text_config(decoder=True))
        self._input_ids, self._mask = pad_left([prompt.input_ids for prompt in prompts], pad_token_id)
        self._input_ids, self._mask = self._input_ids.to(model.device), self._mask.to(model.device)

    def encode(self) -> None:
        """Run all pictures through the vision encoder and the projector."""
        features = encode_pictures(self._model, self._prompts)
        if features:
            self._encoded = BaseModelOutputWithPooling(pooler_output=features)
        if self._model.device.type == "cuda":
            torch.cuda.synchronize()  # so that the time it took can be told

    def prefill(self) -> Tensor:
        """Read the prompts and return logits (N, V) of the first token of each answer."""
        encoded = {"image": self._encoded} if self._encoded else None
        logits = self._forward(self._input_ids, mm_encoder_outputs=encoded)
        del self._encoded, self._prompts  # the cache holds all that is needed from here on
        return logits

    def decode(self, tokens: Sequence[int]) -> Tensor:
        """Append one token to each row and return logits (N, V) of the next."""
        column = torch.tensor(tokens, device=self._mask.device)[:, None]
        self._mask = torch.cat([self._mask, torch.ones_like(column)], dim=1)
        return self._forward(column)

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these rows only."""
        indices = torch.tensor(rows, device=self._mask.device)
        self._mask = self._mask[indices]
        self._cache.batch_select_indices(indices)

    def _forward(
        self, input_ids: Tensor, mm_encoder_outputs: dict[str, BaseModelOutputWithPooling] | None = None
    ) -> Tensor:
        positions = (self._mask.cumsum(dim=1) - 1).clamp(min=0)[:, -input_ids.shape[1] :]
        outputs = self._model(
            input_ids=input_ids,
            attention_mask=self._mask,
            position_ids=positions,
            past_key_values=self._cache,
            mm_encoder_outputs=mm_encoder_outputs,
            use_cache=True,
            logits_to_keep=1,
        )
        return outputs.logits[:, -1].float()


def pad_left(rows: Sequence[Tensor], filler: int) -> tuple[Tensor, Tensor]:
    """Return rows (T_i,) as one (N, T) of equal ends, and the mask (N, T) of what is not padding."""
    length = max(map(len, rows))
    padded = torch.full((len(rows), length), filler, dtype=torch.int64)
    mask = torch.zeros_like(padded)
    for row, target, own in zip(rows, padded, mask, strict=True):
        target[length - len(row) :] = row
        own[length - len(row) :] = 1
    return padded, mask


def encode_pictures(model: ConvLlavaForConditionalGeneration, prompts: Sequence[Prompt]) -> list[Tensor]:
    """Return projected features (n_i, D) of all pictures, in order; equal shapes are encoded together."""
    pictures = [picture for prompt in prompts for picture in _cropped(prompt)]
    groups: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for index, picture in enumerate(pictures):
        groups[tuple(picture.shape)].append(index)
    features: dict[int, Tensor] = {}
    for (_, height, width), members in groups.items():
        most = max(1, MAX_ENCODER_PIXELS // (height * width))
        for start in range(0, len(members), most):
            part = members[start : start + most]
            stacked = torch.stack([pictures[index] for index in part]).to(model.device)
            features.update(zip(part, model.get_image_features(stacked).pooler_output, strict=True))
    return [features[index] for index in range(len(pictures))]


def _cropped(prompt: Prompt) -> list[Tensor]:
    """Return each picture (3, H, W) of a prompt without the padding to its neighbours."""
    if prompt.pixel_values is None:
        return []
    return [
        pixels[:, :height, :width]
        for pixels, (height, width) in zip(prompt.pixel_values, prompt.image_sizes, strict=True)
    ]
