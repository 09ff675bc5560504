"""Choosing the next token of each sequence of a batch."""

import torch
from torch import Tensor
from transformers import GenerationConfig, PreTrainedTokenizerBase

from .request import Request

LOWEST_TEMPERATURE = 1e-5
"""Temperature below which the most likely token is taken: logits divided by less can exceed float32."""


class Sampler:
    """Draws the tokens of one request (temperature above 0) from a random stream of its own.

    An answer therefore does not depend on the other requests of the batch.
    """

    def __init__(self, request: Request) -> None:
        self._temperature, self._top_p = request.temperature, request.top_p
        self._top_k, self._min_p = request.top_k, request.min_p
        self._random = torch.Generator()
        if request.seed is None:
            self._random.seed()
        else:
            self._random.manual_seed(request.seed)

    def __call__(self, logits: Tensor) -> int:  # (V,)
        """Return a token drawn from logits (V,)."""
        # on the CPU, in float32: the same draw on every device
        scores = most_likely(logits.float().cpu() / self._temperature, self._top_k)
        probabilities = nucleus(torch.softmax(scores, dim=-1), self._top_p)
        if self._min_p > 0:
            probabilities = probabilities.masked_fill(probabilities < self._min_p * probabilities.max(), 0.0)
        return int(torch.multinomial(probabilities, 1, generator=self._random))


def most_likely(logits: Tensor, top_k: int) -> Tensor:
    """Keep the `top_k` highest logits (V,), and those equal to the lowest of them; the others become -inf.

    A `top_k` of 0 keeps all.
    """
    if not 0 < top_k < len(logits):
        return logits
    return logits.masked_fill(logits < logits.topk(top_k).values[-1], -torch.inf)


def nucleus(probabilities: Tensor, top_p: float) -> Tensor:
    """Keep the fewest likeliest tokens whose probabilities (V,) add up to `top_p`; set the others to 0."""
    if top_p >= 1:
        return probabilities
    sorted_probabilities, order = probabilities.sort(descending=True)
    before = sorted_probabilities.cumsum(dim=-1) - sorted_probabilities
    is_beyond = before >= top_p
    is_beyond[0] = False  # a top_p that float32 rounds to 0 keeps the most likely token
    kept = torch.zeros_like(probabilities)
    kept[order] = sorted_probabilities.masked_fill(is_beyond, 0.0)
    return kept


def suppressed_tokens(config: GenerationConfig, image_token_id: int) -> list[int]:
    """Return the tokens that are never generated; `<image>` is one even if the checkpoint does not list it."""
    return sorted({image_token_id, *(config.suppress_tokens or ())})


def end_tokens(config: GenerationConfig, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Return the tokens that end an answer: those of the checkpoint, or else the tokenizer's."""
    ends = config.eos_token_id if config.eos_token_id is not None else tokenizer.eos_token_id
    if ends is None:
        return frozenset()
    return frozenset([ends] if isinstance(ends, int) else map(int, ends))
