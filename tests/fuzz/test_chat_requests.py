"""Random chat requests, valid ones with something changed: an answer or an error in OpenAI's shape, and nothing else.

Ten seconds by default; `CONVLLAVA_FUZZ_SECONDS=600 pytest -m slow tests/fuzz/test_chat_requests.py` takes longer.
"""

import base64
import http.client
import io
import json
import os
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from PIL import Image

from convllava.inference import Generator, load_pretrained
from convllava.serve import Settings, bind, create_app

SECONDS = float(os.environ.get("CONVLLAVA_FUZZ_SECONDS", "10"))

pytestmark = pytest.mark.slow

VALUES: list[Any] = [
    *(
        None,
        True,
        False,
        0,
        1,
        -1,
        1.0,
        0.5,
        1e-320,
        1e308,
        -0.0,
        2**31,
        2**63,
        2**64,
        10**400,
        "",
        " ",
        "0",
        "a" * 2000,
    ),
    *("\ud800", "\u0000", "\U0001f389", "<image>", "</s>", "null", [], [None], [[]], {}, {"": ""}, {"type": "text"}),
    *("data:", "data:image/png;base64,", "http://127.0.0.1/", "user", "assistant", "tool", "image_url", float("nan")),
]


def encoded_image() -> str:
    stream = io.BytesIO()
    Image.new("RGB", (64, 64), "red").save(stream, "PNG")
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()


def valid(rng: random.Random) -> dict[str, Any]:
    parts = [
        {"type": "image_url", "image_url": {"url": encoded_image(), "detail": "low"}},
        {"type": "text", "text": "What?"},
    ]
    messages: list[dict[str, Any]] = [{"role": "user", "content": rng.choice(["Why?", parts])}]
    if rng.random() < 0.5:
        messages = [{"role": "system", "content": "Be brief."}, *messages]
        messages += [{"role": "assistant", "content": "Yes."}, {"role": "user", "content": [parts[1]]}]
    body: dict[str, Any] = {"messages": messages, "max_tokens": 3}
    options = {"temperature": 1, "top_p": 0.5, "stop": ["a", "b"], "seed": 3, "stream": True, "metadata": {"a": "b"}}
    chosen = rng.sample(sorted(options), rng.randrange(4))
    return body | {name: options[name] for name in chosen}


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a body."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*path, key)
        yield from places(inner, (*path, key))


def changed(body: dict[str, Any], rng: random.Random) -> bytes:
    """Replace, add, repeat or remove a value, or damage the bytes."""
    for _ in range(rng.randrange(1, 4)):
        path = rng.choice(list(places(body)) or [("messages",)])
        inside: Any = body
        for key in path[:-1]:
            inside = inside[key]
        match rng.randrange(4):
            case 0:
                inside[path[-1]] = rng.choice(VALUES)
            case 1 if isinstance(inside, dict):
                inside[rng.choice(["type", "role", "n", "content", "x" * 200, "tools", ""])] = rng.choice(VALUES)
            case 2 if isinstance(inside, list):
                inside += [inside[path[-1]]] * rng.choice([1, 20, 1001])
            case _:
                del inside[path[-1]]
    data = bytearray(json.dumps(body, ensure_ascii=rng.random() < 0.5).encode("utf-8", "surrogatepass"))
    if rng.random() < 0.1:
        place = rng.randrange(len(data))
        data[place : place + rng.randrange(3)] = rng.randbytes(rng.randrange(4))
    return bytes(data)


@pytest.fixture(scope="module")
def port(tiny_checkpoint: Path) -> Iterator[int]:
    generator = Generator(*load_pretrained(tiny_checkpoint, device="cpu"), 4, prefix_cache_bytes=1 << 22)
    listener = bind("127.0.0.1", 0)
    app = create_app(generator, Settings(model_name="tiny", max_batch=4))
    server = uvicorn.Server(uvicorn.Config(app, ws="none", log_config=None, access_log=False))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    yield listener.getsockname()[1]
    server.should_exit = True
    thread.join(20)


def test_random_requests_get_an_answer_or_an_error(port: int) -> None:
    end, seed = time.monotonic() + SECONDS, 0
    while time.monotonic() < end:
        seed += 1
        rng = random.Random(seed)
        body = changed(valid(rng), rng)
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request("POST", "/v1/chat/completions", body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        answer = response.read()
        connection.close()
        told = f"seed {seed}: {response.status} {answer[:300]!r} for {body[:500]!r}"
        assert response.status in (200, 400, 404), told
        if response.status != 200:
            assert json.loads(answer)["error"].keys() == {"message", "type", "param", "code"}, told
        else:
            assert b'"server_error"' not in answer, told
    assert seed > 10
