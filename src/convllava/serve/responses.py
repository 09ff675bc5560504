"""``POST /v1/responses``: its requests become chat requests, and answers are written in its format."""

import json
import time
import uuid
from collections.abc import AsyncIterator
from typing import Any

from ..inference import Answer, Event, Finished, TextDelta
from ..inference.vocabulary import Vocabulary
from .completions import extension
from .errors import ApiError
from .responses_schema import (
    IncompleteDetails,
    InputImage,
    InputItem,
    InputText,
    InputTokensDetails,
    OutputMessage,
    OutputPart,
    OutputText,
    OutputTokensDetails,
    ResponseFailure,
    ResponseObject,
    ResponsesRequest,
    ResponsesUsage,
    SystemItem,
    UserItem,
)
from .schema import ChatRequest


def chat_of(asked: ResponsesRequest) -> ChatRequest:
    """Return a request as a chat request; the instructions and system items before the first turn become one message.

    Raises:
        ApiError: An option has no counterpart.
    """
    items: list[Any] = [UserItem(role="user", content=asked.input)] if isinstance(asked.input, str) else asked.input
    first = _first_turn(items)
    system = [asked.instructions] if asked.instructions else []
    system += [_text(item) for item in items[:first]]
    messages = [{"role": "system", "content": "\n\n".join(system)}] if system else []
    return ChatRequest.model_validate(
        {
            "model": asked.model,
            "messages": messages + [_message(item) for item in items[first:]],
            "stream": asked.stream,
            "max_tokens": asked.max_output_tokens,
            "temperature": asked.temperature,
            "top_p": asked.top_p,
            "response_format": None if asked.text is None or asked.text.format is None else asked.text.format.as_chat,
            **asked.image_options.given(),
        }
    )


def place_of_image(asked: ResponsesRequest, turn: int, part: int) -> str:
    """Return the place in the body of an image, by its place in the chat request."""
    shift = 0
    if isinstance(asked.input, list):
        first = _first_turn(asked.input)
        shift = first - bool(first or asked.instructions)
    return f"input[{turn + shift}].content[{part}].image_url"


def _first_turn(items: list[Any]) -> int:
    """Return the index of the first item that is not a system message."""
    return next((index for index, item in enumerate(items) if not isinstance(item, SystemItem)), len(items))


def _text(item: SystemItem) -> str:
    return item.content if isinstance(item.content, str) else "\n\n".join(part.text for part in item.content)


def _message(item: InputItem) -> dict[str, Any]:
    if isinstance(item, SystemItem):
        return {"role": "system", "content": _text(item)}
    content = item.content
    return {"role": item.role, "content": content if isinstance(content, str) else [_part(part) for part in content]}


def _part(part: InputText | InputImage | OutputText) -> dict[str, Any]:
    if isinstance(part, InputImage):
        return {"type": "image_url", "image_url": {"url": part.image_url, "detail": part.detail}}
    return {"type": "text", "text": part.text}


class ResponseWriter:
    """Formats one answer; all its events have the same id."""

    def __init__(self, asked: ResponsesRequest, model: str, stride: int, vocabulary: Vocabulary) -> None:
        self._stride = stride
        self._message_id = f"msg_{uuid.uuid4().hex}"
        self._number = 0
        form = {"type": "text"} if asked.text is None or asked.text.format is None else asked.text.format.given
        self._head: dict[str, Any] = {
            "id": f"resp_{uuid.uuid4().hex}",
            "created_at": int(time.time()),
            "model": model,
            "instructions": asked.instructions,
            "max_output_tokens": asked.max_output_tokens,
            "temperature": asked.temperature or 0.0,
            "top_p": 1.0 if asked.top_p is None else asked.top_p,
            "text": {"format": form},
            "metadata": asked.metadata or {},
            "user": asked.user,
        }

    def complete(self, answer: Answer) -> ResponseObject:
        """Return the complete answer."""
        is_cut = answer.finish_reason != "stop"
        return ResponseObject(
            **self._head,
            status="incomplete" if is_cut else "completed",
            completed_at=None if is_cut else int(time.time()),
            incomplete_details=IncompleteDetails(reason="max_output_tokens") if is_cut else None,
            output=[self._message("incomplete" if is_cut else "completed", answer.text)],
            usage=_usage(answer),
            convllava=extension(answer, self._stride),
        )

    async def stream(self, events: AsyncIterator[Event]) -> AsyncIterator[bytes]:
        """Yield the events of an answer; an error becomes the last event."""
        part = {"output_index": 0, "content_index": 0, "item_id": self._message_id}
        started = ResponseObject(**self._head, status="in_progress").model_dump()
        yield self._event("response.created", response=started)
        yield self._event("response.in_progress", response=started)
        item = self._message("in_progress", None).model_dump()
        yield self._event("response.output_item.added", output_index=0, item=item)
        yield self._event("response.content_part.added", **part, part=OutputPart(text="").model_dump())
        try:
            async for arrived in events:
                if isinstance(arrived, TextDelta):
                    yield self._event("response.output_text.delta", **part, delta=arrived.text, logprobs=[])
                elif isinstance(arrived, Finished):
                    response = self.complete(arrived.answer)
                    text = OutputPart(text=arrived.answer.text).model_dump()
                    yield self._event("response.output_text.done", **part, text=text["text"], logprobs=[])
                    yield self._event("response.content_part.done", **part, part=text)
                    item = response.output[0].model_dump()
                    yield self._event("response.output_item.done", output_index=0, item=item)
                    yield self._event(f"response.{response.status}", response=response.model_dump())
        except ApiError as error:
            failure = ResponseFailure(code=error.code or "server_error", message=error.message)
            failed = ResponseObject(**self._head, status="failed", error=failure)
            yield self._event("response.failed", response=failed.model_dump())

    def _message(self, status: Any, text: str | None) -> OutputMessage:
        parts = [] if text is None else [OutputPart(text=text)]
        return OutputMessage(id=self._message_id, status=status, content=parts)

    def _event(self, name: str, **fields: Any) -> bytes:
        data = {"type": name, "sequence_number": self._number, **fields}
        self._number += 1
        text = json.dumps(data, ensure_ascii=False).encode("utf-8", "backslashreplace")
        return b"event: " + name.encode() + b"\ndata: " + text + b"\n\n"


def _usage(answer: Answer) -> ResponsesUsage:
    return ResponsesUsage(
        input_tokens=answer.num_prompt_tokens,
        input_tokens_details=InputTokensDetails(
            cached_tokens=answer.num_cached_tokens, image_tokens=answer.num_image_tokens
        ),
        output_tokens=len(answer.token_ids),
        output_tokens_details=OutputTokensDetails(),
        total_tokens=answer.num_prompt_tokens + len(answer.token_ids),
    )
