"""The one road to an answer: requests in, pieces of text out, several at a time."""

import itertools
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

from ..model import ConvLlavaForConditionalGeneration, ConvLlavaProcessor
from .batch import Batch
from .prompt import prepare
from .request import Answer, Event, Finished, Request, TextDelta
from .row import Row
from .sampling import end_tokens, penalise, suppressed_tokens

MAX_BATCH = 8


class Generator:
    """Answers requests in batches with a KV cache.

    Requests wait until the current batch is finished and then start together, at most `max_batch` of them; a
    row that is finished or cancelled leaves its batch at once. At temperature 0 an answer equals that of
    `model.generate`, in whatever company it is computed (float32; of two tokens that are equally likely
    within rounding either may win).

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
    ) -> None:
        if max_batch < 1:
            raise ValueError(f"max_batch must be at least 1, got {max_batch}")
        self.model = model
        self.processor = processor
        self.max_batch = max_batch
        self._ends = end_tokens(model.generation_config, processor.tokenizer)
        image_token_id: int = processor.image_token_id
        self._suppressed = suppressed_tokens(model.generation_config, image_token_id)
        self._ids = itertools.count()
        self._waiting: deque[Row] = deque()
        self._rows: list[Row] = []
        self._batch: Batch | None = None

    @property
    def is_busy(self) -> bool:
        """Whether a request waits or is being answered."""
        return bool(self._waiting or self._rows)

    def submit(self, request: Request) -> int:
        """Prepare a request, put it in the queue and return its id.

        Raises:
            ValueError: A picture cannot be opened, an option is wrong, or the context is too small.
        """
        submitted = time.perf_counter()
        context = self.model.config.get_text_config(decoder=True).max_position_embeddings
        prompt = prepare(request, self.processor, context)
        row = Row(next(self._ids), request, prompt, self.processor, submitted)
        self._waiting.append(row)
        return row.request_id

    @torch.inference_mode()
    def step(self) -> list[Event]:
        """Compute one token for every row of the batch, or start the next batch, and tell what is new."""
        if self._rows:
            assert self._batch is not None
            return self._take(self._batch.decode([row.token_ids[-1] for row in self._rows]))
        return self._take(self._start()) if self._waiting else []

    def cancel(self, request_id: int) -> None:
        """Forget a request; there will be no event of it. One that is finished, or unknown, is let be."""
        self._waiting = deque(row for row in self._waiting if row.request_id != request_id)
        self._keep([index for index, row in enumerate(self._rows) if row.request_id != request_id])

    def stream(self, request: Request) -> Iterator[Event]:
        """Yield the events of one request; leaving the loop cancels it.

        Raises:
            ValueError: As `submit`, and when other requests are under way.
        """
        self._check_idle()
        request_id = self.submit(request)
        try:
            while self.is_busy:
                yield from self.step()
        finally:
            self.cancel(request_id)

    def generate(self, requests: Iterable[Request]) -> list[Answer]:
        """Answer all requests and return the answers in the same order.

        They are read as they are needed: an iterator over a large data set keeps few pictures in memory.

        Raises:
            ValueError: As `submit`, and when other requests are under way.
        """
        self._check_idle()
        answers: list[Answer] = []
        requests = iter(requests)
        while batch := list(itertools.islice(requests, self.max_batch)):
            answers += self._generate_batch(batch)
        return answers

    def _generate_batch(self, requests: Sequence[Request]) -> list[Answer]:
        ids: list[int] = []
        answers: dict[int, Answer] = {}
        try:
            ids.extend(map(self.submit, requests))
            while self.is_busy:
                finished = (event for event in self.step() if isinstance(event, Finished))
                answers.update((event.request_id, event.answer) for event in finished)
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

    def _start(self) -> Tensor:
        """Make a batch of waiting requests and return its first logits."""
        rows = [self._waiting.popleft() for _ in range(min(self.max_batch, len(self._waiting)))]
        batch = Batch(self.model, [row.prompt for row in rows], self.processor.tokenizer.pad_token_id)
        started = time.perf_counter()
        batch.encode()
        encode_seconds = time.perf_counter() - started
        for row in rows:
            row.encode_seconds = encode_seconds if row.prompt.image_sizes else 0.0
        logits = batch.prefill()
        self._rows, self._batch = rows, batch
        return logits

    def _take(self, logits: Tensor) -> list[Event]:
        """Choose a token for each row and drop the rows that are done."""
        logits[:, self._suppressed] = -torch.inf
        tokens = self._choose(logits)
        events: list[Event] = []
        going_on = []
        for index, (row, token) in enumerate(zip(self._rows, tokens, strict=True)):
            piece, reason = row.take(token, self._ends)
            if piece:
                events.append(TextDelta(row.request_id, piece))
            if reason is None:
                going_on.append(index)
            else:
                events.append(Finished(row.request_id, row.answer(reason)))
        self._keep(going_on)
        return events

    def _choose(self, logits: Tensor) -> list[int]:  # (N, V)
        penalty = self.model.generation_config.repetition_penalty
        if penalty is not None and penalty != 1.0:
            seen = [row.prompt.input_ids.tolist() + row.token_ids for row in self._rows]
            logits = torch.stack([penalise(*pair, penalty) for pair in zip(logits, seen, strict=True)])
        likeliest = logits.argmax(dim=-1).tolist()
        rows = zip(self._rows, logits, likeliest, strict=True)
        return [best if row.sampler is None else row.sampler(own) for row, own, best in rows]

    def _keep(self, indices: Sequence[int]) -> None:
        if len(indices) == len(self._rows):
            return
        self._rows = [self._rows[index] for index in indices]
        if self._rows:
            assert self._batch is not None
            with torch.inference_mode():
                self._batch.keep(indices)
        else:
            self._batch = None
