"""The routes of the server."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.openapi.utils import get_openapi
from fastapi.responses import FileResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic.json_schema import models_json_schema
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from ..fetch import SERVER_FETCH, FetchPolicy
from ..image_options import ImageOptions
from ..inference import Generator
from .chat import Chat
from .conversion import LOW_DETAIL_TOKENS, image_costs, with_chosen_size
from .endpoints import COMPLETIONS, RESPONSES
from .engine import Engine
from .errors import ApiError, on_any_error, on_api_error, on_http_error
from .gate import Gate
from .limits import BodyReader, key_check
from .metrics import Metrics
from .responses_schema import ResponseObject, ResponsesRequest
from .schema import (
    ChatCompletion,
    ChatCompletionChunk,
    ChatRequest,
    ErrorBody,
    Estimate,
    EstimateRequest,
    Health,
    ModelCard,
    ModelInfo,
    ModelList,
)
from .settings import Settings

PAGE = Path(__file__).parent / "static"

MEANINGS = {
    400: "The request is wrong: `param` says where.",
    401: "The API key is missing or wrong.",
    403: "The server does not go by this name.",
    404: "No such model.",
    408: "The body was not complete in time.",
    413: "The body is too large.",
    415: "Not JSON.",
    429: "The queue is full: retry after `Retry-After` seconds.",
    500: "The model failed on this request.",
    503: "The server is stopping.",
    504: "The answer takes too long.",
}

EXPOSED_HEADERS = ("X-Request-Id", "Retry-After")
"""Headers of a response that a page of another origin may read."""

_SCHEMA_REFERENCE = "#/components/schemas/{model}"


def create_app(generator: Generator, settings: Settings, fetch_policy: FetchPolicy = SERVER_FETCH) -> FastAPI:
    """Return the application; `app.state.engine` runs the generator while it is up.

    Raises:
        ValueError: The image options of the settings contradict each other or the checkpoint's.
    """
    generator.processor.image_processor.resized_shape(64, 64, **settings.image_options.given())
    metrics = Metrics()
    engine = Engine(generator, settings, metrics)
    bodies = BodyReader(settings)
    chat = Chat(engine, settings, bodies, fetch_policy)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        chat.decoder.start()
        engine.start()
        yield
        engine.stop()
        chat.close()

    app = FastAPI(
        title="convllava",
        description="Chat completions about images.",
        lifespan=lifespan,
        docs_url=None,  # it would load its scripts from the internet
        redoc_url=None,
        exception_handlers={ApiError: on_api_error, HTTPException: on_http_error, Exception: on_any_error},
    )
    app.state.engine = engine
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST"],
            allow_headers=["*"],
            expose_headers=EXPOSED_HEADERS,
        )
    app.add_middleware(Gate, settings=settings, metrics=metrics)
    app.include_router(_api(engine, settings, bodies, chat))
    app.include_router(_operations(engine, metrics))
    app.include_router(_page())
    app.mount("/static", StaticFiles(directory=PAGE), name="static")
    app.openapi = lambda: _openapi(app, settings.root_path)  # type: ignore[method-assign]
    return app


def _responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": ErrorBody, "description": MEANINGS[status]} for status in statuses}


def _body(name: str) -> dict[str, Any]:
    schema = {"$ref": _SCHEMA_REFERENCE.format(model=name)}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def _api(engine: Engine, settings: Settings, bodies: BodyReader, chat: Chat) -> APIRouter:
    check_key = key_check(settings.api_key)
    created = int(time.time())

    async def require_key(request: Request) -> None:
        try:
            check_key(request.headers)
        except ApiError:
            await bodies.discard(request)
            raise

    router = APIRouter(prefix="/v1", dependencies=[Depends(require_key)], responses=_responses(401, 403))
    _add_answers(router, chat)

    @router.get("/models")
    async def models() -> ModelList:
        """List the one model."""
        return ModelList(data=[_card(engine, settings, created)])

    @router.get("/models/{name:path}", responses=_responses(404))
    async def model(name: str) -> ModelCard:
        """Describe the model."""
        if name != settings.model_name:
            message = f"the model {name!r} does not exist: this server has {settings.model_name!r}"
            raise ApiError(404, message, param="model", code="model_not_found")
        return _card(engine, settings, created)

    @router.post(
        "/estimate",
        responses=_responses(400, 408, 413, 415, 429),
        openapi_extra=_body(EstimateRequest.__name__),
    )
    async def estimate(request: Request) -> Estimate:
        """Return the cost of images before they are sent."""
        async with bodies.received(request) as body:
            asked = (await chat.parser.parse(body, EstimateRequest)).body
        return _estimate(engine, settings, asked)

    return router


def _add_answers(router: APIRouter, chat: Chat) -> None:
    stream = {"schema": {"$ref": _SCHEMA_REFERENCE.format(model=ChatCompletionChunk.__name__)}}

    @router.post(
        "/chat/completions",
        response_model=ChatCompletion,
        responses={
            200: {"content": {"text/event-stream": stream}, "description": "The answer, or events of pieces of it."},
            **_responses(400, 404, 408, 413, 415, 429, 500, 503, 504),
        },
        openapi_extra=_body(ChatRequest.__name__),
    )
    async def complete(request: Request) -> Response:
        """Answer a dialogue about images."""
        return await chat(request, COMPLETIONS)

    @router.post(
        "/responses",
        response_model=ResponseObject,
        responses=_responses(400, 404, 408, 413, 415, 429, 500, 503, 504),
        openapi_extra=_body(ResponsesRequest.__name__),
    )
    async def respond(request: Request) -> Response:
        """Answer a dialogue about images in the format of OpenAI's responses API; nothing is stored."""
        return await chat(request, RESPONSES)


def _card(engine: Engine, settings: Settings, created: int) -> ModelCard:
    images, context = engine.generator.processor.image_processor, engine.generator.context
    given = settings.image_options
    info = ModelInfo(
        output_stride=images.output_stride,
        image_aspect_ratio=given.image_aspect_ratio or images.image_aspect_ratio,
        resolution=given.resolution or images.resolution,
        max_visual_tokens=given.max_visual_tokens or images.max_visual_tokens,
        trained_visual_tokens=_trained_visual_tokens(engine),
        max_visual_tokens_low_detail=LOW_DETAIL_TOKENS,
        max_visual_tokens_together=context - 1,
        context=context,
        max_images=settings.max_images,
        max_image_pixels=settings.max_image_pixels,
        remote_images=settings.remote_images,
    )
    return ModelCard(id=settings.model_name, created=created, max_model_len=context, convllava=info)


def _trained_visual_tokens(engine: Engine) -> list[int] | None:
    known = engine.generator.model.config.trained_visual_tokens
    return None if known is None else list(known)


def _estimate(engine: Engine, settings: Settings, asked: EstimateRequest) -> Estimate:
    try:
        sizes = [(height, width) for width, height in asked.sizes]
        costs = image_costs(sizes, engine.generator.processor, _options(engine, settings, asked))
    except ValueError as error:
        raise ApiError(400, str(error), code="invalid_value") from error
    visual = sum(cost.visual_tokens for cost in costs)
    return Estimate(images=costs, visual_tokens=visual, context=engine.generator.context)


def _options(engine: Engine, settings: Settings, asked: EstimateRequest) -> ImageOptions:
    """Return the image options with which these images would be shown."""
    given = settings.image_options.merged(asked.image_options)
    if not settings.auto_resolution:
        return given
    return with_chosen_size(
        given,
        [(height, width) for width, height in asked.sizes],
        engine.generator,
        text_tokens=asked.num_text_characters // 4,
        answer_tokens=None,
    )


def _operations(engine: Engine, metrics: Metrics) -> APIRouter:
    router = APIRouter()

    @router.get("/health", response_model=Health, responses={503: {"model": Health, "description": "Not ready."}})
    async def health() -> Response:
        """Return whether the server is live (it answers) and ready (it accepts requests)."""
        running = engine.generator.num_running
        waiting = max(0, engine.taken - running)
        state = Health(live=True, ready=engine.is_ready, running=running, waiting=waiting)
        return JSONResponse(state.model_dump(), 200 if state.ready else 503)

    @router.get("/health/live")
    async def live() -> dict[str, bool]:
        """Return that the process answers."""
        return {"live": True}

    @router.get("/metrics", response_class=Response)
    async def metrics_text() -> Response:
        """Return the metrics in the text format of Prometheus."""
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    return router


def _page() -> APIRouter:
    router = APIRouter(include_in_schema=False)

    @router.get("/")
    async def page() -> Response:
        return FileResponse(PAGE / "index.html", headers={"Cache-Control": "no-cache"})

    return router


def _openapi(app: FastAPI, root_path: str) -> dict[str, Any]:
    """Return the OpenAPI schema, including the bodies that the routes parse themselves."""
    if app.openapi_schema is None:
        schema = get_openapi(
            title=app.title,
            version="1",
            description=app.description,
            routes=app.routes,
            servers=[{"url": root_path}] if root_path else None,
        )
        _, read = models_json_schema(
            [
                (ChatRequest, "validation"),
                (ResponsesRequest, "validation"),
                (EstimateRequest, "validation"),
                (ChatCompletionChunk, "validation"),
            ],
            ref_template=_SCHEMA_REFERENCE,
        )
        schema["components"]["schemas"] = read["$defs"] | schema["components"]["schemas"]
        app.openapi_schema = schema
    return app.openapi_schema
