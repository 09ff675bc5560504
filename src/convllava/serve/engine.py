"""The generator in its own thread, and its interface to the event loop."""

import asyncio
import copy
import logging
import queue
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple, TypeVar

from PIL import Image

from ..inference import Event, Failed, Finished, Generator, Prompt, Request, TextDelta
from ..inference.constraint import Constraint
from ..json_schema import SchemaError
from ..support import MissingPackageError
from .errors import ApiError, server_error
from .metrics import Metrics
from .settings import Settings

Result = TypeVar("Result")

PREPARING_THREADS = 2
"""Threads that prepare images while the model computes; Pillow releases the interpreter lock meanwhile."""

WARM_UP_SIDE = 256

STOP_SECONDS = 2.0
"""Time limit for the last step of the model when the server stops."""

RETRY_AFTER_SECONDS = 5
"""Delay that clients are advised when the queue is full."""

logger = logging.getLogger(__name__)


@dataclass(eq=False)
class Ticket:
    """A submitted request and its events so far; `events` ends with the finished answer."""

    request: Request
    prompt: Prompt
    constraint: Constraint | None = None
    _arrived: asyncio.Queue[Event] = field(default_factory=asyncio.Queue)

    async def events(self, deadline: float) -> AsyncIterator[Event]:
        """Yield events until the event loop's clock shows `deadline`.

        Raises:
            ApiError: The model failed on this request, or it takes too long.
        """
        while True:
            try:
                async with asyncio.timeout_at(deadline):
                    event = await self._arrived.get()
            except TimeoutError:
                raise too_late() from None
            if isinstance(event, Failed) and isinstance(event.error, SchemaError):
                raise invalid_schema(event.error)
            if isinstance(event, Failed):
                raise server_error(500, "the model failed on this request; the log says why", "model_error")
            yield event
            if isinstance(event, Finished):
                return

    def deliver(self, event: Event) -> None:
        """Take an event; called in the event loop."""
        self._arrived.put_nowait(event)


def too_late() -> ApiError:
    """Return the error of a request that exceeds its time limit."""
    return server_error(504, "the answer takes longer than this server allows", "request_timeout")


def invalid_schema(error: ValueError) -> ApiError:
    """Return the error of a JSON schema that answers cannot follow."""
    return ApiError(400, str(error), param="response_format", code="invalid_json_schema")


def _busy(reason: str) -> ApiError:
    """Return the error 429 of a full server."""
    return ApiError(
        429,
        f"{reason}: try again in {RETRY_AFTER_SECONDS} s",
        kind="rate_limit_error",
        code="queue_full",
        headers={"Retry-After": str(RETRY_AFTER_SECONDS)},
    )


class Command(NamedTuple):
    """A change that the generator's thread makes between two steps."""

    action: Callable[[Ticket], None]
    ticket: Ticket


class Engine:
    """Runs a `Generator`: `slot` bounds the queue, `prepare` and `submit` a request, `cancel` it again.

    All methods but `start` and `stop` belong to the event loop.
    """

    def __init__(self, generator: Generator, settings: Settings, metrics: Metrics) -> None:
        self.generator, self.settings, self.metrics = generator, settings, metrics
        self.draining = False
        self._taken = 0
        self._pixels = 0
        self._commands: queue.SimpleQueue[Command | None] = queue.SimpleQueue()
        self._tickets: dict[int, Ticket] = {}
        self._thread = threading.Thread(target=self._run, name="generator", daemon=True)
        self._pool = ThreadPoolExecutor(PREPARING_THREADS, "prepare")
        self._schemas = ThreadPoolExecutor(1, "schema")
        # A copy, as the generator's thread uses the original. Only one, as chat templates cannot be rendered by two
        # threads at a time: transformers keeps them compiled, with the positions of the answers as their state.
        self._processor, self._processor_is_taken = copy.deepcopy(generator.processor), threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        metrics.watch(lambda: generator.num_running, lambda: max(0, self._taken - generator.num_running))

    @property
    def is_ready(self) -> bool:
        """Whether requests are answered."""
        return self._thread.is_alive() and not self.draining

    @property
    def taken(self) -> int:
        """Number of requests that are prepared, queued or decoded."""
        return self._taken

    def start(self) -> None:
        """Warm the model up with one question and read the vocabulary for JSON schemas, then start the thread."""
        self._loop = asyncio.get_running_loop()
        blank = Image.new("RGB", (WARM_UP_SIDE, WARM_UP_SIDE), "white")
        options = self.settings.image_options
        self.generator.generate([Request.of_question("?", [blank], image_options=options, max_new_tokens=8)])
        with suppress(MissingPackageError):
            self.generator.grammars.prepare()
        self._thread.start()

    def stop(self) -> None:
        """End the thread; running requests get no answer."""
        self._commands.put(None)
        self._thread.join(STOP_SECONDS)  # a step that takes longer ends with the process
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._schemas.shutdown(wait=False, cancel_futures=True)

    @contextmanager
    def slot(self) -> Iterator[None]:
        """Hold one of the slots for requests.

        Raises:
            ApiError: 429, all slots are taken; 503, the server is stopping.
        """
        if not self.is_ready:
            raise server_error(503, "the server is stopping", "unavailable", headers={"Retry-After": "5"})
        most = self.settings.max_batch + self.settings.max_queue
        if self._taken >= most:
            raise _busy(f"{self._taken} requests are queued or running, at most {most} are allowed")
        self._taken += 1
        try:
            yield
        finally:
            self._taken -= 1

    @contextmanager
    def hold_pixels(self, shapes: Sequence[tuple[int, int]]) -> Iterator[None]:
        """Count the pixels of resized images, (height, width) each, against the limit of memory.

        Raises:
            ApiError: 429, the memory for waiting images is full.
        """
        pixels = sum(height * width for height, width in shapes)
        if self._pixels and self._pixels + pixels > self.settings.max_queue_pixels:
            raise _busy(f"the images of queued requests have {self._pixels} pixels")
        self._pixels += pixels
        try:
            yield
        finally:
            self._pixels -= pixels

    async def prepare(self, work: Callable[[], Result]) -> Result:
        """Run work in a thread, while the event loop and the model continue."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    @contextmanager
    def processor(self) -> Iterator[Any]:
        """Lend the processor to one thread at a time."""
        with self._processor_is_taken:
            yield self._processor

    async def constraint(self, request: Request) -> Constraint | None:
        """Return the constraint of a request's JSON schema, compiled in a thread that does nothing else.

        Raises:
            ApiError: Answers cannot follow the schema.
        """
        if request.json_schema is None:
            return None
        compile_schema = partial(self.generator.grammars.constraint, request.json_schema)
        try:
            return await asyncio.get_running_loop().run_in_executor(self._schemas, compile_schema)
        except ValueError as error:  # also if llguidance is not installed
            raise invalid_schema(error) from error

    def submit(self, request: Request, prompt: Prompt, constraint: Constraint | None = None) -> Ticket:
        """Put a request in the queue."""
        ticket = Ticket(request, prompt, constraint)
        self._commands.put(Command(self._submit, ticket))
        return ticket

    def cancel(self, ticket: Ticket) -> None:
        """Cancel a request before the next step; a finished one is ignored."""
        self._commands.put(Command(self._cancel, ticket))

    def _run(self) -> None:
        """Step the generator as long as it is busy; process commands between steps."""
        while self._process_commands():
            if not self.generator.is_busy:
                continue
            num_before = self.generator.num_running
            try:
                events = self.generator.step()
            except Exception as error:
                logger.exception("a step failed")
                events = self._fail_all(error)
            self.metrics.batch_size.observe(max(num_before, self.generator.num_running))
            self._deliver(events)

    def _process_commands(self) -> bool:
        """Run all queued commands, waiting for one while the generator is idle; return whether to continue."""
        try:
            while True:
                command = self._commands.get(block=not self.generator.is_busy)
                if command is None:
                    return False
                command.action(command.ticket)
        except queue.Empty:
            return True

    def _submit(self, ticket: Ticket) -> None:
        try:
            self._tickets[self.generator.submit(ticket.request, ticket.prompt, ticket.constraint)] = ticket
        except Exception as error:
            logger.exception("a request could not be queued")
            self._send([(ticket, Failed(-1, error))])

    def _cancel(self, ticket: Ticket) -> None:
        for request_id in [known_id for known_id, known in self._tickets.items() if known is ticket]:
            self.generator.cancel(request_id)
            del self._tickets[request_id]

    def _fail_all(self, error: Exception) -> list[Event]:
        """Drop all requests and return their failures."""
        self.generator.reset()
        return [Failed(request_id, error) for request_id in self._tickets]

    def _deliver(self, events: list[Event]) -> None:
        delivered: list[tuple[Ticket, Event]] = []
        for event in events:
            ticket = self._tickets[event.request_id]
            if not isinstance(event, TextDelta):
                del self._tickets[event.request_id]
            delivered.append((ticket, event))
        self._send(delivered)

    def _send(self, delivered: list[tuple[Ticket, Event]]) -> None:
        """Deliver events in the event loop."""
        assert self._loop is not None
        if delivered and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._hand_over, delivered)

    def _hand_over(self, delivered: list[tuple[Ticket, Event]]) -> None:
        for ticket, event in delivered:
            if isinstance(event, Finished):
                self.metrics.count(event.answer)
            ticket.deliver(event)
