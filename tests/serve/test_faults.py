"""Clients that leave, dawdle or come in crowds, and a model that fails: the others notice nothing."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import openai
import pytest
import torch
from PIL import Image
from serve.conftest import Running, Serve, data_url, encoded, image_part, noise

from convllava.serve import Settings, bind, limits

Log = Callable[..., list[str]]
Alone = Callable[..., str]


def request_head(server: Running, length: int, path: str = "/v1/chat/completions") -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {length}\r\n\r\n".encode()


def connect(server: Running) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=20)


def read_until_closed(connection: socket.socket) -> bytes:
    """Return the rest of an answer, however many pieces it comes in."""
    connection.settimeout(20)
    received = b""
    while piece := connection.recv(4000):
        received += piece
    return received


def long_question(**options: Any) -> bytes:
    messages = [{"role": "user", "content": "Tell me a long story."}]
    return json.dumps({"messages": messages, "max_tokens": 400, "stop_on_repetition": False, **options}).encode()


@pytest.fixture
def endless(loaded: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that never ends by itself."""
    monkeypatch.setattr(loaded[0].generation_config, "eos_token_id", [10**6])


@pytest.mark.usefixtures("endless")
@pytest.mark.parametrize("stream", [True, False])
def test_who_leaves_frees_the_slot(serve: Serve, stream: bool, log: Log) -> None:
    with serve(max_batch=1) as server:
        steps: list[int] = []
        generator = server.engine.generator
        step = generator.step
        generator.step = lambda: steps.append(generator.num_running) or step()
        body = long_question(stream=stream)
        with connect(server) as connection:
            connection.sendall(request_head(server, len(body)) + body)
            if stream:
                connection.recv(1000)
            while not generator.num_running:
                time.sleep(0.005)
        server.wait_until_idle()
        assert len(steps) < 400 and server.engine.taken == 0
        assert server.chat("?").status == 200
        assert "client left" in log()[0]
        assert "convllava_canceled_requests_total 1.0" in server.get("/metrics").body.decode()


@pytest.mark.usefixtures("endless")
def test_the_slot_is_free_within_one_step(serve: Serve) -> None:
    with serve(max_batch=1) as server:
        generator = server.engine.generator
        after: list[bool] = []
        canceled = threading.Event()
        cancel, step = server.engine.cancel, generator.step

        def noted(ticket: Any) -> None:
            cancel(ticket)
            canceled.set()

        def counted() -> Any:
            was = canceled.is_set()
            events = step()
            if was:
                after.append(generator.is_busy)
            return events

        server.engine.cancel, generator.step = noted, counted
        body = long_question(stream=True)
        with connect(server) as connection:
            connection.sendall(request_head(server, len(body)) + body)
            connection.recv(1000)
        server.wait_until_idle()
        assert canceled.is_set() and len(after) <= 1


def test_half_a_body_and_gone(server: Running, log: Log) -> None:
    with connect(server) as connection:
        connection.sendall(request_head(server, 1000) + b'{"messages"')
    lines = log()
    assert len(lines) == 1 and " 499 " in lines[0] and "client left" in lines[0]
    assert server.chat("?").status == 200


def test_a_byte_at_a_time(serve: Serve, alone: Alone) -> None:
    expected = alone("Why?")
    with serve(body_timeout=0.6) as server:
        with connect(server) as connection:
            connection.sendall(request_head(server, 1000))
            received = b""
            connection.settimeout(0.05)
            for _ in range(60):
                try:
                    connection.sendall(b" ")
                    received += connection.recv(4000)
                except TimeoutError:
                    pass
                except OSError:
                    break
                if received:
                    received += read_until_closed(connection)
                    break
                assert server.chat("Why?").json["choices"][0]["message"]["content"] == expected
        assert received.startswith(b"HTTP/1.1 408") and b"was not complete after 0.6 s" in received


def test_a_head_a_byte_at_a_time(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "HEAD_SECONDS", 0.3)
    with serve() as server, connect(server) as connection, connect(server) as silent:
        started = time.monotonic()
        with pytest.raises(OSError):
            while time.monotonic() < started + 10:
                connection.sendall(b"G")
                time.sleep(0.05)
        assert time.monotonic() - started < 5
        assert silent.recv(10) == b""


def test_five_hundred_idle_sockets(server: Running, alone: Alone) -> None:
    expected = alone("Why?")
    sockets = [connect(server) for _ in range(500)]
    try:
        assert server.chat("Why?").json["choices"][0]["message"]["content"] == expected
    finally:
        for one in sockets:
            one.close()


def test_a_image_that_breaks_the_model_breaks_nobody_else(
    serve: Serve, alone: Alone, loaded: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = alone("What is it?", [noise(64, 64)], max_new_tokens=30)
    encode = loaded[0].get_image_features

    def fragile(pixels: torch.Tensor) -> Any:
        if tuple(pixels.shape[-2:]) == (192, 128):
            raise RuntimeError("out of memory at secret place")
        return encode(pixels)

    monkeypatch.setattr(loaded[0], "get_image_features", fragile)
    with serve() as server, ThreadPoolExecutor(6) as pool:
        good = [pool.submit(server.chat, "What is it?", [noise(64, 64)], max_tokens=30) for _ in range(3)]
        bad = pool.submit(server.chat, "?", [noise(128, 192)])
        streamed = pool.submit(server.chat, "?", [noise(128, 192)], stream=True)
        assert [own.result().json["choices"][0]["message"]["content"] for own in good] == [expected] * 3
        assert bad.result().status == 500 and bad.result().error["code"] == "model_error"
        assert "secret" not in bad.result().error["message"]
        assert streamed.result().events[-1]["error"]["code"] == "model_error"
        assert server.get("/health").json == {"live": True, "ready": True, "running": 0, "waiting": 0}


def test_a_step_that_breaks(serve: Serve, alone: Alone, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve() as server:
        with monkeypatch.context() as broken:
            broken.setattr(
                server.engine.generator, "_append_tokens", lambda *_: (_ for _ in ()).throw(ValueError("bug"))
            )
            assert server.chat("Why?").status == 500
        assert server.chat("Why?").json["choices"][0]["message"]["content"] == alone("Why?")


def test_one_thread_renders_at_a_time(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers' compiled chat templates raise when two threads render at once."""
    from convllava.serve import chat

    inside: list[int] = []
    most: list[int] = []
    prepared = chat.prepared

    def watched(*arguments: Any, **options: Any) -> Any:
        inside.append(1)
        most.append(len(inside))
        time.sleep(0.05)
        try:
            return prepared(*arguments, **options)
        finally:
            inside.pop()

    monkeypatch.setattr(chat, "prepared", watched)
    with serve() as server, ThreadPoolExecutor(6) as pool:
        replies = pool.map(lambda number: server.chat(f"{number}?", max_tokens=1), range(6))
        assert [reply.status for reply in replies] == [200] * 6
    assert most == [1] * 6


@pytest.mark.usefixtures("endless")
def test_a_full_queue_says_when_to_retry(serve: Serve) -> None:
    with serve(max_batch=1, max_queue=1) as server, ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(server.chat, "?", max_tokens=150, stop_on_repetition=False) for _ in range(2)]
        deadline = time.monotonic() + 20
        while server.engine.taken < 2:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        refused = server.chat("?")
        assert refused.status == 429 and refused.error["type"] == "rate_limit_error"
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        assert [own.result().status for own in waiting] == [200, 200]


@pytest.mark.usefixtures("endless")
def test_images_that_wait_take_bounded_memory(serve: Serve) -> None:
    with serve(max_batch=1, max_queue_pixels=2 * 64 * 64) as server, ThreadPoolExecutor(2) as pool:
        started = pool.map(lambda number: server.chat("?", [noise(64, 64, 50 + number)], max_tokens=1), range(2))
        assert [own.status for own in started] == [200, 200]  # both decoding processes run from here on
        taken = server.engine.taken
        waiting = [
            pool.submit(server.chat, "?", [noise(64, 64, n)], max_tokens=450, stop_on_repetition=False)
            for n in range(2)
        ]
        deadline = time.monotonic() + 20
        while (
            server.engine.taken < taken + 2
            or server.engine.generator.num_running + server.engine.generator.num_waiting < 2
        ):
            assert time.monotonic() < deadline
            time.sleep(0.005)
        assert server.chat("?", [noise(64, 64, 9)]).status == 429
        assert [own.result().status for own in waiting] == [200, 200]


@pytest.mark.usefixtures("endless")
def test_time_is_limited(serve: Serve) -> None:
    with serve(request_timeout=0.4) as server:
        late = server.chat("?", max_tokens=450, stop_on_repetition=False)
        assert late.status == 504 and late.error["code"] == "request_timeout"
        streamed = server.chat("?", max_tokens=450, stop_on_repetition=False, stream=True)
        assert streamed.status == 200 and streamed.events[-1]["error"]["code"] == "request_timeout"
        server.wait_until_idle()


def test_bodies_take_bounded_memory(serve: Serve) -> None:
    with serve(max_bodies_bytes=1 << 20) as server, connect(server) as connection:
        connection.sendall(request_head(server, 2 << 20) + bytes((1 << 20) - 1000))
        time.sleep(0.3)  # until it is received
        deadline = time.monotonic() + 10
        while server.chat("?", user="x" * 2000).status != 429:
            assert time.monotonic() < deadline
        connection.close()
        while server.chat("?", user="x" * 2000).status != 200:
            assert time.monotonic() < deadline


def start(checkpoint: Path, *options: str) -> tuple[subprocess.Popen[str], str]:
    """Start the command and wait for the line with its address."""
    command = [sys.executable, "-m", "convllava.cli.main", "serve", str(checkpoint), "--port", "0", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ)
    assert process.stdout is not None
    line = process.stdout.readline()
    assert " at http://127.0.0.1:" in line, line or process.communicate()
    return process, line.split(" at ")[1].split(" ")[0]


def test_the_command_drains_on_sigterm(tiny_checkpoint: Path) -> None:
    process, url = start(tiny_checkpoint, "--device", "cpu")
    try:
        host, port = url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=60) as connection:
            body = long_question(stream=True)
            head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
            connection.sendall(f"{head}Connection: close\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
            received = connection.recv(4000)
            process.send_signal(signal.SIGTERM)
            while part := connection.recv(65536):
                received += part
        assert b"data: [DONE]" in received and b'"error"' not in received
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0, errors
    assert "stopping on SIGTERM" in errors and "Traceback" not in errors


def test_the_fast_ways_of_the_command_answer_the_same(tiny_checkpoint: Path, alone: Alone) -> None:
    """On float32 the faster encoder and the fixed buffers for keys and values differ in rounding alone."""
    options = ("--fast", "--static-kv-cache", "--preprocessing", "fast", "--max-batch", "2", "--device", "cpu")
    process, url = start(tiny_checkpoint, *options, "--name", "quick")
    try:
        client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
        for side in (64, 128):
            image = noise(side, 64, side)
            messages: Any = [{"role": "user", "content": [image_part(image), {"type": "text", "text": "What?"}]}]
            completion = client.chat.completions.create(model="quick", messages=messages, max_tokens=6)
            assert completion.choices[0].message.content == alone("What?", [image])
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--api-key-env", "NO_SUCH_VARIABLE"], "NO_SUCH_VARIABLE is not set"),
        (["--max-batch", "0"], "max_batch must be at least 1"),
        (["--request-timeout", "0"], "request_timeout must be more than 0"),
        (["--host", "256.0.0.1"], "cannot listen at 256.0.0.1"),
    ],
)
def test_wrong_options_end_in_one_line(
    options: list[str], message: str, capsys: pytest.CaptureFixture[str], tiny_checkpoint: Path
) -> None:
    from convllava.cli.main import main

    assert main(["serve", str(tiny_checkpoint), *options]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error and error.count("\n") == 1


def test_a_port_that_is_taken() -> None:
    with bind("127.0.0.1", 0) as first:
        first.listen()
        with pytest.raises(ValueError, match="give another --host or --port"):
            bind("127.0.0.1", first.getsockname()[1])


def test_settings_are_checked() -> None:
    with pytest.raises(ValueError, match="API key is empty"):
        Settings(model_name="x", api_key=" ")
    with pytest.raises(ValueError, match="must not be negative"):
        Settings(model_name="x", max_queue=-1)


def test_memory_stays_flat_in_a_short_storm(server: Running) -> None:
    """A little of the storm that benchmarks/serve_load.py makes, and no statuses but 200."""
    images = [image_part(noise(64 * (1 + n % 3), 64 * (1 + n % 2), n)) for n in range(12)]

    def ask(number: int) -> int:
        content = [images[number % 12], {"type": "text", "text": f"{number}?"}]
        return server.chat(content, max_tokens=2 + number % 7, stream=number % 2 == 0).status

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    if not Path("/proc/self/statm").exists():
        pytest.skip("the resident size is read from /proc")
    with ThreadPoolExecutor(16) as pool:
        assert set(pool.map(ask, range(40))) == {200}
        before = resident()
        assert set(pool.map(ask, range(80))) == {200}
    assert resident() - before < 32 << 20


@pytest.mark.slow
def test_memory_of_an_idle_server_after_large_images(tiny_checkpoint: Path) -> None:
    """Of 3.0 GB that four such images once left behind, at most a tenth is left."""
    process, url = start(tiny_checkpoint, "--device", "cpu")
    try:
        if not Path(f"/proc/{process.pid}/statm").exists():
            pytest.skip("the resident size is read from /proc")
        client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
        content: Any = [image_part(noise(64, 64)), {"type": "text", "text": "?"}]
        ask: Any = partial(client.chat.completions.create, model=tiny_checkpoint.name, max_tokens=2)
        ask(messages=[{"role": "user", "content": content}])
        idle = resident_of_all(process.pid)
        large = Image.linear_gradient("L").resize((6000, 6000)).convert("RGB")
        content[0] = image_part(data_url(encoded(large, "JPEG"), "jpeg"))
        body: Any = {"messages": [{"role": "user", "content": content}], "extra_body": {"max_visual_tokens": 64}}
        with ThreadPoolExecutor(4) as pool:
            assert all(pool.map(lambda _: ask(**body).choices, range(4)))
        deadline = time.monotonic() + 15
        while (left := resident_of_all(process.pid) - idle) > 300 << 20:
            assert time.monotonic() < deadline, f"{left >> 20} MiB are left"
            time.sleep(0.5)
    finally:
        process.kill()
        process.communicate()


def resident_of_all(pid: int) -> int:
    """Return the resident size of a process and its children in bytes."""
    threads = Path(f"/proc/{pid}/task").glob("*/children")  # a process is the child of a thread
    children = [child for thread in threads for child in thread.read_text().split()]
    pages = [int(Path(f"/proc/{own}/statm").read_text().split()[1]) for own in (str(pid), *children)]
    return sum(pages) * os.sysconf("SC_PAGE_SIZE")
