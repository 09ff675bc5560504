"""Answers in OpenAI's format, complete or streamed."""

import json
import time
import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any, Literal

from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from ..inference import Answer, Event, Finished, TextDelta
from ..inference.vocabulary import Vocabulary
from .conversion import image_cost
from .errors import CLIENT_LEFT, ERROR_NOTE, ApiError
from .logprobs import logprobs_of
from .schema import (
    AnswerMessage,
    AnswerTimings,
    ChatCompletion,
    ChatCompletionChunk,
    ChatRequest,
    Choice,
    ChunkChoice,
    Delta,
    Extension,
    PromptTokensDetails,
    Usage,
)

DONE = b"data: [DONE]\n\n"


class CompletionWriter:
    """Formats one answer; all its pieces have the same id."""

    def __init__(self, asked: ChatRequest, model: str, stride: int, vocabulary: Vocabulary) -> None:
        self._includes_usage = asked.stream_options is not None and asked.stream_options.include_usage
        self._head: dict[str, Any] = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": model}
        self._stride, self._vocabulary = stride, vocabulary

    def complete(self, answer: Answer) -> ChatCompletion:
        """Return the complete answer."""
        choice = Choice(
            message=AnswerMessage(content=answer.text),
            logprobs=None if answer.logprobs is None else logprobs_of(answer.logprobs, self._vocabulary),
            finish_reason=finish_reason(answer),
        )
        return ChatCompletion(
            **self._head, choices=[choice], usage=usage(answer), convllava=extension(answer, self._stride)
        )

    async def stream(self, events: AsyncIterator[Event]) -> AsyncIterator[bytes]:
        """Yield the events of an answer; an error becomes the last event."""
        yield self.first()
        try:
            async for arrived in events:
                if isinstance(arrived, Finished):
                    yield self.last(arrived.answer)
                    if self._includes_usage:
                        yield self.usage(arrived.answer)
                elif isinstance(arrived, TextDelta):
                    yield self.piece(arrived)
        except ApiError as error:
            yield event(error.body)
        yield DONE

    def first(self) -> bytes:
        """Return the first event, with the role."""
        return self._event([ChunkChoice(delta=Delta(role="assistant", content=""))])

    def piece(self, delta: TextDelta) -> bytes:
        """Return the event of a piece of text."""
        logprobs = logprobs_of(delta.logprobs, self._vocabulary) if delta.logprobs else None
        return self._event([ChunkChoice(delta=Delta(content=delta.text), logprobs=logprobs)])

    def last(self, answer: Answer) -> bytes:
        """Return the event with the finish reason and our extension."""
        choice = ChunkChoice(delta=Delta(), finish_reason=finish_reason(answer))
        return self._event([choice], convllava=extension(answer, self._stride))

    def usage(self, answer: Answer) -> bytes:
        """Return the event with the numbers of tokens."""
        return self._event([], usage=usage(answer))

    def _event(self, choices: list[ChunkChoice], **more: Any) -> bytes:
        chunk = ChatCompletionChunk(**self._head, choices=choices, **more)
        return event(chunk.model_dump(exclude_unset=False, exclude_none=True) | {"choices": _dumped(choices)})


def _dumped(choices: list[ChunkChoice]) -> list[dict[str, Any]]:
    return [
        {
            "index": 0,
            "delta": choice.delta.model_dump(exclude_none=True),
            "logprobs": None if choice.logprobs is None else choice.logprobs.model_dump(),
            "finish_reason": choice.finish_reason,
        }
        for choice in choices
    ]


def event(data: dict[str, Any]) -> bytes:
    """Return one server-sent event."""
    return b"data: " + json.dumps(data, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n\n"


class EventStream(StreamingResponse):
    """Server-sent events; `release` is called at the end, however the connection ends."""

    media_type = "text/event-stream"

    def __init__(self, body: AsyncIterator[bytes], release: Callable[[], None]) -> None:
        # X-Accel-Buffering: nginx would collect the pieces
        super().__init__(body, headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        self._release = release
        self._is_complete = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events until the end or until the client disconnects."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._release()
            if not self._is_complete:
                scope[ERROR_NOTE] = CLIENT_LEFT

    async def stream_response(self, send: Send) -> None:
        """Send all events unless the client disconnects."""
        await super().stream_response(send)
        self._is_complete = True


def finish_reason(answer: Answer) -> Literal["stop", "length"]:
    """Return the finish reason in OpenAI's words.

    Clients accept no others. An answer that was cut in a loop is incomplete, which `length` tells them: they raise an
    error where they would parse it.
    """
    return "stop" if answer.finish_reason == "stop" else "length"


def usage(answer: Answer) -> Usage:
    """Return the numbers of tokens."""
    return Usage(
        prompt_tokens=answer.num_prompt_tokens,
        completion_tokens=len(answer.token_ids),
        total_tokens=answer.num_prompt_tokens + len(answer.token_ids),
        prompt_tokens_details=PromptTokensDetails(
            cached_tokens=answer.num_cached_tokens, image_tokens=answer.num_image_tokens
        ),
    )


def extension(answer: Answer, stride: int) -> Extension:
    """Return grids, boxes and timings."""
    timings = answer.timings
    return Extension(
        images=[image_cost(size, stride) for size in answer.image_sizes],
        finish_reason=answer.finish_reason,
        boxes=[[round(edge, 2) for edge in box] for box in answer.boxes],
        box_image=answer.box_image,
        timings=AnswerTimings(
            encode_seconds=round(timings.encode_seconds, 4),
            queue_seconds=round(timings.queue_seconds, 4),
            first_token_seconds=round(timings.first_token_seconds, 4),
            total_seconds=round(timings.total_seconds, 4),
        ),
    )
