"""`POST /v1/responses` with OpenAI's own client: the answers are those of chat completions."""

from collections.abc import Callable
from typing import Any

import openai
import pytest
from serve.conftest import MODEL, Running, Serve, data_url, encoded, noise

Alone = Callable[..., str]


@pytest.fixture(scope="module")
def client(server: Running) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)


def image(width: int = 192, height: int = 130, **options: Any) -> dict[str, Any]:
    return {"type": "input_image", "image_url": data_url(encoded(noise(width, height))), **options}


def asking(*parts: Any, text: str = "What is it?") -> list[dict[str, Any]]:
    return [{"role": "user", "content": [*parts, {"type": "input_text", "text": text}]}]


def test_the_answer_is_the_generators(client: openai.OpenAI, alone: Alone) -> None:
    asked: Any = asking(image(detail="auto"))
    response = client.responses.create(model=MODEL, input=asked, max_output_tokens=6)
    assert response.output_text == alone("What is it?", [noise(192, 130)])
    assert response.status == "incomplete" and response.incomplete_details is not None
    assert response.incomplete_details.reason == "max_output_tokens"
    usage: Any = response.usage
    assert usage.output_tokens == 6 and usage.total_tokens == usage.input_tokens + 6
    assert usage.input_tokens_details.model_dump()["image_tokens"] == 6
    assert response.model_dump()["convllava"]["images"][0]["grid"] == [2, 3]
    text = client.responses.create(model=MODEL, input="Why?", max_output_tokens=6)
    assert text.output_text == alone("Why?") and text.id.startswith("resp_")


def test_an_answer_that_ends_by_itself(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve() as server:
        generator = server.engine.generator
        end = min(generator._ends)
        append = generator._append_token
        monkeypatch.setattr(generator, "_append_token", lambda sequence, _: append(sequence, end))
        response = server.post("/v1/responses", {"input": "Why?"}).json
    assert response["status"] == "completed" and response["incomplete_details"] is None
    assert response["output"][0]["status"] == "completed"


def test_a_stream(client: openai.OpenAI, alone: Alone) -> None:
    with client.responses.stream(model=MODEL, input=asking(image()), max_output_tokens=6) as stream:  # type: ignore[arg-type]
        events = list(stream)
    names = [event.type for event in events]
    assert names[:4] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
    ]
    assert names[-4:] == [
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.incomplete",
    ]
    pieces = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert pieces == alone("What is it?", [noise(192, 130)])
    assert [event.sequence_number for event in events] == list(range(len(events)))


def test_events_without_the_helper(client: openai.OpenAI, alone: Alone) -> None:
    events = list(client.responses.create(model=MODEL, input="Why?", max_output_tokens=6, stream=True))
    last: Any = events[-1]
    assert last.response.output_text == alone("Why?") and last.response.usage.output_tokens == 6


def test_turns_and_instructions(client: openai.OpenAI, server: Running) -> None:
    first = client.responses.create(model=MODEL, input="Why?", instructions="Be brief.", max_output_tokens=4)
    dialogue: Any = [
        {"role": "developer", "content": "Be kind."},
        {"role": "user", "content": "Why?"},
        *(item.model_dump() for item in first.output),
        {"role": "user", "content": [{"type": "input_text", "text": "And?"}, image()], "type": "message"},
    ]
    second = client.responses.create(model=MODEL, input=dialogue, instructions="Be brief.", max_output_tokens=4)
    messages = [
        {"role": "system", "content": "Be brief.\n\nBe kind."},
        {"role": "user", "content": "Why?"},
        {"role": "assistant", "content": first.output_text},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "And?"},
                {"type": "image_url", "image_url": {"url": image()["image_url"]}},
            ],
        },
    ]
    chat = server.post("/v1/chat/completions", {"messages": messages, "max_tokens": 4}).json
    assert second.output_text == chat["choices"][0]["message"]["content"]
    assert second.usage is not None and second.usage.input_tokens == chat["usage"]["prompt_tokens"]


def test_what_clients_send_although_it_says_nothing(server: Running) -> None:
    body = {
        "input": "Why?",
        "max_output_tokens": 2,
        "store": False,
        "tools": [],
        "tool_choice": "auto",
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "conversation": None,
        "prompt": None,
        "reasoning": {"effort": None, "summary": None},
        "text": {"format": {"type": "text"}, "verbosity": "medium"},
        "truncation": "disabled",
        "include": [],
        "metadata": {"a": "b"},
        "service_tier": "auto",
        "background": False,
    }
    reply = server.post("/v1/responses", body)
    assert reply.status == 200 and reply.json["metadata"] == {"a": "b"}, reply.body


DAMAGED = {"type": "input_image", "image_url": "data:image/png;base64,AAAA"}


@pytest.mark.parametrize(
    ("body", "param", "message"),
    [
        ({}, "input", "Field required"),
        ({"input": []}, "input", "at least 1"),
        ({"input": "x", "previous_response_id": "resp_1"}, "previous_response_id", "unknown parameter"),
        ({"input": "x", "store": True}, "store", "False"),
        ({"input": "x", "tools": [{}]}, "tools", "at most 0"),
        ({"input": "x", "truncation": "auto"}, "truncation", "disabled"),
        ({"input": "x", "max_tokens": 5}, "max_tokens", "unknown parameter max_tokens"),
        ({"input": "x", "max_output_tokens": 600}, "input", "holds 512"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input[0]", "items of type 'item_reference'"),
        (
            {"input": "x", "text": {"format": {"type": "json_schema", "schema": {"type": "nonsense"}}}},
            "text.format",
            "nonsense",
        ),
        ({"input": asking({"type": "input_file"})}, "input[0]", "'input_text' and 'input_image'"),
        ({"input": asking({"type": "image_url"})}, "input[0]", "'input_text' and 'input_image'"),
        ({"input": asking({"type": "input_image", "file_id": "x"})}, "input[0]", "image_url"),
        ({"input": asking(DAMAGED)}, "input[0].content[0].image_url", "is not an image"),
        (
            {
                "instructions": "a",
                "input": [{"role": "system", "content": "b"}, {"role": "system", "content": "c"}, *asking(DAMAGED)],
            },
            "input[2].content[0].image_url",
            "is not an image",
        ),
        ({"instructions": "a", "input": asking(DAMAGED)}, "input[0].content[0].image_url", "is not an image"),
    ],
)
def test_refusals_name_the_parameter(server: Running, body: dict[str, Any], param: str, message: str) -> None:
    reply = server.post("/v1/responses", body)
    assert reply.status == 400 and message in reply.error["message"], reply.body
    assert reply.error["param"].startswith(param)


def test_a_failure_in_a_stream(client: openai.OpenAI, server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as broken:
        broken.setattr(server.engine.generator, "_append_tokens", lambda *_: (_ for _ in ()).throw(ValueError("bug")))
        last: Any = list(client.responses.create(model=MODEL, input="Why?", stream=True))[-1]
    assert last.type == "response.failed" and last.response.status == "failed"
    assert last.response.error.code == "model_error" and "bug" not in last.response.error.message
    server.wait_until_idle()


def test_keys_and_schema(serve: Serve) -> None:
    with serve(api_key="right-key") as server:
        assert server.post("/v1/responses", {"input": "x"}).status == 401
        schema = server.get("/openapi.json").json
        assert {"ResponsesRequest", "ResponseObject"} <= schema["components"]["schemas"].keys()
