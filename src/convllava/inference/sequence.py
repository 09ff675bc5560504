"""The state of one request between submission and answer."""

import time
from collections.abc import Sequence, Set
from functools import partial

import torch
from torch import Tensor
from transformers import GenerationConfig, PreTrainedTokenizerBase

from ..geometry import Box
from ..model import ConvLlavaProcessor
from .boxes import boxes_in_pixels
from .constraint import Constraint
from .logit_rules import rules_of
from .loops import LoopDetector
from .prompt import Prompt
from .request import Answer, FinishReason, Request, Timings, TokenLogprob
from .sampling import LOWEST_TEMPERATURE, Sampler
from .text_stream import TextStream


class GeneratedSequence:
    """One sequence of the batch, or one entry of the queue: a prompt and its answer so far."""

    def __init__(
        self,
        request_id: int,
        request: Request,
        prompt: Prompt,
        processor: ConvLlavaProcessor,
        config: GenerationConfig,
        ends: Set[int],
        submitted: float,
        constraint: Constraint | None = None,
    ) -> None:
        self.request_id = request_id
        self.prompt = prompt
        self._tokenizer, self._ends = processor.tokenizer, ends
        self.sampler = Sampler(request) if request.temperature >= LOWEST_TEMPERATURE else None
        self._rules = rules_of(request, config, prompt.input_ids.tolist(), ends)
        self._constraint = constraint
        self._top_logprobs = request.top_logprobs
        self._log_probabilities: Tensor | None = None
        self._logprobs: list[TokenLogprob] = []
        self._num_sent_logprobs = 0
        self._loops = LoopDetector(partial(_has_letters, processor.tokenizer)) if request.stop_on_repetition else None
        self.token_ids: list[int] = []
        self._encode_seconds = self._queue_seconds = 0.0
        self._num_cached_tokens = 0
        self._stream = TextStream(processor.tokenizer, request.stop)
        self._stride = processor.image_processor.output_stride
        self._text = ""
        self._submitted = submitted
        self._first_token_seconds = 0.0

    def admit(self, now: float, encode_seconds: float, num_cached_tokens: int) -> None:
        """Note when the request left the queue, and what prefilling its prompt took."""
        self._queue_seconds = now - self._submitted
        self._encode_seconds, self._num_cached_tokens = encode_seconds, num_cached_tokens

    def observe(self, logits: Tensor) -> None:  # (V,)
        """Note the model's logits (V,) of the next token, before any change, if log probabilities are asked for."""
        if self._top_logprobs is not None:
            self._log_probabilities = torch.log_softmax(logits.float(), dim=-1)

    def choose(self, logits: Tensor, most_likely: int) -> int:  # (V,)
        """Return the next token.

        Args:
            logits: Logits (V,).
            most_likely: Token with the highest of them.
        """
        if self._rules or self._constraint is not None:
            changed = logits
            for rule in self._rules:
                changed = rule(changed)
            logits = changed if self._constraint is None else self._constraint(changed, logits)
            most_likely = int(logits.argmax())
        return most_likely if self.sampler is None else self.sampler(logits)

    def append(self, token: int) -> tuple[str, FinishReason | None]:
        """Append a token; return the new text and, at the end, the reason for it."""
        self.token_ids.append(token)
        for rule in self._rules:
            rule.push(token)
        if self._constraint is not None:
            self._constraint.push(token)
        self._note_logprob(token)
        if len(self.token_ids) == 1:
            self._first_token_seconds = time.perf_counter() - self._submitted
        piece, reason = self._read(token)
        self._text += piece
        return piece, reason

    def new_logprobs(self) -> tuple[TokenLogprob, ...]:
        """Return the log probabilities since the last call."""
        new = tuple(self._logprobs[self._num_sent_logprobs :])
        self._num_sent_logprobs = len(self._logprobs)
        return new

    def answer(self, reason: FinishReason) -> Answer:
        """Return the finished answer."""
        prompt, sizes = self.prompt, self.prompt.image_sizes
        grids = tuple((height // self._stride, width // self._stride) for height, width in sizes)
        return Answer(
            text=self._text,
            token_ids=tuple(self.token_ids),
            finish_reason=reason,
            boxes=self._boxes(),
            num_prompt_tokens=len(prompt.input_ids),
            num_image_tokens=sum(rows * columns for rows, columns in grids),
            image_sizes=sizes,
            grids=grids,
            timings=self._timings(),
            num_cached_tokens=self._num_cached_tokens,
            logprobs=None if self._top_logprobs is None else tuple(self._logprobs),
            box_image=prompt.box_image,
        )

    def _boxes(self) -> tuple[Box, ...]:
        if self.prompt.box_image is None:
            return ()
        height, width = self.prompt.original_sizes[self.prompt.box_image]
        return boxes_in_pixels(self._text, width, height)

    def _read(self, token: int) -> tuple[str, FinishReason | None]:
        if token in self._ends:
            return self._stream.finish(), "stop"
        piece = self._stream.push(token)
        if self._stream.stopped:
            return piece, "stop"
        reason: FinishReason | None = None
        if self._constraint is not None and self._constraint.is_complete:
            reason = "stop"
        elif self._loops is not None and self._loops.push(token):
            reason = "repetition"
        elif len(self.token_ids) >= self.prompt.max_new_tokens:
            reason = "length"
        if reason is None:
            return piece, None
        piece += self._stream.finish()
        return piece, "stop" if self._stream.stopped else reason

    def _note_logprob(self, token: int) -> None:
        scores = self._log_probabilities
        if scores is None or self._top_logprobs is None or token in self._ends:
            return
        values, ids = scores.topk(min(self._top_logprobs, len(scores)))
        top = tuple(zip(ids.tolist(), values.tolist(), strict=True))
        self._logprobs.append(TokenLogprob(token, float(scores[token]), top))

    def _timings(self) -> Timings:
        return Timings(
            encode_seconds=self._encode_seconds,
            first_token_seconds=self._first_token_seconds,
            total_seconds=time.perf_counter() - self._submitted,
            queue_seconds=self._queue_seconds,
        )


def _has_letters(tokenizer: PreTrainedTokenizerBase, tokens: Sequence[int]) -> bool:
    # no method: a cycle of references would keep the pixels of a finished request until the garbage is collected
    return any(map(str.isalpha, tokenizer.decode(tokens, skip_special_tokens=True)))
