"""The generator of answers: requests go in, pieces of text come out, several requests at a time."""

import itertools
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch import Tensor
from transformers import GenerationConfig

from ..convert import unsupported_settings
from ..json_schema import SchemaError
from ..model import ConvLlavaForConditionalGeneration, ConvLlavaProcessor
from .batch import MAX_ENCODER_PIXELS, Batch
from .constraint import Constraint, Grammars
from .kv_cache import KVCapacity
from .logit_rules import check_rules
from .prompt import Prompt, prepare
from .request import Answer, Event, Failed, Finished, Request, TextDelta
from .reuse import NOTHING, PrefixCache, Reused, feature_cache
from .sampling import end_tokens, suppressed_tokens
from .sequence import GeneratedSequence

MAX_BATCH = 8

FEATURE_CACHE_BYTES = 64 << 20
"""Size of the cache of image features: a thousand images of 1024 x 1024 pixels with nano, a hundred with a 7B model."""

MAX_PIXELS_WHILE_DECODING = 1 << 20
"""Maximum pixels encoded in one step while other requests are decoded: a fraction of a second on a CPU."""

ATTENTION_LAYERS = {"full_attention", "sliding_attention", "chunked_attention"}
"""Layer types whose state is keys and values, so that sequences can join and leave a batch."""

logger = logging.getLogger(__name__)


class Generator:
    """Answers requests in batches with a KV cache; requests join while others are decoded.

    First come, first served: up to `max_batch` requests are decoded at a time, and a request that is finished or
    canceled makes room at once. At temperature 0 an answer equals that of `model.generate`, whatever else is in the
    batch (float32; of two tokens that are equally likely within rounding either may be chosen), up to a loop that ends
    it (`Request.stop_on_repetition`). An image that occurs again is not encoded again.

    Args:
        model, processor: Result of `load_pretrained`.
        max_batch: Maximum requests decoded at a time.
        prefix_cache_bytes: Memory for keys and values of the latest dialogues, so that a further turn costs its new
            tokens only; 0 keeps none.
        static_cache: Allocate keys and values once, for `max_batch` sequences of the whole context, so that a lack of
            memory shows with the first request.

    Raises:
        ValueError: The language model cannot be batched, or the checkpoint's generation_config.json has a setting that
            `model.generate` follows and this generator does not.

    Example:
        generator = Generator(model, processor)
        request_id = generator.submit(Request.of_question("What does it say?", ["receipt.png"]))
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
        _check_settings(model.generation_config)
        self.context: int = text_config.max_position_embeddings
        self._capacity = KVCapacity(max_batch, self.context) if static_cache else KVCapacity()
        self._ends = end_tokens(model.generation_config, processor.tokenizer)
        check_rules(model.generation_config, self._ends, text_config.vocab_size)
        self.grammars = Grammars(processor.tokenizer, self._ends, text_config.vocab_size)
        image_token_id: int = processor.image_token_id
        self._suppressed = suppressed_tokens(model.generation_config, image_token_id)
        self._ids = itertools.count()
        self._waiting: deque[GeneratedSequence] = deque()
        self._running: list[GeneratedSequence] = []
        self._features = feature_cache(FEATURE_CACHE_BYTES)
        self._prefixes = PrefixCache(prefix_cache_bytes)
        self._batch = self._new_batch()

    @property
    def num_waiting(self) -> int:
        """Number of queued requests."""
        return len(self._waiting)

    @property
    def num_running(self) -> int:
        """Number of requests that are decoded."""
        return len(self._running)

    @property
    def is_busy(self) -> bool:
        """Whether a request is queued or decoded."""
        return bool(self._waiting or self._running)

    def limit_batch(self, max_batch: int) -> None:
        """Decode at most ``max_batch`` requests at a time from now on; those that are running finish."""
        if max_batch < 1:
            raise ValueError(f"max_batch must be at least 1, got {max_batch}")
        self.max_batch = max_batch

    def submit(self, request: Request, prompt: Prompt | None = None, constraint: Constraint | None = None) -> int:
        """Put a request in the queue and return its id.

        Args:
            request: The request.
            prompt: Result of `prepare` for this request, if the images were opened and resized elsewhere.
            constraint: Result of `grammars.constraint` for the request's `json_schema`, if it was compiled elsewhere.

        Raises:
            ValueError: An image cannot be opened, an option is wrong, or the context is too small.
        """
        submitted = time.perf_counter()
        prompt = prompt or prepare(request, self.processor, self.context)
        if constraint is None and request.json_schema is not None:
            constraint = self.grammars.constraint(request.json_schema)
        config = self.model.generation_config
        sequence = GeneratedSequence(
            next(self._ids), request, prompt, self.processor, config, self._ends, submitted, constraint
        )
        self._waiting.append(sequence)
        return sequence.request_id

    @torch.inference_mode()
    def step(self) -> list[Event]:
        """Decode one token for every running request, admit queued ones, and return the new events."""
        events = self._decode() if self._running else []
        return events + self._admit()

    @torch.inference_mode()
    def cancel(self, request_id: int) -> None:
        """Remove a request, of which no further event comes; a finished or unknown one is ignored."""
        self._waiting = deque(sequence for sequence in self._waiting if sequence.request_id != request_id)
        for sequence in [sequence for sequence in self._running if sequence.request_id == request_id]:
            self._remove(sequence)

    def reset(self) -> None:
        """Drop all requests, of which no further event comes, and the state of the batch."""
        self._waiting.clear()
        self._running, self._batch = [], self._new_batch()

    def stream(self, request: Request) -> Iterator[TextDelta | Finished]:
        """Yield the events of one request; leaving the loop cancels it.

        Raises:
            ValueError: Same as `submit`; or other requests are queued or running.
            Exception: The error with which the computation failed.
        """
        self._check_idle()
        request_id = self.submit(request)
        try:
            while self.is_busy:
                for event in self.step():
                    yield _unless_failed(event)
        finally:
            self.cancel(request_id)

    def answer(self, request: Request, on_text: Callable[[str], None] | None = None) -> Answer:
        """Return the answer to one request.

        Args:
            request: The request.
            on_text: Called with each piece of the answer as it comes.

        Raises:
            ValueError: Same as `stream`.
            Exception: The error with which the computation failed.
        """
        answers = []
        for event in self.stream(request):
            if isinstance(event, Finished):
                answers.append(event.answer)
            elif on_text is not None:
                on_text(event.text)
        return answers[0]

    def generate(self, requests: Iterable[Request]) -> list[Answer]:
        """Answer all requests and return the answers in the same order.

        Requests are taken as they are needed: an iterator over a large data set keeps few images in memory.

        Raises:
            ValueError: Same as `submit`; or other requests are queued or running.
            Exception: The error with which a computation failed.
        """
        self._check_idle()
        requests = iter(requests)
        ids: list[int] = []
        answers: dict[int, Answer] = {}
        try:
            while True:
                free = self.max_batch - self.num_running - self.num_waiting
                ids.extend(map(self.submit, itertools.islice(requests, max(0, free))))
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
        number = len(self._waiting) + len(self._running)
        if number:
            raise ValueError(
                f"the generator is busy with {number} requests whose events would be lost here: step until "
                "it is idle, or use submit and step"
            )

    def _new_batch(self) -> Batch:
        return Batch(self.model, self.processor.tokenizer.pad_token_id, self._features, self._capacity)

    def _decode(self) -> list[Event]:
        """Decode one token for every running request. An error fails all of them, since the culprit is unknown."""
        sequences = list(self._running)
        try:
            logits = self._batch.decode([sequence.token_ids[-1] for sequence in sequences])
        except Exception as error:
            logger.exception("a step of %d sequences failed", len(sequences))
            self._running, self._batch = [], self._new_batch()
            return [Failed(sequence.request_id, error) for sequence in sequences]
        return self._append_tokens(sequences, logits)

    def _admit(self) -> list[Event]:
        """Prefill queued requests: new prompts together, each continued dialogue by itself."""
        sequences = self._next_sequences()
        prefixes = [self._prefixes.find(sequence.prompt) for sequence in sequences]
        new = [sequence for sequence, prefix in zip(sequences, prefixes, strict=True) if not prefix.length]
        events = self._start(new) if new else []
        for sequence, prefix in zip(sequences, prefixes, strict=True):
            if prefix.length:
                events += self._start([sequence], prefix)
        return events

    def _next_sequences(self) -> list[GeneratedSequence]:
        """Remove from the queue as many requests as fit the batch and the limit of pixels for one step."""
        budget = MAX_PIXELS_WHILE_DECODING if self._running else MAX_ENCODER_PIXELS
        sequences: list[GeneratedSequence] = []
        while self._waiting and len(self._running) + len(sequences) < self.max_batch:
            budget -= sum(height * width for height, width in self._waiting[0].prompt.image_sizes)
            if sequences and budget < 0:
                break
            sequences.append(self._waiting.popleft())
        return sequences

    def _start(self, sequences: list[GeneratedSequence], prefix: Reused = NOTHING) -> list[Event]:
        """Prefill prompts and choose the first token of each answer; after an error each is tried by itself."""
        prompts = [sequence.prompt for sequence in sequences]
        try:
            started = time.perf_counter()
            features = self._batch.encode(prompts, prefix)
            encode_seconds = time.perf_counter() - started
            logits, prefilled = self._batch.prefill(prompts, features, prefix)
        except Exception as error:
            if len(sequences) > 1:
                return [event for sequence in sequences for event in self._start([sequence])]
            logger.exception("request %d failed", sequences[0].request_id)
            return [Failed(sequences[0].request_id, error)]
        for sequence in sequences:
            sequence.admit(started, encode_seconds if sequence.prompt.images else 0.0, prefix.length)
        self._batch.add(prefilled)
        self._running += sequences
        return self._append_tokens(sequences, logits)

    def _append_tokens(self, sequences: Sequence[GeneratedSequence], logits: Tensor) -> list[Event]:  # (N, V)
        """Append a token to each sequence and remove those that are finished."""
        for sequence, scores in zip(sequences, logits, strict=True):
            sequence.observe(scores)
        logits[:, self._suppressed] = -torch.inf
        most_likely = logits.argmax(dim=-1).tolist()
        events: list[Event] = []
        for sequence, scores, best in zip(sequences, logits, most_likely, strict=True):
            try:
                new = self._append_token(sequence, sequence.choose(scores, best))
            except SchemaError as error:
                new = [Failed(sequence.request_id, error)]
            except Exception as error:  # options of one request never end the others
                logger.exception("request %d failed", sequence.request_id)
                new = [Failed(sequence.request_id, error)]
            if new and not isinstance(new[-1], TextDelta):
                self._remove(sequence, keep=isinstance(new[-1], Finished))
            events += new
        return events

    def _append_token(self, sequence: GeneratedSequence, token: int) -> list[Event]:
        piece, reason = sequence.append(token)
        logprobs = sequence.new_logprobs() if piece or reason else ()
        events: list[Event] = [TextDelta(sequence.request_id, piece, logprobs)] if piece or logprobs else []
        if reason is not None:
            events.append(Finished(sequence.request_id, sequence.answer(reason)))
        return events

    def _remove(self, sequence: GeneratedSequence, *, keep: bool = True) -> None:
        """Remove a sequence from the batch; its keys and values may serve the next turn of the dialogue."""
        index = self._running.index(sequence)
        if self._prefixes.is_on and keep:
            self._prefixes.keep(sequence.prompt, sequence.token_ids, self._batch.keys_and_values(index))
        self._batch.drop(index)
        last = self._running.pop()
        if last is not sequence:
            self._running[index] = last


def _unless_failed(event: Event) -> TextDelta | Finished:
    if isinstance(event, Failed):
        raise event.error
    return event


def _check_settings(config: GenerationConfig) -> None:
    """Reject defaults of a checkpoint that `model.generate` follows and this generator does not."""
    if unsupported := unsupported_settings(config):
        raise ValueError(
            f"{'; '.join(unsupported)}: remove it from the file for other answers than the checkpoint was made for, or "
            "use model.generate"
        )


def _check_layers(text_config: object) -> None:
    """Reject language models with a recurrent state, which sequences cannot take along when they join or leave."""
    other = set(getattr(text_config, "layer_types", None) or ()) - ATTENTION_LAYERS
    if other:
        raise ValueError(
            f"the language model has layers of type {', '.join(sorted(other))}, which cannot be batched here: use "
            "model.generate"
        )
