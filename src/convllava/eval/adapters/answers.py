"""Requests of another framework, answered by the one generation path."""

import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace

from ...inference import ContextOverflowError, Failed, Finished, Generator, Request

logger = logging.getLogger(__name__)


def answer_all(generator: Generator, requests: Sequence[Callable[[], Request]]) -> list[str]:
    """Return the answers in order; "" where a request cannot be answered, which is logged.

    Args:
        generator: Of the model.
        requests: Each makes its request when its turn comes, so that few images are in memory.
    """
    texts = [""] * len(requests)
    running: dict[int, int] = {}
    waiting = deque(enumerate(requests))
    while waiting or running:
        while waiting and len(running) < generator.max_batch:
            number, make = waiting.popleft()
            try:
                running[_submit(generator, make())] = number
            except ValueError as error:
                logger.error("request %d cannot be answered: %s", number, error)
        for event in generator.step():
            if isinstance(event, Failed):
                raise event.error
            if isinstance(event, Finished):
                texts[running.pop(event.request_id)] = event.answer.text
    return texts


def _submit(generator: Generator, request: Request) -> int:
    """Submit a request; where the context has less room than the longest answer wants, with what room there is."""
    try:
        return generator.submit(request)
    except ContextOverflowError:
        return generator.submit(replace(request, max_new_tokens=None))
