"""Images of requests, decoded in processes that are ended when a request takes too long or its client leaves."""

import asyncio
import subprocess
import sys
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from typing import Any, get_args

from PIL import Image

from ..image_conversion import ImageErrorKind
from ..image_worker import read_message, write_message
from ..images import ImageError
from .errors import ApiError
from .settings import Settings

WORKERS = 2
WORKER_COMMAND = [sys.executable, "-m", "convllava.image_worker"]

LARGE_PIXELS = 1 << 23
"""Number of pixels from which on images are decoded one at a time: each takes up to 16 bytes a pixel meanwhile."""


@dataclass
class TimeBudget:
    """Time that the images of one request may still take in the workers, in seconds."""

    seconds: float


class WorkerProcess:
    """One worker process, started when it is first needed and again after its end."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the process unless it runs."""
        if self._process is None or self._process.poll() is not None:
            self._process = subprocess.Popen(WORKER_COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def ask(self, order: dict[str, Any], data: bytes) -> tuple[dict[str, Any], bytes]:
        """Send an order and wait for the reply.

        Raises:
            ImageError: The worker has ended while it had this image.
        """
        self.start()
        process = self._process
        assert process is not None and process.stdin is not None and process.stdout is not None
        try:
            write_message(process.stdin, order, data)
            return read_message(process.stdout)
        except (OSError, EOFError, ValueError) as error:
            self.close()
            raise ImageError("damaged", "image", "cannot be decoded: save it again, or scale it down") from error

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
        self._threads = ThreadPoolExecutor(WORKERS, "decode")
        self._workers = [WorkerProcess() for _ in range(WORKERS)]
        self._idle: asyncio.Queue[WorkerProcess] = asyncio.Queue()
        self._large = asyncio.Lock()

    def start(self) -> None:
        """Start the workers."""
        for worker in self._workers:
            worker.start()
            self._idle.put_nowait(worker)

    def stop(self) -> None:
        """End the workers."""
        for worker in self._workers:
            worker.kill()
        self._threads.shutdown(cancel_futures=True)  # a moment: what they waited for is gone
        for worker in self._workers:
            worker.close()

    def budget(self) -> TimeBudget:
        """Return the time for the images of one request."""
        return TimeBudget(self._settings.decode_timeout)

    async def size(self, data: bytes, budget: TimeBudget) -> tuple[int, int]:
        """Return the (height, width) of an image.

        Raises:
            ImageError: It is not an image that is accepted, or beyond a limit.
            ApiError: The images of the request take too long.
        """
        head, _ = await self._ask({"work": "measure"}, data, budget)
        height, width = head["size"]
        return height, width

    async def decode(
        self,
        data: bytes,
        size: tuple[int, int],
        budget: TimeBudget,
        *,
        shape: tuple[int, int] | None,
        ground: tuple[int, int, int] | None,
    ) -> Image.Image:
        """Return an image in RGB.

        Args:
            data: The image file.
            size: Result of `size`.
            budget: Time that is left to the request.
            shape: (height, width) to which exact preprocessing resizes it; None keeps the size.
            ground: Color of the square on which it is centered; None for no square.

        Raises:
            ImageError: It is damaged.
            ApiError: The images of the request take too long.
        """
        async with self._large if size[0] * size[1] > LARGE_PIXELS else nullcontext():
            head, levels = await self._ask({"work": "decode", "shape": shape, "ground": ground}, data, budget)
        height, width = head["size"]
        return Image.frombytes("RGB", (width, height), levels)

    async def _ask(self, order: dict[str, Any], data: bytes, budget: TimeBudget) -> tuple[dict[str, Any], bytes]:
        worker = await self._idle.get()
        loop = asyncio.get_running_loop()
        order["max_pixels"] = self._settings.max_image_pixels
        working = loop.run_in_executor(self._threads, worker.ask, order, data)
        working.add_done_callback(lambda done: self._release(worker, done))
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
        head, levels = working.result()
        if "error" in head:
            kind, reason = head["error"]
            assert kind in get_args(ImageErrorKind)
            raise ImageError(kind, "image", reason)
        return head, levels

    def _release(self, worker: WorkerProcess, done: "asyncio.Future[Any] | Future[Any]") -> None:
        with suppress(asyncio.CancelledError, CancelledError):
            done.exception()  # it was raised where the work was awaited, or is of no interest
        self._idle.put_nowait(worker)
