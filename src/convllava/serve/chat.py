"""``POST /v1/chat/completions``: from the bytes of a body to an answer."""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any, TypeVar

from fastapi import Request, Response
from fastapi.responses import JSONResponse
from starlette.requests import ClientDisconnect

from .. import inference
from ..fetch import FetchPolicy, fetch
from ..image_options import ImageOptions
from ..images import is_data_url
from ..inference import Answer, Event, Finished, Prompt
from .completions import CompletionWriter, EventStream, stream
from .conversion import (
    ImageSource,
    check_sources,
    image_sources,
    open_sources,
    options_of,
    prepared,
)
from .engine import Engine, Ticket, too_late
from .errors import ApiError, as_api_errors
from .limits import BodyReader
from .parsing import Parser
from .schema import ChatRequest
from .settings import Settings

Result = TypeVar("Result")

FETCHING_THREADS = 8


class Chat:
    """Answers chat requests."""

    def __init__(self, engine: Engine, settings: Settings, bodies: BodyReader, fetch_policy: FetchPolicy) -> None:
        self._engine, self._settings, self._bodies, self._fetch_policy = engine, settings, bodies, fetch_policy
        self._fetching = ThreadPoolExecutor(FETCHING_THREADS, "fetch")
        self.parser = Parser()
        self._stride = engine.generator.processor.image_processor.output_stride

    async def __call__(self, request: Request) -> Response:
        """Return the response to one request, complete or as a stream.

        Raises:
            ApiError: The request is rejected.
        """
        deadline = asyncio.get_running_loop().time() + self._settings.request_timeout
        with ExitStack() as held:
            async with self._bodies.received(request) as body:
                chat = await self._parsed(body)
                sources = image_sources(chat)
                check_sources(sources, self._settings)
                held.enter_context(self._engine.slot())
                submitted = self._submitted(chat, sources, deadline, held, self._salt(request))
                ticket = await unless_left(submitted, request)
            events = ticket.events(deadline)
            writer = CompletionWriter(self._settings.model_name, self._stride)
            if not chat.stream:
                return JSONResponse(writer.complete(await unless_left(_finished(events), request)).model_dump())
            include_usage = chat.stream_options is not None and chat.stream_options.include_usage
            release = held.pop_all().close  # the stream releases it
            return EventStream(stream(events, writer, include_usage), release)

    def close(self) -> None:
        """Stop fetching images."""
        self.parser.close()
        self._fetching.shutdown(wait=False, cancel_futures=True)

    def _salt(self, request: Request) -> str:
        """Return the salt of what may be reused: one for the holders of the key, else one for each address."""
        if self._settings.api_key is not None:
            return "key"
        return f"address {request.client.host if request.client else ''}"

    async def _parsed(self, body: bytearray) -> ChatRequest:
        chat = await self.parser.parse(body, ChatRequest)
        body.clear()
        name = self._settings.model_name
        if chat.model not in (None, name):
            message = f"the model {chat.model!r} does not exist: this server has {name!r}"
            raise ApiError(404, message, param="model", code="model_not_found")
        return chat

    async def _submitted(
        self, chat: ChatRequest, sources: list[ImageSource], deadline: float, held: ExitStack, salt: str
    ) -> Ticket:
        """Open the images, prepare the prompt and queue it; closing `held` cancels it."""
        options = options_of(chat, sources)
        try:
            async with asyncio.timeout_at(deadline):
                data = await asyncio.gather(*map(self._fetched, sources))
                asked, prompt = await self._engine.prepare(lambda: self._prepared(chat, sources, data, options, salt))
        except TimeoutError:
            raise too_late() from None
        held.enter_context(self._engine.hold_pixels(prompt))
        ticket = self._engine.submit(asked, prompt)
        held.callback(self._engine.cancel, ticket)
        return ticket

    async def _fetched(self, source: ImageSource) -> bytes | None:
        if is_data_url(source.url):
            return None
        loop = asyncio.get_running_loop()
        with as_api_errors(source.param):
            return await loop.run_in_executor(self._fetching, fetch, source.url, self._fetch_policy)

    def _prepared(
        self,
        chat: ChatRequest,
        sources: Sequence[ImageSource],
        data: Sequence[bytes | None],
        options: ImageOptions,
        salt: str,
    ) -> tuple[inference.Request, Prompt]:
        images = open_sources(sources, data, self._settings.max_image_pixels)
        generator = self._engine.generator
        auto = self._settings.auto_resolution
        anonymous = self._settings.api_key is None
        with self._engine.processor() as processor:
            return prepared(
                chat,
                images,
                options,
                generator,
                processor,
                auto_resolution=auto,
                salt=salt,
                reuse_dialogue_only=anonymous,
            )


async def unless_left(work: Coroutine[Any, Any, Result], request: Request) -> Result:
    """Return the result of work, which is canceled when the client disconnects.

    Raises:
        ClientDisconnect: The client left.
    """
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_has_left(request))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        working.cancel()
        leaving.cancel()


async def _finished(events: AsyncIterator[Event]) -> Answer:
    async for event in events:
        if isinstance(event, Finished):
            return event.answer
    raise AssertionError("events end with the finished answer")


async def _has_left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
