"""Images of requests, decoded in processes that are ended when a request takes too long or its client leaves."""

import asyncio
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple, TypeVar, get_args

from PIL import Image

from ..image_conversion import ImageErrorKind
from ..image_worker import Form, read_message, write_message
from ..images import ImageError
from .errors import ApiError
from .settings import Settings

__all__ = ["Decoder", "EncodedImage", "Form", "TimeBudget"]

Result = TypeVar("Result")

WORKER_SCRIPT = """
import os, sys
if hasattr(os, "nice"):
    os.nice(int(sys.argv[1]))  # before the imports, which take a while
from convllava.image_worker import main
main()
"""
WORKER_COMMAND = [sys.executable, "-c", WORKER_SCRIPT]

WORKERS = 2
NICENESS = 10
"""Priority of the workers, below that of the model, which answers the other requests on the same cores."""

LARGE_PIXELS = 1 << 24
"""Number of pixels above which an image has a worker of its own, one at a time: each takes up to 16 bytes a pixel.

The photos of most telephones have 12 million pixels.
"""

NICENESS_OF_LARGE = 15


class EncodedImage(NamedTuple):
    """An image file, or a data URL as bytes of JSON, which its worker decodes."""

    data: bytes | memoryview
    is_data_url: bool


@dataclass
class TimeBudget:
    """Time that the images of one request may still take in the workers, in seconds."""

    seconds: float


class WorkerProcess:
    """One worker process, started when it is first needed and again after its end.

    Args:
        niceness: By how much its priority is lower than that of the server.
    """

    def __init__(self, niceness: int) -> None:
        self._command = [*WORKER_COMMAND, str(niceness)]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the process unless it runs."""
        if self._process is None or self._process.poll() is not None:
            self._process = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def size(self, image: EncodedImage, max_pixels: int) -> tuple[int, int]:
        """Return the (height, width) of an image.

        Raises:
            ImageError: It is not an image that is accepted, or beyond a limit; or the worker has ended meanwhile.
        """
        head, _ = self._ask({"work": "measure", "max_pixels": max_pixels}, image)
        height, width = head["size"]
        return height, width

    def decode(self, image: EncodedImage, max_pixels: int, form: Form) -> Image.Image:
        """Return an image in RGB.

        Raises:
            ImageError: It is damaged, or the worker has ended meanwhile.
        """
        head, levels = self._ask({"work": "decode", "max_pixels": max_pixels, "form": asdict(form)}, image)
        height, width = head["size"]
        return Image.frombytes("RGB", (width, height), levels)

    def _ask(self, order: dict[str, Any], image: EncodedImage) -> tuple[dict[str, Any], bytes]:
        self.start()
        process = self._process
        assert process is not None and process.stdin is not None and process.stdout is not None
        try:
            write_message(process.stdin, order | {"is_data_url": image.is_data_url}, image.data)
            head, levels = read_message(process.stdout)
        except (OSError, EOFError, ValueError) as error:
            self.close()
            raise ImageError("damaged", "image", "cannot be decoded: save it again, or scale it down") from error
        if "error" in head:
            kind, reason = head["error"]
            assert kind in get_args(ImageErrorKind)
            raise ImageError(kind, "image", reason)
        return head, levels

    def kill(self) -> None:
        """End the process at once, from any thread."""
        if self._process is not None:
            self._process.kill()

    def close(self) -> None:
        """End the process and release what belongs to it."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with suppress(OSError):
                        pipe.close()


class Decoder:
    """Decodes images in a few worker processes; belongs to the event loop."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._threads = ThreadPoolExecutor(WORKERS + 1, "decode")
        self._small = [WorkerProcess(NICENESS) for _ in range(WORKERS)]
        self._large = WorkerProcess(NICENESS_OF_LARGE)
        self._idle_small: asyncio.Queue[WorkerProcess] = asyncio.Queue()
        self._idle_large: asyncio.Queue[WorkerProcess] = asyncio.Queue()

    def start(self) -> None:
        """Start the workers; the one for large images starts with the first of them."""
        for worker in self._small:
            worker.start()
            self._idle_small.put_nowait(worker)
        self._idle_large.put_nowait(self._large)

    def stop(self) -> None:
        """End the workers."""
        workers = [*self._small, self._large]
        for worker in workers:
            worker.kill()
        self._threads.shutdown(cancel_futures=True)  # a moment: what they waited for is gone
        for worker in workers:
            worker.close()

    def budget(self) -> TimeBudget:
        """Return the time for the images of one request."""
        return TimeBudget(self._settings.decode_timeout)

    async def size(self, image: EncodedImage, budget: TimeBudget) -> tuple[int, int]:
        """Return the (height, width) of an image.

        Raises:
            ImageError: It is not an image that is accepted, or beyond a limit.
            ApiError: The images of the request take too long.
        """
        most = self._settings.max_image_pixels
        return await self._done(self._idle_small, lambda worker: worker.size(image, most), budget)

    async def decode(self, image: EncodedImage, size: tuple[int, int], form: Form, budget: TimeBudget) -> Image.Image:
        """Return an image in RGB.

        Args:
            image: The image file.
            size: Result of `size`.
            form: How it is wanted.
            budget: Time that is left to the request.

        Raises:
            ImageError: It is damaged.
            ApiError: The images of the request take too long.
        """
        idle = self._idle_large if size[0] * size[1] > LARGE_PIXELS else self._idle_small
        most = self._settings.max_image_pixels
        return await self._done(idle, lambda worker: worker.decode(image, most, form), budget)

    async def _done(
        self, idle: asyncio.Queue[WorkerProcess], work: Callable[[WorkerProcess], Result], budget: TimeBudget
    ) -> Result:
        """Return the result of work in one of the workers that are or become idle."""
        worker = await idle.get()
        loop = asyncio.get_running_loop()
        working = loop.run_in_executor(self._threads, work, worker)
        working.add_done_callback(lambda done: _release(idle, worker, done))
        started = loop.time()
        try:
            await asyncio.wait({working}, timeout=max(0.0, budget.seconds))
        finally:
            budget.seconds -= loop.time() - started
            if not working.done():  # too late, or the client left
                worker.kill()
        if not working.done():
            seconds = self._settings.decode_timeout
            message = f"the images take longer than {seconds:g} s to decode: send smaller ones"
            raise ApiError(400, message, param="messages", code="image_too_slow")
        return working.result()


def _release(
    idle: asyncio.Queue[WorkerProcess], worker: WorkerProcess, done: "asyncio.Future[Any] | Future[Any]"
) -> None:
    with suppress(asyncio.CancelledError, CancelledError):
        done.exception()  # it was raised where the work was awaited, or is of no interest
    idle.put_nowait(worker)
