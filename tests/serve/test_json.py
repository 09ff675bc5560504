"""Answers in JSON and log probabilities, as OpenAI's client asks for them; hostile schemas harm nobody."""

import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import openai
import pydantic
import pytest
from serve.conftest import Running, noise

pytest.importorskip("llguidance")

Alone = Callable[..., str]


class Receipt(pydantic.BaseModel):
    """What is asked for."""

    total: int
    paid: bool
    currency: Literal["EUR", "USD"]


SCHEMA = {
    "type": "object",
    "properties": {"paid": {"type": "boolean"}, "currency": {"enum": ["EUR", "USD"]}},
    "required": ["paid", "currency"],
}


def schema_format(schema: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}


@pytest.fixture(scope="module")
def client(server: Running) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)


def test_openais_client_parses(client: openai.OpenAI) -> None:
    messages: Any = [{"role": "user", "content": "What is the total?"}]
    completion = client.chat.completions.parse(
        model="tiny", messages=messages, response_format=Receipt, max_tokens=200, temperature=1, seed=3
    )
    choice = completion.choices[0]
    if choice.finish_reason == "stop":
        assert isinstance(choice.message.parsed, Receipt)
    with pytest.raises(openai.LengthFinishReasonError):
        client.chat.completions.parse(model="tiny", messages=messages, response_format=Receipt, max_tokens=4)


def test_openais_client_parses_responses(client: openai.OpenAI) -> None:
    class Paid(pydantic.BaseModel):
        paid: bool

    response = client.responses.parse(model="tiny", input="Is it paid?", text_format=Paid, max_output_tokens=60)
    assert isinstance(response.output_parsed, Paid)


def test_any_object(server: Running) -> None:
    reply = server.chat("What is it?", response_format={"type": "json_object"}, max_tokens=60)
    content, reason = (reply.json["choices"][0][name] for name in ("message", "finish_reason"))
    assert content["content"].startswith("{")
    assert reason == "length" or isinstance(json.loads(content["content"]), dict)


def test_streams_and_neighbors(server: Running, alone: Alone) -> None:
    def ask(number: int) -> Any:
        if number % 2:
            return server.chat("Why?", [noise(64, 64)], max_tokens=20).json["choices"][0]["message"]["content"]
        options = {"response_format": schema_format(SCHEMA), "max_tokens": 60, "stream": True}
        chunks = server.chat("What is it?", [noise(64, 64)], **options).events
        return "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks)

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(ask, range(8)))
    assert set(answers[1::2]) == {alone("Why?", [noise(64, 64)], max_new_tokens=20)}
    assert len(set(answers[::2])) == 1 and set(json.loads(answers[0])) == {"paid", "currency"}


DEEP: dict[str, Any] = {"type": "string"}
for _ in range(10):
    DEEP = {"type": "object", "properties": {"a": DEEP}}

HOSTILE = {
    "contradiction": ({"type": "string", "minLength": 5, "maxLength": 2}, "Unsatisfiable"),
    "cycle": ({"$ref": "#"}, "allows no answer"),
    "many patterns": ({"type": "string", "allOf": [{"pattern": f"a.{{{n},}}b"} for n in range(30)]}, "to compile"),
    "large": ({"enum": ["x" * 1000 + str(n) for n in range(100)]}, "at most 32768 are allowed"),
    "half a pattern": ({"type": "string", "pattern": "("}, "regex parse error"),
    "unknown keyword": ({"type": "array", "uniqueItems": True}, "uniqueItems"),
    "nested": (DEEP, None),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_schemas_are_refused(server: Running, name: str) -> None:
    schema, message = HOSTILE[name]
    reply = server.chat("?", response_format=schema_format(schema), max_tokens=4)
    if message is None:
        assert reply.status == 200, reply.body
    else:
        assert reply.status == 400 and reply.error["code"] == "invalid_json_schema"
        assert message in reply.error["message"] and reply.error["param"] == "response_format"


@pytest.mark.parametrize(
    "body",
    [
        b'{"type":"json_schema","json_schema":{"schema":' + b'{"items":' * 10_000 + b"{}" + b"}" * 10_000 + b"}}",
        b'{"type":"json_schema","json_schema":{"schema":{"const":NaN}}}',
        b'{"type":"json_schema","json_schema":{"schema":{"minimum":1e999,"type":"number"}}}',
        b'{"type":"json_schema","json_schema":{"schema":{"minimum":' + b"9" * 5000 + b',"type":"integer"}}}',
        b'{"type":"json_schema","json_schema":{"schema":{"const":"\\ud800"}}}',
        b'{"type":"json_schema","json_schema":{"schema":[]}}',
        b'{"type":"json_schema","json_schema":{"schema":null}}',
    ],
)
def test_bodies_that_are_no_schema(server: Running, body: bytes) -> None:
    message = b'{"messages":[{"role":"user","content":"?"}],"max_tokens":4,"response_format":' + body + b"}"
    reply = server.post("/v1/chat/completions", message)
    assert reply.status == 400, reply.body
    assert len(reply.body) < 1000


def test_a_schema_that_takes_long_stops_no_other_request(server: Running) -> None:
    slow = {"type": "integer", "multipleOf": 7919 * 7907}
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(server.chat, "?", response_format=schema_format(slow))
        done = 0
        while not waiting.done():
            started = time.perf_counter()
            assert server.chat("Why?", max_tokens=2).status == server.get("/health/live").status == 200
            done += time.perf_counter() - started < 5
        assert waiting.result().status == 400
    assert done >= 2


def test_log_probabilities(server: Running) -> None:
    reply = server.chat("Why?", max_tokens=8, logprobs=True, top_logprobs=3)
    choice = reply.json["choices"][0]
    content = choice["logprobs"]["content"]
    assert len(content) == 8
    for each in content:
        assert bytes(each["bytes"]).decode("utf-8", "backslashreplace") == each["token"]
        assert len(each["top_logprobs"]) == 3 and each["logprob"] == each["top_logprobs"][0]["logprob"] <= 0
    streamed = server.chat("Why?", max_tokens=8, logprobs=True, top_logprobs=3, stream=True).events
    pieces = [chunk["choices"][0]["logprobs"] for chunk in streamed]
    assert [each for piece in pieces if piece for each in piece["content"]] == content
    assert server.chat("Why?", logprobs=True).json["choices"][0]["logprobs"]["content"][0]["top_logprobs"] == []
    assert server.chat("Why?").json["choices"][0]["logprobs"] is None


def test_openais_client_reads_log_probabilities(client: openai.OpenAI) -> None:
    completion = client.chat.completions.create(
        model="tiny", messages=[{"role": "user", "content": "Why?"}], logprobs=True, top_logprobs=2, max_tokens=5
    )
    logprobs = completion.choices[0].logprobs
    assert logprobs is not None and logprobs.content is not None and len(logprobs.content) == 5
