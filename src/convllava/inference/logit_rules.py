"""Rules that change the logits of one sequence before its next token is chosen, as `model.generate` does."""

from collections.abc import Sequence, Set
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import (
    ExponentialDecayLengthPenalty,
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    MinLengthLogitsProcessor,
    MinNewTokensLengthLogitsProcessor,
    NoBadWordsLogitsProcessor,
    SequenceBiasLogitsProcessor,
    SuppressTokensAtBeginLogitsProcessor,
)

from ..support import first_line
from .request import Request


class Rule(Protocol):
    """A change of the logits that depends on the tokens so far."""

    def push(self, token: int) -> None:
        """Take the next token of the answer."""

    def __call__(self, logits: Tensor) -> Tensor:  # (V,) -> (V,)
        """Return the changed logits (V,)."""


class RepetitionPenalty:
    """Makes the tokens of the prompt and the answer less likely by a factor."""

    def __init__(self, penalty: float, tokens: Sequence[int]) -> None:
        self._penalty, self._seen = penalty, set(tokens)
        self._index: Tensor | None = None

    def push(self, token: int) -> None:
        """Take the next token of the answer."""
        if token not in self._seen:
            self._seen.add(token)
            self._index = None

    def __call__(self, logits: Tensor) -> Tensor:  # (V,)
        """Return logits (V,) in which positive ones of tokens seen are divided, negative ones multiplied."""
        if self._index is None:
            self._index = torch.tensor(sorted(self._seen), dtype=torch.int64, device=logits.device)
        scores = logits[self._index]
        scores = torch.where(scores < 0, scores * self._penalty, scores / self._penalty)
        return logits.index_copy(0, self._index, scores)


class NoRepeatedNgrams:
    """Forbids the tokens that would complete a sequence of `size` tokens a second time among the latest ones.

    Args:
        size: Number of tokens.
        window: Number of latest tokens in which a sequence counts; None counts all.
        tokens: Tokens of the prompt.
    """

    def __init__(self, size: int, window: int | None, tokens: Sequence[int]) -> None:
        self._size, self._window = size, window
        self._tokens: list[int] = []
        self._followers: dict[tuple[int, ...], dict[int, int]] = {}  # first tokens -> last token -> latest position
        for token in tokens:
            self.push(token)

    def push(self, token: int) -> None:
        """Take the next token."""
        self._tokens.append(token)
        start = len(self._tokens) - self._size
        if start >= 0:
            self._followers.setdefault(tuple(self._tokens[start:-1]), {})[token] = start

    def forbidden(self) -> list[int]:
        """Return the tokens that may not come next."""
        length = len(self._tokens)
        followers = self._followers.get(tuple(self._tokens[length - self._size + 1 :]), {})
        earliest = 0 if self._window is None else length - self._window
        return [token for token, start in followers.items() if start >= earliest]

    def __call__(self, logits: Tensor) -> Tensor:  # (V,)
        """Return logits (V,) in which the forbidden tokens are -inf."""
        tokens = self.forbidden()
        return logits.index_fill(0, torch.tensor(tokens, device=logits.device), -torch.inf) if tokens else logits


class CheckpointRules:
    """Rules of transformers that a checkpoint's generation_config.json asks for and requests have no option for."""

    def __init__(self, processors: LogitsProcessorList, tokens: Sequence[int]) -> None:
        self._processors, self._tokens = processors, list(tokens)

    def push(self, token: int) -> None:
        """Take the next token of the answer."""
        self._tokens.append(token)

    def __call__(self, logits: Tensor) -> Tensor:  # (V,)
        """Return the changed logits (V,)."""
        input_ids = torch.tensor([self._tokens], device=logits.device)
        return self._processors(input_ids, logits[None])[0]


def rules_of(request: Request, config: GenerationConfig, prompt: Sequence[int], ends: Set[int]) -> list[Rule]:
    """Return the rules of one sequence, none if neither the request nor the checkpoint asks for any.

    Args:
        request: The request; its values go before the checkpoint's.
        config: The checkpoint's defaults.
        prompt: Token ids of the prompt.
        ends: Tokens that end an answer.
    """
    rules: list[Rule] = []
    penalty = _first_set(request.repetition_penalty, config.repetition_penalty, 1.0)
    if penalty != 1:
        rules.append(RepetitionPenalty(penalty, prompt))
    size = _first_set(request.no_repeat_ngram_size, config.no_repeat_ngram_size, 0)
    if size > 0:
        rules.append(NoRepeatedNgrams(size, request.no_repeat_ngram_window, prompt))
    if processors := _processors(config, len(prompt), sorted(ends)):
        rules.append(CheckpointRules(LogitsProcessorList(processors), prompt))
    return rules


def check_rules(config: GenerationConfig, ends: Set[int], vocab_size: int) -> None:
    """Check the values of a checkpoint's generation_config.json that need rules.

    Raises:
        ValueError: A value is not one that transformers takes.
    """
    try:
        if processors := _processors(config, 1, sorted(ends)):
            CheckpointRules(LogitsProcessorList(processors), [0])(torch.zeros(vocab_size))
    except (ValueError, TypeError, IndexError, RuntimeError) as error:
        raise ValueError(f"generation_config.json has a value that cannot be used: {first_line(error)}") from error


def _first_set(*values: Any) -> Any:
    return next(value for value in values if value is not None)


def _processors(config: GenerationConfig, num_prompt_tokens: int, ends: list[int]) -> list[LogitsProcessor]:
    """Return transformers' processors in the order of `model.generate`."""
    found: list[LogitsProcessor] = []
    if config.sequence_bias:
        found.append(SequenceBiasLogitsProcessor(config.sequence_bias))
    if config.bad_words_ids:
        found.append(NoBadWordsLogitsProcessor(config.bad_words_ids, ends or None))
    if config.min_length and ends:
        found.append(MinLengthLogitsProcessor(config.min_length, ends))
    if config.min_new_tokens and ends:
        found.append(MinNewTokensLengthLogitsProcessor(num_prompt_tokens, config.min_new_tokens, ends))
    decay = config.exponential_decay_length_penalty
    if decay is not None and ends:
        found.append(ExponentialDecayLengthPenalty(decay, torch.tensor(ends), num_prompt_tokens))
    if config.begin_suppress_tokens:
        found.append(SuppressTokensAtBeginLogitsProcessor(config.begin_suppress_tokens, num_prompt_tokens))
    return found
