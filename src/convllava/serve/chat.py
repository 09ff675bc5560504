"""``POST /v1/chat/completions`` and ``/v1/responses``: from the bytes of a body to an answer."""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from typing import Any, NamedTuple, TypeVar

from fastapi import Request, Response
from fastapi.responses import JSONResponse
from PIL import Image
from starlette.requests import ClientDisconnect

from .. import inference
from ..fetch import FetchPolicy, fetch
from ..inference import Answer, Event, Finished, Prompt
from ..inference.vocabulary import Vocabulary
from .completions import EventStream
from .conversion import (
    ImagePlan,
    ImageSource,
    check_sources,
    image_sources,
    inference_request,
    planned,
    prepared,
)
from .decoding import Decoder, EncodedImage, Form, TimeBudget
from .endpoints import Endpoint
from .engine import Engine, Ticket, too_late
from .errors import ApiError, as_api_errors
from .limits import BodyReader
from .parsing import Parser
from .schema import ChatRequest
from .settings import Settings

Result = TypeVar("Result")

FETCHING_THREADS = 8


class Submission(NamedTuple):
    """A request that waits for its answer: the client's body, whether it wants a stream, and the ticket."""

    asked: Any
    stream: bool
    ticket: Ticket


class Chat:
    """Answers chat requests."""

    def __init__(self, engine: Engine, settings: Settings, bodies: BodyReader, fetch_policy: FetchPolicy) -> None:
        self._engine, self._settings, self._bodies, self._fetch_policy = engine, settings, bodies, fetch_policy
        self._fetching = ThreadPoolExecutor(FETCHING_THREADS, "fetch")
        self.parser = Parser()
        self.decoder = Decoder(settings)
        processor = engine.generator.processor
        self._stride, self._vocabulary = processor.image_processor.output_stride, Vocabulary(processor.tokenizer)

    async def __call__(self, request: Request, endpoint: Endpoint[Any]) -> Response:
        """Return the response to one request, complete or as a stream.

        Raises:
            ApiError: The request is rejected.
        """
        try:
            return await self._response(request, endpoint)
        except ApiError as error:
            error.param = endpoint.other_names.get(error.param or "", error.param)
            raise

    async def _response(self, request: Request, endpoint: Endpoint[Any]) -> Response:
        deadline = asyncio.get_running_loop().time() + self._settings.request_timeout
        with ExitStack() as held:
            asked, is_stream, ticket = await self._submission(request, endpoint, deadline, held)
            events = ticket.events(deadline)
            writer = endpoint.writer(asked, self._settings.model_name, self._stride, self._vocabulary)
            if not is_stream:
                return JSONResponse(writer.complete(await unless_left(_finished(events), request)).model_dump())
            release = held.pop_all().close  # the stream releases it
            return EventStream(writer.stream(events), release)

    async def _submission(
        self, request: Request, endpoint: Endpoint[Any], deadline: float, held: ExitStack
    ) -> Submission:
        """Receive, parse and queue a request; its bytes are released at the end."""
        async with self._bodies.received(request) as body:
            asked, data_urls = await self.parser.parse(body, endpoint.body_type)
            chat = endpoint.as_chat(asked)
            self._check_model(chat)
            places = partial(endpoint.place_of_image, asked)
            sources = list(image_sources(chat, data_urls, places))
            check_sources(sources, self._settings)
            held.enter_context(self._engine.slot())
            submitted = self._submitted(chat, sources, deadline, held, self._salt(request))
            return Submission(asked, bool(chat.stream), await unless_left(submitted, request))

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

    def _check_model(self, chat: ChatRequest) -> None:
        name = self._settings.model_name
        if chat.model not in (None, name):
            message = f"the model {chat.model!r} does not exist: this server has {name!r}"
            raise ApiError(404, message, param="model", code="model_not_found")

    async def _submitted(
        self, chat: ChatRequest, sources: list[ImageSource], deadline: float, held: ExitStack, salt: str
    ) -> Ticket:
        """Open the images, prepare the prompt and queue it; closing `held` cancels it."""
        asked = inference_request(chat, salt, reuse_dialogue_only=self._settings.api_key is None)
        try:
            async with asyncio.timeout_at(deadline):
                constraint = await self._engine.constraint(asked)
                files = list(await asyncio.gather(*map(self._encoded, sources)))
                budget = self.decoder.budget()
                sizes = await self._sizes(sources, files, budget)
                plan = await self._engine.prepare(lambda: self._planned(chat, sources, sizes))
                held.enter_context(self._engine.hold_pixels(plan.shapes))
                images = await self._images(sources, files, plan, budget)
                prompt = await self._engine.prepare(lambda: self._prepared(asked, images, plan))
        except TimeoutError:
            raise too_late() from None
        ticket = self._engine.submit(asked, prompt, constraint)
        held.callback(self._engine.cancel, ticket)
        return ticket

    async def _encoded(self, source: ImageSource) -> EncodedImage:
        if source.data_url is not None:
            return EncodedImage(source.data_url, is_data_url=True)
        loop = asyncio.get_running_loop()
        with as_api_errors(source.param):
            data = await loop.run_in_executor(self._fetching, fetch, source.url, self._fetch_policy)
        return EncodedImage(data, is_data_url=False)

    async def _sizes(
        self, sources: Sequence[ImageSource], files: Sequence[EncodedImage], budget: TimeBudget
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
        self, sources: Sequence[ImageSource], files: Sequence[EncodedImage], plan: ImagePlan, budget: TimeBudget
    ) -> list[Image.Image]:
        """Decode the images one after the other, each to the size at which it is shown."""
        processor = self._engine.generator.processor.image_processor
        images = []
        for source, file, size, shape, ratio in zip(
            sources, files, plan.sizes, plan.shapes, plan.aspect_ratios, strict=True
        ):
            if processor.preprocessing == "exact":
                form = Form(shape=shape, ground=processor.ground if ratio == "pad" else None)
            else:
                form = Form(least=processor.least_size(size, shape, ratio))
            with as_api_errors(source.param):
                images.append(await self.decoder.decode(file, size, form, budget))
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
