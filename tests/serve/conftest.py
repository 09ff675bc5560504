"""A server with a tiny model on the loopback interface, and ways to talk to it."""

import base64
import http.client
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import torch
import uvicorn
from fastapi import FastAPI
from PIL import Image

from convllava.fetch import SERVER_FETCH, FetchPolicy
from convllava.inference import Generator, Request, load_pretrained
from convllava.serve import Settings, address_of, bind, create_app
from convllava.serve.limits import PatientProtocol

MODEL = "tiny"
LOCAL = ("127.0.0.1", "localhost", "::1")


@dataclass
class Reply:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        """The error in OpenAI's shape, which it must have."""
        error = self.json["error"]
        assert error.keys() == {"message", "type", "param", "code"}
        return error

    @property
    def events(self) -> list[Any]:
        """The events of a stream, without the last, which must be [DONE]."""
        lines = [line for line in self.body.decode().split("\n\n") if line]
        assert all(line.startswith("data: ") for line in lines) and lines[-1] == "data: [DONE]"
        return [json.loads(line[6:]) for line in lines[:-1]]


class Running:
    """A server in a thread."""

    def __init__(self, app: FastAPI, url: str) -> None:
        self.app, self.url = app, url
        self.engine = app.state.engine
        self.port: int = urlsplit(url).port or 0

    def request(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Reply:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body, named)
            response = connection.getresponse()
            return Reply(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> Reply:
        return self.request("GET", path, **headers)

    def post(self, path: str, body: Any, **headers: str) -> Reply:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.request("POST", path, data, **{"content_type": "application/json", **headers})

    def chat(self, content: Any, images: Any = (), **options: Any) -> Reply:
        """Ask one question."""
        parts: Any = content
        if images:
            parts = [*map(image_part, images), {"type": "text", "text": content}]
        body = {"model": MODEL, "messages": [{"role": "user", "content": parts}], "max_tokens": 6, **options}
        return self.post("/v1/chat/completions", body)

    def wait_until_idle(self, seconds: float = 20) -> None:
        """Wait until no request is under way."""
        end = time.monotonic() + seconds
        while self.engine.taken or self.engine.generator.is_busy:
            assert time.monotonic() < end, f"{self.engine.taken} requests are still under way"
            time.sleep(0.01)


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    pixels = torch.randint(0, 256, (height, width, 3), generator=torch.Generator().manual_seed(seed))
    return Image.fromarray(pixels.to(torch.uint8).numpy())


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    stream = BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def data_url(data: bytes, kind: str = "png") -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def image_part(image: Image.Image | str, detail: str | None = None) -> dict[str, Any]:
    url = image if isinstance(image, str) else data_url(encoded(image))
    return {"type": "image_url", "image_url": {"url": url} | ({"detail": detail} if detail else {})}


@contextmanager
def running(generator: Generator, fetch: FetchPolicy = SERVER_FETCH, **options: Any) -> Iterator[Running]:
    """Serve for a while."""
    settings = Settings(**{"model_name": MODEL, "max_batch": 4, "allowed_hosts": LOCAL, **options})
    app = create_app(generator, settings, fetch)
    listener = bind("127.0.0.1", 0)
    config = uvicorn.Config(
        app, http=PatientProtocol, ws="none", log_config=None, access_log=False, timeout_graceful_shutdown=5
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        end = time.monotonic() + 60
        while not server.started:
            assert time.monotonic() < end and thread.is_alive()
            time.sleep(0.01)
        yield Running(app, address_of(listener))
    finally:
        server.should_exit = True
        thread.join(20)


Serve = Callable[..., Any]


@pytest.fixture(scope="session")
def loaded(tiny_checkpoint: Path) -> Any:
    """The tiny model and its processor."""
    return load_pretrained(tiny_checkpoint, device="cpu")


@pytest.fixture
def serve(loaded: Any) -> Serve:
    """Start a server with settings of its own: `with serve(max_queue=0) as server`."""
    return lambda fetch=SERVER_FETCH, **options: running(
        Generator(*loaded, options.get("max_batch", 4), prefix_cache_bytes=1 << 22), fetch, **options
    )


@pytest.fixture(scope="session")
def server(loaded: Any) -> Iterator[Running]:
    """A server that many tests share."""
    with running(Generator(*loaded, 4, prefix_cache_bytes=1 << 22)) as up:
        yield up


@pytest.fixture
def alone(loaded: Any) -> Callable[..., str]:
    """The answer to one question, by the generator itself."""

    def answer(question: str, images: Any = (), **options: Any) -> str:
        request = Request.of_question(question, images, **{"max_new_tokens": 6, **options})
        return Generator(*loaded).generate([request])[0].text

    return answer


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Callable[..., list[str]]:
    """The lines that the server has logged since the last call."""
    caplog.set_level(logging.INFO, "convllava.serve")
    time.sleep(0.1)  # for lines about the requests of the test before this one
    caplog.clear()

    def lines(wanted: int = 1) -> list[str]:
        found: list[str] = []
        end = time.monotonic() + 5
        while len(found) < wanted and time.monotonic() < end:  # they are written after the answer
            time.sleep(0.01)
            found = [record.getMessage() for record in caplog.records if record.name == "convllava.serve"]
        caplog.clear()
        return found

    return lines
