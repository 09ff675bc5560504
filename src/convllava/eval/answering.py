"""Questions to the model and back: images prepared ahead, batches refilled, errors kept as answers."""

import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from typing import Any

import torch

from ..inference import Answer, Failed, Finished, Generator, Prompt, Request, prepare
from .benchmarks import Benchmark, EvalSample, EvalSet
from .prompts import images_of, user_message
from .protocol import RunOptions

logger = logging.getLogger(__name__)

AUTO_BATCH = 16
"""Answers at a time where nobody says how many; halved when the device's memory is too small."""

_OUT_OF_MEMORY = ("can't allocate memory", "MPS backend out of memory")
"""In the errors of torch on a CPU, and on MPS."""

Prepared = tuple[EvalSample, Request, Prompt | str]
"""A sample, its request, and its prompt or what is wrong with it."""


class Answering:
    """Answers samples, several at a time.

    Args:
        generator: Of the model; as many rows as it has are used.
        benchmark: Puts the questions.
        options: How they are put.
        take: Called with each sample and its answer, or what went wrong with it, in the order in which they end.
    """

    def __init__(
        self,
        generator: Generator,
        benchmark: Benchmark,
        options: RunOptions,
        take: Callable[[EvalSample, Answer | str], None],
    ) -> None:
        self._generator, self._benchmark, self._options, self._take = generator, benchmark, options, take
        self._running: dict[int, Prepared] = {}

    def run(self, questions: EvalSet, indices: Sequence[int]) -> None:
        """Answer these samples.

        An image is decoded and resized in a thread while the model is busy with others.
        """
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="prepare") as pool:
            todo = self._prepared(pool, questions, indices)
            waiting: deque[Prepared] = deque()
            exhausted = False
            while True:
                while not exhausted and len(waiting) + len(self._running) < self._generator.max_batch:
                    following = next(todo, None)
                    exhausted = following is None
                    if following is not None:
                        waiting.append(following)
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
        wanted = self._benchmark.max_new_tokens(self._options.load.prompts)
        room = self._generator.context - len(prompt.input_ids)
        return sample, request, replace(prompt, max_new_tokens=min(wanted, room)) if wanted else prompt

    def _request(self, sample: EvalSample) -> Request:
        """Return a sample's request; its images are numbers until they are opened."""
        parts = self._benchmark.parts(sample.row, len(sample.images), self._options.load)
        return Request(messages=[user_message(parts)], images=images_of(parts), **self._options.image.given())

    def _submit(self, waiting: deque[Prepared]) -> None:
        while waiting:
            sample, request, prompt = prepared = waiting.popleft()
            if isinstance(prompt, str):
                self._take(sample, prompt)
            else:
                self._running[self._generator.submit(request, prompt)] = prepared

    def _step(self, waiting: deque[Prepared]) -> None:
        failed: list[Failed] = []
        for event in self._generator.step():
            if isinstance(event, Finished):
                self._take(self._running.pop(event.request_id)[0], event.answer)
            elif isinstance(event, Failed):
                failed.append(event)
        if failed:
            self._retry(failed, waiting)

    def _retry(self, failed: Sequence[Failed], waiting: deque[Prepared]) -> None:
        """Put requests back that did not fit into memory, to be answered fewer at a time; other errors end the run."""
        prepared = [self._running.pop(event.request_id) for event in failed]
        hopeless = next((event.error for event in failed if not is_out_of_memory(event.error)), None)
        if hopeless is not None or self._generator.max_batch == 1:
            self._forget()
            raise hopeless or failed[0].error
        # once for all that failed together: a batch fails as a whole
        self._generator.max_batch //= 2
        logger.warning("out of memory: %d answers at a time from here on", self._generator.max_batch)
        with suppress(RuntimeError):
            torch.cuda.empty_cache()
        waiting.extend(prepared)

    def _forget(self) -> None:
        for request_id in list(self._running):
            self._generator.cancel(request_id)
        self._running.clear()


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether a device's memory was too small; only CUDA has an error of its own for that."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(phrase in str(error) for phrase in _OUT_OF_MEMORY)


def by_shape(questions: EvalSet, indices: Sequence[int], image_processor: Any, image: dict[str, Any]) -> list[int]:
    """Return samples so ordered that those whose images are shown in the same shapes stand together.

    The largest come first: memory that is too small shows at once.
    """
    shapes: dict[tuple[int, int], tuple[int, int]] = {}

    def shape(size: tuple[int, int]) -> tuple[int, int]:
        if size not in shapes:
            try:
                shapes[size] = image_processor.resized_shape(size[1], size[0], **image)
            except ValueError:  # said again, with its sample, when that image's turn comes
                shapes[size] = (0, 0)
        return shapes[size]

    def key(index: int) -> tuple[int, list[tuple[int, int]], int]:
        shown = [shape(size) for size in questions.image_sizes(index)]
        return -sum(height * width for height, width in shown), shown, index

    return sorted(indices, key=key)
