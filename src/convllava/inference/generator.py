"""The one road to an answer: requests in, pieces of text out, several at a time."""

import itertools
import logging
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

from ..model import ConvLlavaForConditionalGeneration, ConvLlavaProcessor
from .batch import MAX_ENCODER_PIXELS, Batch
from .kv_cache import Room
from .prompt import Prompt, prepare
from .request import Answer, Event, Failed, Finished, Request, TextDelta
from .reuse import NOTHING, PrefixCache, Reused, feature_cache
from .row import Row
from .sampling import end_tokens, penalize, suppressed_tokens

MAX_BATCH = 8

FEATURE_CACHE_BYTES = 64 << 20
"""For features of images: some thousand images of 1024 x 1024 pixels with nano, a hundred with a 7B model."""

PIXELS_BESIDE_OTHERS = 1 << 20
"""Pixels that are encoded in one step while others wait for their next token: a fraction of a second on a CPU."""

ATTENTION_LAYERS = {"full_attention", "sliding_attention", "chunked_attention"}
"""Layers of a language model whose state is keys and values, which rows of a batch can bring and take away."""

logger = logging.getLogger(__name__)


class Generator:
    """Answers requests in batches with a KV cache; requests join while others are being answered.

    First come, first served: up to `max_batch` rows are answered at a time, and a row that is finished or
    canceled makes room at once. At temperature 0 an answer equals that of `model.generate`, in whatever
    company it is computed (float32; of two tokens that are equally likely within rounding either may win).
    An image that is shown again is not encoded again.

    Args:
        model, processor: From `load_pretrained`.
        max_batch: Rows answered at a time.
        prefix_cache_bytes: For keys and values of the latest dialogues, so that a further turn of one costs
            only what is new in it; 0 keeps none.
        static_cache: Allocate the memory for keys and values once, for `max_batch` rows of the whole context,
            instead of as they come: if it does not suffice, that shows with the first request.

    Example:
        generator = Generator(model, processor)
        identity = generator.submit(Request.of_question("What does it say?", ["receipt.png"]))
        while generator.is_busy:
            for event in generator.step():
                ...

    Not thread-safe: one thread submits, steps and cancels.
    """

    def __init__(
        self,
        model: ConvLlavaForConditionalGeneration,
        processor: ConvLlavaProcessor,
        max_batch: int = MAX_BATCH,
        *,
        prefix_cache_bytes: int = 0,
        static_cache: bool = False,
    ) -> None:
        if max_batch < 1:
            raise ValueError(f"max_batch must be at least 1, got {max_batch}")
        self.model = model
        self.processor = processor
        self.max_batch = max_batch
        text_config = model.config.get_text_config(decoder=True)
        _check_layers(text_config)
        self.context: int = text_config.max_position_embeddings
        self._room = Room(max_batch, self.context) if static_cache else Room()
        self._ends = end_tokens(model.generation_config, processor.tokenizer)
        image_token_id: int = processor.image_token_id
        self._suppressed = suppressed_tokens(model.generation_config, image_token_id)
        self._ids = itertools.count()
        self._waiting: deque[Row] = deque()
        self._rows: list[Row] = []
        self._features = feature_cache(FEATURE_CACHE_BYTES)
        self._prefixes = PrefixCache(prefix_cache_bytes)
        self._batch = self._new_batch()

    @property
    def num_waiting(self) -> int:
        """Requests that are not being answered yet."""
        return len(self._waiting)

    @property
    def num_running(self) -> int:
        """Rows of the batch."""
        return len(self._rows)

    @property
    def is_busy(self) -> bool:
        """Whether a request waits or is being answered."""
        return bool(self._waiting or self._rows)

    def submit(self, request: Request, prompt: Prompt | None = None) -> int:
        """Put a request in the queue and return its id.

        Args:
            request: To be answered.
            prompt: From `prepare`, by whoever has opened and resized the images elsewhere.

        Raises:
            ValueError: An image cannot be opened, an option is wrong, or the context is too small.
        """
        submitted = time.perf_counter()
        prompt = prompt or prepare(request, self.processor, self.context)
        row = Row(next(self._ids), request, prompt, self.processor, submitted)
        self._waiting.append(row)
        return row.request_id

    @torch.inference_mode()
    def step(self) -> list[Event]:
        """Compute one token for every row of the batch, let waiting requests join, and tell what is new."""
        events = self._decode() if self._rows else []
        return events + self._admit()

    @torch.inference_mode()
    def cancel(self, request_id: int) -> None:
        """Forget a request; there will be no event of it. One that is finished, or unknown, is let be."""
        self._waiting = deque(row for row in self._waiting if row.request_id != request_id)
        for row in [row for row in self._rows if row.request_id == request_id]:
            self._leave(row)

    def stream(self, request: Request) -> Iterator[TextDelta | Finished]:
        """Yield the events of one request; leaving the loop cancels it.

        Raises:
            ValueError: As `submit`, and when other requests are under way.
            Exception: Whatever happened while the answer was computed.
        """
        self._check_idle()
        request_id = self.submit(request)
        try:
            while self.is_busy:
                for event in self.step():
                    yield _unless_failed(event)
        finally:
            self.cancel(request_id)

    def generate(self, requests: Iterable[Request]) -> list[Answer]:
        """Answer all requests and return the answers in the same order.

        They are read as they are needed: an iterator over a large data set keeps few images in memory.

        Raises:
            ValueError: As `submit`, and when other requests are under way.
            Exception: Whatever happened while an answer was computed.
        """
        self._check_idle()
        requests = iter(requests)
        ids: list[int] = []
        answers: dict[int, Answer] = {}
        try:
            while True:
                room = self.max_batch - self.num_running - self.num_waiting
                ids.extend(map(self.submit, itertools.islice(requests, room)))
                if not self.is_busy:
                    break
                for event in map(_unless_failed, self.step()):
                    if isinstance(event, Finished):
                        answers[event.request_id] = event.answer
        finally:
            for request_id in ids:
                self.cancel(request_id)
        return [answers[request_id] for request_id in ids]

    def _check_idle(self) -> None:
        number = len(self._waiting) + len(self._rows)
        if number:
            raise ValueError(
                f"the generator is busy with {number} requests whose events would be lost here: step until "
                "it is idle, or use submit and step"
            )

    def _new_batch(self) -> Batch:
        return Batch(self.model, self.processor.tokenizer.pad_token_id, self._features, self._room)

    def _decode(self) -> list[Event]:
        """Give every row its next token; if that fails, nobody can say for which of them it would not."""
        rows = list(self._rows)
        try:
            logits = self._batch.decode([row.token_ids[-1] for row in rows])
        except Exception as error:
            logger.exception("a step for %d rows failed", len(rows))
            self._rows, self._batch = [], self._new_batch()
            return [Failed(row.request_id, error) for row in rows]
        return self._take(rows, logits)

    def _admit(self) -> list[Event]:
        """Let waiting requests join: prompts together that are new, continued dialogues each by itself."""
        rows = self._next_rows()
        reused = [self._prefixes.find(row.prompt) for row in rows]
        fresh = [row for row, beginning in zip(rows, reused, strict=True) if not beginning.length]
        events = self._start(fresh) if fresh else []
        for row, beginning in zip(rows, reused, strict=True):
            if beginning.length:
                events += self._start([row], beginning)
        return events

    def _next_rows(self) -> list[Row]:
        """Take from the queue as many as there is room for, and whose images do not keep others waiting."""
        budget = PIXELS_BESIDE_OTHERS if self._rows else MAX_ENCODER_PIXELS
        rows: list[Row] = []
        while self._waiting and len(self._rows) + len(rows) < self.max_batch:
            budget -= sum(height * width for height, width in self._waiting[0].prompt.image_sizes)
            if rows and budget < 0:
                break
            rows.append(self._waiting.popleft())
        return rows

    def _start(self, rows: list[Row], beginning: Reused = NOTHING) -> list[Event]:
        """Read prompts and take the first token of each answer; what fails for several is tried one by one."""
        prompts = [row.prompt for row in rows]
        try:
            started = time.perf_counter()
            features = self._batch.encode(prompts, beginning)
            encode_seconds = time.perf_counter() - started
            logits, prefilled = self._batch.prefill(prompts, features, beginning)
        except Exception as error:
            if len(rows) > 1:
                return [event for row in rows for event in self._start([row])]
            logger.exception("request %d failed", rows[0].request_id)
            return [Failed(rows[0].request_id, error)]
        for row in rows:
            row.admit(started, encode_seconds if row.prompt.images else 0.0, beginning.length)
        self._batch.add(prefilled)
        self._rows += rows
        return self._take(rows, logits)

    def _take(self, rows: Sequence[Row], logits: Tensor) -> list[Event]:
        """Choose a token for each row and let go those that are done."""
        logits[:, self._suppressed] = -torch.inf
        events: list[Event] = []
        for row, token in zip(rows, self._choose(rows, logits), strict=True):
            piece, reason = row.take(token, self._ends)
            if piece:
                events.append(TextDelta(row.request_id, piece))
            if reason is not None:
                events.append(Finished(row.request_id, row.answer(reason)))
                self._leave(row)
        return events

    def _choose(self, rows: Sequence[Row], logits: Tensor) -> list[int]:  # (N, V)
        penalty = self.model.generation_config.repetition_penalty
        if penalty is not None and penalty != 1.0:
            seen = [row.prompt.input_ids.tolist() + row.token_ids for row in rows]
            logits = torch.stack([penalize(*pair, penalty) for pair in zip(logits, seen, strict=True)])
        likeliest = logits.argmax(dim=-1).tolist()
        chosen = zip(rows, logits, likeliest, strict=True)
        return [best if row.sampler is None else row.sampler(own) for row, own, best in chosen]

    def _leave(self, row: Row) -> None:
        """Take a row out of the batch; what was computed for it may serve the next turn of its dialogue."""
        index = self._rows.index(row)
        if self._prefixes.is_on:
            self._prefixes.keep(row.prompt, row.token_ids, self._batch.keys_and_values(index))
        self._batch.drop(index)
        last = self._rows.pop()
        if last is not row:
            self._rows[index] = last


def _unless_failed(event: Event) -> TextDelta | Finished:
    if isinstance(event, Failed):
        raise event.error
    return event


def _check_layers(text_config: object) -> None:
    """Refuse language models with a recurrent state, which rows of a batch cannot bring along."""
    other = set(getattr(text_config, "layer_types", None) or ()) - ATTENTION_LAYERS
    if other:
        raise ValueError(
            f"the language model has layers of type {', '.join(sorted(other))}, which cannot be batched here: use "
            "model.generate"
        )
