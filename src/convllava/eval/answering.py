"""Answer samples in batches: images are prepared ahead, batches are refilled, errors are kept as answers."""

import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, replace
from typing import Any

import torch

from ..inference import Answer, ContextOverflowError, Failed, Finished, Generator, Prompt, Request, prepare
from .benchmark import Benchmark, EvalSample, EvalSet
from .protocol import RunOptions
from .table import ImageSize

logger = logging.getLogger(__name__)

AUTO_BATCH_SIZE = 16
"""Batch size where none is set; it is halved when the device runs out of memory."""

_OUT_OF_MEMORY = ("can't allocate memory", "MPS backend out of memory")
"""Phrases in torch's errors when a CPU or MPS device runs out of memory."""

Prepared = tuple[EvalSample, Request, Prompt | str]
"""A sample, its request, and its prompt or an error message."""


class SampleAnswerer:
    """Answers the samples of a benchmark in batches.

    Args:
        generator: The generator; its largest batch is used.
        benchmark: The benchmark, which makes the prompts.
        options: Options of prompts and images.
        on_answer: Function that is called with each sample and its answer or error message, as they finish.
    """

    def __init__(
        self,
        generator: Generator,
        benchmark: Benchmark,
        options: RunOptions,
        on_answer: Callable[[EvalSample, Answer | str], None],
    ) -> None:
        self._generator, self._benchmark, self._options, self._on_answer = generator, benchmark, options, on_answer
        self._running: dict[int, Prepared] = {}

    def run(self, questions: EvalSet, indices: Sequence[int]) -> None:
        """Answer these samples; a thread decodes and resizes images while the model is running.

        Raises:
            Exception: The model failed for another reason than memory, or with a single sample.
        """
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="prepare") as pool:
            upcoming = self._prepared(pool, questions, indices)
            waiting: deque[Prepared] = deque()
            exhausted = False
            while True:
                while not exhausted and len(waiting) + len(self._running) < self._generator.max_batch:
                    prepared = next(upcoming, None)
                    exhausted = prepared is None
                    if prepared is not None:
                        waiting.append(prepared)
                self._submit(waiting)
                if not self._running and exhausted:
                    return
                self._step(waiting)

    def _prepared(self, pool: ThreadPoolExecutor, questions: EvalSet, indices: Sequence[int]) -> Iterator[Prepared]:
        ahead: deque[Future[Prepared]] = deque()
        upcoming = iter(indices)
        while True:
            while len(ahead) < self._generator.max_batch and (index := next(upcoming, None)) is not None:
                ahead.append(pool.submit(self._prepare, questions, index))
            if not ahead:
                return
            yield ahead.popleft().result()

    def _prepare(self, questions: EvalSet, index: int) -> Prepared:
        sample = questions[index]
        request = self._request(sample)
        try:
            opened = replace(request, images=[sample.images[number].open() for number in request.images])
            prompt = prepare(opened, self._generator.processor, self._generator.context)
        except (ValueError, OSError) as error:
            return sample, request, str(error)
        limit = self._benchmark.max_new_tokens(self._options.load.prompts)
        room = self._generator.context - len(prompt.input_ids)
        return sample, request, replace(prompt, max_new_tokens=min(limit, room)) if limit else prompt

    def _request(self, sample: EvalSample) -> Request:
        """Return a sample's request; its images are indices until they are opened."""
        messages, images = self._benchmark.messages(sample.row, len(sample.images), self._options.load)
        decoding = asdict(self._options.decoding)
        return Request(messages=messages, images=images, image_options=self._options.image, **decoding)

    def _submit(self, waiting: deque[Prepared]) -> None:
        while waiting:
            sample, request, prompt = prepared = waiting.popleft()
            if isinstance(prompt, str):
                self._on_answer(sample, prompt)
            else:
                self._running[self._generator.submit(request, prompt)] = prepared

    def _step(self, waiting: deque[Prepared]) -> None:
        failed: list[Failed] = []
        for event in self._generator.step():
            if isinstance(event, Finished):
                self._on_answer(self._running.pop(event.request_id)[0], event.answer)
            elif isinstance(event, Failed):
                failed.append(event)
        if failed:
            self._retry(failed, waiting)

    def _retry(self, failed: Sequence[Failed], waiting: deque[Prepared]) -> None:
        """Put back requests that ran out of memory, for a smaller batch; any other error ends the run."""
        prepared = [self._running.pop(event.request_id) for event in failed]
        fatal = next((event.error for event in failed if not is_out_of_memory(event.error)), None)
        if fatal is not None or self._generator.max_batch == 1:
            self._cancel_all()
            raise fatal or failed[0].error
        # Once for all requests that failed together: a batch fails as a whole.
        self._generator.limit_batch(self._generator.max_batch // 2)
        logger.warning("out of memory: the batch size is %d from here on", self._generator.max_batch)
        with suppress(RuntimeError):
            torch.cuda.empty_cache()
        waiting.extend(prepared)

    def _cancel_all(self) -> None:
        for request_id in list(self._running):
            self._generator.cancel(request_id)
        self._running.clear()


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether a device ran out of memory; only CUDA has an exception class for that."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(phrase in str(error) for phrase in _OUT_OF_MEMORY)


def sort_by_shape(questions: EvalSet, indices: Sequence[int], generator: Generator, image: dict[str, Any]) -> list[int]:
    """Return samples in such an order that images of equal input shape are next to each other.

    The largest come first, so that a run that needs too much memory fails early.

    Args:
        questions: The samples.
        indices: Indices of the samples to sort.
        generator: The generator, whose image processor decides on the shape.
        image: Options of image preprocessing.
    """
    shapes: dict[ImageSize, ImageSize] = {}

    def shape(size: ImageSize) -> ImageSize:
        if size not in shapes:
            try:
                shapes[size] = generator.processor.image_processor.resized_shape(*size, **image)
            except ValueError:  # raised again, with its sample, when the image is prepared
                shapes[size] = (0, 0)
        return shapes[size]

    def key(index: int) -> tuple[int, list[ImageSize], int]:
        shown = [shape(size) for size in questions.image_sizes(index)]
        return -sum(height * width for height, width in shown), shown, index

    return sorted(indices, key=key)


def answer_all(generator: Generator, requests: Sequence[Callable[[], Request]]) -> list[str]:
    """Return the answers to requests of another framework, in order; an empty text after an error, which is logged.

    Args:
        generator: The generator.
        requests: Functions that make a request; called when the request is due, so that few images are in memory.
    """
    texts = [""] * len(requests)
    running: dict[int, int] = {}
    waiting = deque(enumerate(requests))
    while waiting or running:
        while waiting and len(running) < generator.max_batch:
            number, make_request = waiting.popleft()
            try:
                running[_submit_shortened(generator, make_request())] = number
            except ValueError as error:
                logger.error("request %d cannot be answered: %s", number, error)
        for event in generator.step():
            if isinstance(event, Failed):
                raise event.error
            if isinstance(event, Finished):
                texts[running.pop(event.request_id)] = event.answer.text
    return texts


def _submit_shortened(generator: Generator, request: Request) -> int:
    """Submit a request; if the context is too short for the longest answer, with the room that is left."""
    try:
        return generator.submit(request)
    except ContextOverflowError:
        return generator.submit(replace(request, max_new_tokens=None))
