"""The state of one request between submission and answer."""

import time
from collections.abc import Set
from typing import Literal

from ..geometry import Box
from ..model import ConvLlavaProcessor
from .boxes import boxes_in_pixels
from .prompt import Prompt
from .request import Answer, Request, Timings
from .sampling import LOWEST_TEMPERATURE, Sampler
from .text_stream import TextStream

FinishReason = Literal["stop", "length"]


class GeneratedSequence:
    """One sequence of the batch, or one entry of the queue: a prompt and its answer so far."""

    def __init__(
        self,
        request_id: int,
        request: Request,
        prompt: Prompt,
        processor: ConvLlavaProcessor,
        submitted: float,
    ) -> None:
        self.request_id = request_id
        self.prompt = prompt
        self.sampler = Sampler(request) if request.temperature >= LOWEST_TEMPERATURE else None
        self.repetition_penalty = request.repetition_penalty
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

    def append(self, token: int, ends: Set[int]) -> tuple[str, FinishReason | None]:
        """Append a token; return the new text and, at the end, the reason for it."""
        self.token_ids.append(token)
        if len(self.token_ids) == 1:
            self._first_token_seconds = time.perf_counter() - self._submitted
        piece, reason = self._read(token, ends)
        self._text += piece
        return piece, reason

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
            box_image=prompt.box_image,
        )

    def _boxes(self) -> tuple[Box, ...]:
        if self.prompt.box_image is None:
            return ()
        height, width = self.prompt.original_sizes[self.prompt.box_image]
        return boxes_in_pixels(self._text, width, height)

    def _read(self, token: int, ends: Set[int]) -> tuple[str, FinishReason | None]:
        if token in ends:
            return self._stream.finish(), "stop"
        piece = self._stream.push(token)
        if self._stream.stopped:
            return piece, "stop"
        if len(self.token_ids) < self.prompt.max_new_tokens:
            return piece, None
        piece += self._stream.finish()
        return piece, "stop" if self._stream.stopped else "length"

    def _timings(self) -> Timings:
        return Timings(
            encode_seconds=self._encode_seconds,
            first_token_seconds=self._first_token_seconds,
            total_seconds=time.perf_counter() - self._submitted,
            queue_seconds=self._queue_seconds,
        )
