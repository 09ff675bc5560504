"""``POST /v1/chat/completions`` and ``/v1/responses``: from the bytes of a body to an answer."""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any, TypeVar

from fastapi import Request, Response
from fastapi.responses import JSONResponse
from PIL import Image
from starlette.requests import ClientDisconnect

from .. import inference
from ..fetch import FetchPolicy, fetch
from ..images import is_data_url
from ..inference import Answer, Event, Finished, Prompt
from .completions import EventStream
from .conversion import (
    ImagePlan,
    ImageSource,
    check_sources,
    image_files,
    image_sources,
    inference_request,
    planned,
    prepared,
)
from .decoding import Decoder, TimeBudget
from .endpoints import Endpoint
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
        self.decoder = Decoder(settings)
        self._stride = engine.generator.processor.image_processor.output_stride

    async def __call__(self, request: Request, endpoint: Endpoint[Any]) -> Response:
        """Return the response to one request, complete or as a stream.

        Raises:
            ApiError: The request is rejected.
        """
        try:
            return await self._response(request, endpoint)
        except ApiError as error:
            if error.param == "messages":
                error.param = endpoint.dialogue
            raise

    async def _response(self, request: Request, endpoint: Endpoint[Any]) -> Response:
        deadline = asyncio.get_running_loop().time() + self._settings.request_timeout
        with ExitStack() as held:
            async with self._bodies.received(request) as body:
                asked, chat = await self._parsed(body, endpoint)
                sources = image_sources(chat, lambda turn, part: endpoint.place_of_image(asked, turn, part))
                check_sources(sources, self._settings)
                held.enter_context(self._engine.slot())
                submitted = self._submitted(chat, sources, deadline, held, self._salt(request))
                ticket = await unless_left(submitted, request)
            events = ticket.events(deadline)
            writer = endpoint.writer(asked, self._settings.model_name, self._stride)
            if not chat.stream:
                return JSONResponse(writer.complete(await unless_left(_finished(events), request)).model_dump())
            release = held.pop_all().close  # the stream releases it
            return EventStream(writer.stream(events), release)

    def close(self) -> None:
        """Stop receiving, fetching and decoding."""
        self.decoder.stop()
        self.parser.close()
        self._fetching.shutdown(wait=False, cancel_futures=True)

    def _salt(self, request: Request) -> str:
        """Return the salt of what may be reused: one for the holders of the key, else one for each address."""
        if self._settings.api_key is not None:
            return "key"
        return f"address {request.client.host if request.client else ''}"

    async def _parsed(self, body: bytearray, endpoint: Endpoint[Any]) -> tuple[Any, ChatRequest]:
        asked = await self.parser.parse(body, endpoint.body_type)
        body.clear()
        chat, name = endpoint.as_chat(asked), self._settings.model_name
        if chat.model not in (None, name):
            message = f"the model {chat.model!r} does not exist: this server has {name!r}"
            raise ApiError(404, message, param="model", code="model_not_found")
        return asked, chat

    async def _submitted(
        self, chat: ChatRequest, sources: list[ImageSource], deadline: float, held: ExitStack, salt: str
    ) -> Ticket:
        """Open the images, prepare the prompt and queue it; closing `held` cancels it."""
        asked = inference_request(chat, salt, reuse_dialogue_only=self._settings.api_key is None)
        try:
            async with asyncio.timeout_at(deadline):
                data = await asyncio.gather(*map(self._fetched, sources))
                files = await self._engine.prepare(lambda: image_files(sources, data))
                budget = self.decoder.budget()
                sizes = await self._sizes(sources, files, budget)
                plan = await self._engine.prepare(lambda: self._planned(chat, sources, sizes))
                held.enter_context(self._engine.hold_pixels(plan.shapes))
                images = await self._images(sources, files, plan, budget)
                prompt = await self._engine.prepare(lambda: self._prepared(asked, images, plan))
        except TimeoutError:
            raise too_late() from None
        ticket = self._engine.submit(asked, prompt)
        held.callback(self._engine.cancel, ticket)
        return ticket

    async def _fetched(self, source: ImageSource) -> bytes | None:
        if is_data_url(source.url):
            return None
        loop = asyncio.get_running_loop()
        with as_api_errors(source.param):
            return await loop.run_in_executor(self._fetching, fetch, source.url, self._fetch_policy)

    async def _sizes(
        self, sources: Sequence[ImageSource], files: Sequence[bytes], budget: TimeBudget
    ) -> list[tuple[int, int]]:
        """Return the (height, width) of each image, after a check of their sum."""
        sizes = []
        for source, file in zip(sources, files, strict=True):
            with as_api_errors(source.param):
                sizes.append(await self.decoder.size(file, budget))
        pixels, most = sum(height * width for height, width in sizes), self._settings.max_request_pixels
        if pixels > most:
            message = f"the images have {pixels} pixels together, at most {most} are allowed: scale them down"
            raise ApiError(400, message, param="messages", code="invalid_image")
        return sizes

    async def _images(
        self, sources: Sequence[ImageSource], files: list[bytes], plan: ImagePlan, budget: TimeBudget
    ) -> list[Image.Image]:
        """Decode the images one after the other, each to the size at which it is shown."""
        processor = self._engine.generator.processor.image_processor
        images = []
        for source, size, shape, options in zip(sources, plan.sizes, plan.shapes, plan.options, strict=True):
            ratio = options.image_aspect_ratio or processor.image_aspect_ratio
            is_exact = processor.preprocessing == "exact"
            with as_api_errors(source.param):
                image = await self.decoder.decode(
                    files.pop(0),
                    size,
                    budget,
                    shape=shape if is_exact else None,
                    ground=processor.ground if is_exact and ratio == "pad" else None,
                )
            images.append(image)
        return images

    def _planned(self, chat: ChatRequest, sources: Sequence[ImageSource], sizes: list[tuple[int, int]]) -> ImagePlan:
        with self._engine.processor() as processor:
            return planned(chat, sources, sizes, self._engine.generator, processor, self._settings)

    def _prepared(self, asked: inference.Request, images: Sequence[Image.Image], plan: ImagePlan) -> Prompt:
        with self._engine.processor() as processor:
            return prepared(asked, images, plan, processor, self._engine.generator.context)


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
