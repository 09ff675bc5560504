"""What hostile clients send: each gets a 4xx in OpenAI's shape and one line in the log."""

import base64
import http.client
import ipaddress
import json
import re
import socket
import statistics
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, PngImagePlugin
from serve.conftest import Reply, Running, Serve, data_url, encoded, image_part, noise

from convllava.fetch import FetchPolicy, fetch, is_public
from convllava.images import ImageError
from convllava.serve import app, decoding
from convllava.serve.errors import ApiError
from convllava.serve.limits import key_check

Log = Callable[..., list[str]]


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, *chunks: bytes) -> bytes:
    """A PNG of the given size with nothing in it."""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + b"".join(chunks) + chunk(b"IEND", b"")


def many_frames() -> bytes:
    frames = [noise(8, 8, number) for number in range(100)]
    stream = BytesIO()
    frames[0].save(stream, "GIF", save_all=True, append_images=frames[1:])
    return stream.getvalue()


def large_profile() -> bytes:
    return encoded(noise(64, 64), "JPEG", icc_profile=bytes(5 << 20))


def profile_bomb() -> bytes:
    data = b"x\0\0" + zlib.compress(bytes(64 << 20), 9)
    return png(64, 64, chunk(b"iCCP", data), chunk(b"IDAT", zlib.compress(bytes(64 * 193))))


def text_bomb() -> bytes:
    info = PngImagePlugin.PngInfo()
    info.add(b"zTXt", b"a\0\0" + zlib.compress(bytes(64 << 20), 9))
    return encoded(noise(64, 64), "PNG", pnginfo=info)


IMAGES = {
    "pixels": lambda: png(60000, 60000, chunk(b"IDAT", zlib.compress(bytes(1000)))),
    "more pixels than Pillow allows": lambda: png(20000, 20000),
    "frames": many_frames,
    "large profile": large_profile,
    "profile bomb": profile_bomb,
    "text bomb": text_bomb,
    "cut off": lambda: encoded(noise(640, 640))[:2000],
    "svg": lambda: b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
    "pdf": lambda: b"%PDF-1.7\n1 0 obj\n<<>>\nendobj\n",
    "html": lambda: b"<!doctype html><script>alert(1)</script>",
    "postscript": lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/x) run\n",
    "tiff": lambda: encoded(noise(64, 64), "TIFF"),
    "nothing": lambda: b"",
    "one byte": lambda: b"\x89",
}


@pytest.mark.parametrize("name", IMAGES)
def test_images_that_are_none(server: Running, log: Log, name: str) -> None:
    reply = server.chat("?", [data_url(IMAGES[name]())])
    assert reply.status == 400, reply.body
    assert reply.error["param"] == "messages[0].content[0].image_url.url"
    (line,) = log()
    assert line.startswith("POST /v1/chat/completions 400 ") and reply.error["message"] in line


URLS = [
    "file:///etc/passwd",
    "/etc/passwd",
    "http://127.0.0.1/x.png",
    "http://169.254.169.254/latest/meta-data/",
    "https://example.org/x.png",
    "ftp://example.org/x.png",
    "data:text/html;base64,PGI+",
    "data:image/png,AAAA",
    "data:image/png;base64,****",
    "data:image/png;base64,AAA",
    "data:",
    "",
]


@pytest.mark.parametrize("url", URLS)
def test_urls_where_none_are_fetched(server: Running, log: Log, url: str) -> None:
    reply = server.chat("?", [url])
    assert reply.status == 400 and reply.error["param"].endswith("image_url.url")
    assert len(log()) == 1


class Site(BaseHTTPRequestHandler):
    """A site on a loopback address that the test calls public."""

    image = encoded(noise(64, 64))
    targets = {
        "/loop": "/loop",
        "/to-loopback": "http://127.0.0.1:{port}/x.png",
        "/to-metadata": "http://169.254.169.254/latest/meta-data/",
        "/to-file": "file:///etc/passwd",
        "/to-image": "/x.png",
        "/to-nowhere": "",
    }

    def do_GET(self) -> None:
        target = self.targets.get(self.path)
        if target is not None:
            self.send_response(302)
            self.send_header("Location", target.format(port=self.server.server_port))
            self.end_headers()
        elif self.path == "/x.png":
            self.send_response(200)
            self.end_headers()
            self.wfile.write(self.image)
        elif self.path == "/much":
            self.send_response(200)
            self.end_headers()
            self.wfile.write(bytes(1 << 20))
        else:
            self.send_error(404)

    def log_message(self, *arguments: Any) -> None:
        pass


PUBLIC = "127.0.0.2"


@pytest.fixture(scope="module")
def site() -> Iterator[int]:
    listener = HTTPServer(("0.0.0.0", 0), Site)
    threading.Thread(target=listener.serve_forever, daemon=True).start()
    yield listener.server_port
    listener.shutdown()
    listener.server_close()


def policy(**names: str) -> FetchPolicy:
    """127.0.0.2 counts as public, and names resolve as they are told."""

    def resolve(host: str, port: int) -> list[str]:
        known = {name.replace("_", "."): address for name, address in names.items()}
        if host in known:
            return known[host].split(",")
        ipaddress.ip_address(host)
        return [host]

    return FetchPolicy(
        resolve=resolve,
        is_allowed=lambda address: str(address) == PUBLIC or is_public(address),
        public_only=True,
        seconds=5,
        max_bytes=1 << 19,
    )


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("http://127.0.0.1:{port}/x.png", "public address"),
        ("http://[::1]:{port}/x.png", "public address"),
        ("http://[::ffff:127.0.0.1]:{port}/x.png", "public address"),
        ("http://0.0.0.0:{port}/x.png", "public address"),
        ("http://169.254.169.254/latest/meta-data/", "public address"),
        ("http://inside.test:{port}/x.png", "public address"),
        ("http://both.test:{port}/x.png", "public address"),
        ("http://2130706433:{port}/x.png", "cannot be fetched"),
        ("http://open.test:{port}/to-loopback", "public address"),
        ("http://open.test:{port}/to-metadata", "public address"),
        ("http://open.test:{port}/to-file", "must be an http"),
        ("http://open.test:{port}/to-nowhere", "redirected more than"),
        ("http://open.test:{port}/loop", "redirected more than"),
        ("http://open.test:{port}/much", "more than the 524288 bytes"),
        ("http://open.test:{port}/missing", "status 404"),
        ("http://open.test:{port}/x.png\r\nX-Evil: 1", "cannot have"),
        ("http://open.test:{port}/x png", "cannot have"),
        ("http://me:secret@open.test:{port}/x.png", "without a password"),
        ("http://open.test:99999/x.png", "not a URL"),
        ("file:///etc/passwd", "must be an http"),
        ("gopher://open.test/", "must be an http"),
    ],
)
def test_remote_images_come_from_public_addresses(site: int, path: str, reason: str) -> None:
    names = policy(open_test=PUBLIC, inside_test="10.0.0.7", both_test=f"{PUBLIC},192.168.1.1")
    with pytest.raises(ImageError, match=re.escape(reason)):
        fetch(path.format(port=site), names)


def test_a_remote_image(serve: Serve, site: int, log: Log) -> None:
    with serve(policy(open_test=PUBLIC), remote_images=True) as server:
        for path in ("x.png", "to-image"):
            assert server.chat("?", [f"http://open.test:{site}/{path}"]).status == 200
        log(2)
        refused = server.chat("?", [f"http://open.test:{site}/to-loopback"])
        assert refused.status == 400 and len(log()) == 1


@pytest.mark.parametrize(
    "address",
    (
        "127.0.0.1 10.1.2.3 192.168.0.1 172.16.5.5 169.254.169.254 100.64.0.1 0.0.0.0 224.0.0.1 255.255.255.255 ::1 "
        "fe80::1 fc00::1 ::ffff:10.0.0.1 64:ff9b::7f00:1 2002:7f00:1:: ::"
    ).split(),
)
def test_addresses_that_are_not_public(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", ["93.184.216.34", "8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8"])
def test_addresses_that_are_public(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


def test_a_hundred_megabytes(server: Running, log: Log) -> None:
    image = base64.b64encode(bytes(75 << 20)).decode()
    reply = server.chat("?", [f"data:image/png;base64,{image}"])
    assert reply.status == 413 and reply.error["code"] == "body_too_large"
    assert len(log()) == 1


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 100_000,
        b'{"messages":' + b"[" * 50_000 + b"]" * 50_000 + b"}",
        b'{"a":' * 20_000 + b"1" + b"}" * 20_000,
        b'{"messages": [{"role": "user", "content": "\xff\xfe"}]}',
        b'{"messages": [{"role": "user", "content": "\\ud800"}]}',
        b'{"max_tokens": 1e999999, "messages": [{"role": "user", "content": "?"}]}',
        b'{"max_tokens": ' + b"9" * 10_000 + b', "messages": [{"role": "user", "content": "?"}]}',
        b"",
        b"null",
        b"not json",
    ],
)
def test_bodies_that_are_none(server: Running, log: Log, body: bytes) -> None:
    reply = server.post("/v1/chat/completions", body)
    assert reply.status == 400, reply.body
    assert reply.error["message"]
    (line,) = log()
    assert len(line) < 1000


def test_a_million_characters(server: Running, log: Log) -> None:
    reply = server.chat("x" * 1_000_000)
    assert reply.status == 400 and reply.error["code"] == "context_length_exceeded"
    assert len(log()) == 1


def test_many_images(server: Running) -> None:
    reply = server.chat("?", [noise(8, 8)] * 17)
    assert reply.status == 400 and "17 images, at most 16" in reply.error["message"]


def test_other_kinds_of_content_need_a_preflight(server: Running) -> None:
    body = {"messages": [{"role": "user", "content": "?"}]}
    for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
        assert server.post("/v1/chat/completions", body, content_type=kind).status == 415
    assert "access-control-allow-origin" not in server.chat("?", Origin="http://evil.test").headers


def test_other_names_than_its_own(server: Running, log: Log) -> None:
    for host in ("evil.test", f"evil.test:{server.port}", "127.0.0.1.evil.test"):
        reply = server.request("GET", "/v1/models", Host=host)
        assert reply.status == 403 and "--allowed-host" in reply.error["message"]
    assert len(log(3)) == 3
    assert server.request("GET", "/v1/models", Host=f"localhost:{server.port}").status == 200


@pytest.mark.parametrize("key", [None, "", "wrong", "right-key-and-more", "right", "schlüssel"])
def test_wrong_keys(serve: Serve, log: Log, key: str | None) -> None:
    with serve(api_key="right-key") as server:
        given = {} if key is None else {"Authorization": f"Bearer {key}".encode().decode("latin-1")}
        for reply in (
            server.get("/v1/models", **given),
            server.post("/v1/chat/completions", b"x" * 3_000_000, **given),
        ):
            assert reply.status == 401 and reply.error["code"] == "invalid_api_key"
            assert reply.headers["www-authenticate"] == "Bearer"
        assert len(log(2)) == 2
        assert server.get("/health").status == 200  # for whoever watches the process
        assert server.get("/v1/models", Authorization="Bearer right-key").status == 200
        assert server.get("/v1/models", Authorization="Basic right-key").status == 401


def test_keys_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    import hmac

    compared: list[tuple[int, int]] = []
    compare = hmac.compare_digest
    monkeypatch.setattr(hmac, "compare_digest", lambda a, b: compared.append((len(a), len(b))) or compare(a, b))
    check = key_check("right-key")
    for token in ("x", "right-key", "right-key" * 1000):
        with suppress(ApiError):
            check({"authorization": f"Bearer {token}"})
    assert compared == [(32, 32)] * 3


def raw(server: Running, data: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        with suppress(OSError):  # the server may have heard enough
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
        received = b""
        with suppress(ConnectionResetError):  # closed with our bytes unread
            while part := connection.recv(65536):
                received += part
        return received


HEAD = b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"


@pytest.mark.parametrize(
    "data",
    [
        b"GET /\r\nhealth HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        HEAD + b"X-Request-Id: a\0b\r\n\r\n",
        HEAD + b"X Y: 1\r\n\r\n",
        HEAD + b"X-Large: " + b"x" * 1_000_000,
        b"\x16\x03\x01\x02\0\x01\0",
        HEAD.replace(b"GET", b"POST") + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
        HEAD.replace(b"GET", b"POST") + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /x",
    ],
)
def test_heads_that_are_none(server: Running, data: bytes) -> None:
    answer = raw(server, data)
    refused = answer.startswith((b"HTTP/1.1 400", b"HTTP/1.1 405")) and answer.count(b"HTTP/1.1") == 1
    assert refused or (not answer and len(data) > 65536)  # a reset may overtake the answer to a head that goes on
    assert server.get("/health").status == 200


def test_nobody_writes_into_our_headers_or_log(server: Running, log: Log) -> None:
    good = server.get("/health", X_Request_Id="trace-7")
    assert good.headers["x-request-id"] == "trace-7"
    bad = server.get("/health", X_Request_Id="a; b=c" + "x" * 100)
    assert re.fullmatch("[0-9a-f]{32}", bad.headers["x-request-id"])
    log(2)
    assert server.get("/x%0d%0aSet-Cookie:%20a=b%1b[31m").status == 404
    (line,) = log()
    assert line.isprintable() and "set-cookie" not in bad.headers


def test_errors_that_should_not_happen_tell_the_client_nothing(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve() as server:
        monkeypatch.setattr(app, "image_costs", lambda *_: (_ for _ in ()).throw(OSError("secret place")))
        reply: Reply = server.post("/v1/estimate", {"sizes": []})
        assert reply.status == 500 and "secret" not in reply.error["message"]
        assert server.chat("?").status == 200


def test_pages_may_load_nothing_from_elsewhere(server: Running, repository: Path) -> None:
    headers = server.get("/").headers
    assert "default-src 'self'" in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    static = repository / "src" / "convllava" / "serve" / "static"
    for path in [*static.glob("*.html"), *static.glob("*.js"), *static.glob("*.css")]:
        assert not re.search(r"(?:src|href|url|import|fetch)\W{1,3}(?:https?:)?//", path.read_text(encoding="utf-8"))


def test_the_schema_speaks_of_every_status(server: Running) -> None:
    schema = server.get("/openapi.json").json
    chat = schema["paths"]["/v1/chat/completions"]["post"]
    assert {"200", "400", "401", "404", "408", "413", "415", "429", "500", "503", "504"} <= chat["responses"].keys()
    names = set(re.findall(r"#/components/schemas/(\w+)", json.dumps(schema)))
    assert names <= schema["components"]["schemas"].keys()
    assert image_part(noise(8, 8))["type"] in json.dumps(schema)


@pytest.mark.parametrize("options", [{"temperature": 1e-320}, {"temperature": 1, "top_p": 1e-320}])
def test_tiny_numbers_end_no_answer(server: Running, options: dict[str, float]) -> None:
    greedy = server.chat("Why?").json["choices"][0]["message"]["content"]
    assert server.chat("Why?", **options).json["choices"][0]["message"]["content"] == greedy


MANY = 1_000_000
BODIES = {
    "wrong messages": b'{"messages":[' + b"1," * MANY + b"1]}",
    "empty messages": b'{"messages":[' + b"{}," * MANY + b"{}]}",
    "deep": b'{"messages":' + b"[" * MANY,
    "unknown keys": b"{" + b",".join(b'"k%d":1' % number for number in range(MANY)) + b"}",
    "one long key": b'{"' + b"x" * MANY + b'":1,"messages":[]}',
    "quotes": b'{"messages":"' + b'\\"' * MANY + b'"}',
    "escapes": b'{"messages":"' + b"\\n" * (MANY + 1) + b'"}',
    "metadata": json.dumps({"messages": [], "metadata": {str(number): 1 for number in range(3000)}}).encode(),
    "long name": json.dumps({"messages": [], "model": "x y " * MANY}).encode(),
    "parameters of a data URL": json.dumps(
        {"messages": [{"role": "user", "content": [image_part("data:image/png" + ";a=b" * MANY + ";base64,AA")]}]}
    ).encode(),
    "blanks in a data URL": json.dumps(
        {"messages": [{"role": "user", "content": [image_part("data:image/png;base64," + "A " * MANY)]}]}
    ).encode(),
}


@pytest.mark.parametrize("name", BODIES)
def test_bodies_that_cost_much_to_parse(server: Running, name: str) -> None:
    started = time.process_time()
    reply = server.post("/v1/chat/completions", BODIES[name])
    assert reply.status == 400 and len(reply.body) < 1000
    assert time.process_time() - started < 3  # without the bounds 10 to 100 s


def test_errors_in_http_itself_have_the_shape_of_all(server: Running) -> None:
    answer = raw(server, b"not http\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 400") and json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"]


def test_a_body_that_never_comes_delays_no_refusal(serve: Serve) -> None:
    with serve(api_key="right-key") as server, socket.create_connection(("127.0.0.1", server.port)) as connection:
        started = time.monotonic()
        connection.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100000000\r\n\r\n"
        )
        connection.settimeout(20)
        assert connection.recv(1000).startswith(b"HTTP/1.1 401")
        assert time.monotonic() - started < 8


def test_site_local_addresses_are_not_public() -> None:
    assert not is_public(ipaddress.ip_address("fec0::1"))


def scan_bomb(scans: int, side: int = 512) -> bytes:
    """A progressive JPEG whose last scan is repeated; each costs a pass over the whole image."""
    data = encoded(noise(side, side), "JPEG", progressive=True, quality=5)
    last = data.rindex(b"\xff\xda")
    # a scan of one coefficient with end-of-band runs only: empty, and a few bytes long
    head = data[last : last + 2 + int.from_bytes(data[last + 2 : last + 4], "big")]
    return data[:last] + (head + b"\0" * 4) * scans + data[last:]


def test_a_jpeg_of_many_scans_is_refused(server: Running) -> None:
    reply = server.chat("?", [data_url(scan_bomb(101), "jpeg")])
    assert reply.status == 400 and "scans, at most 100 are allowed" in reply.error["message"]
    assert server.chat("?", [data_url(encoded(noise(64, 64), "JPEG", progressive=True), "jpeg")]).status == 200


def test_the_images_of_a_request_share_a_limit_of_pixels(serve: Serve) -> None:
    with serve(max_request_pixels=3 * 64 * 64) as server:
        assert server.chat("?", [noise(64, 64)] * 3).status == 200
        refused = server.chat("?", [noise(64, 64)] * 4)
        assert refused.status == 400 and "16384 pixels together, at most 12288" in refused.error["message"]


@pytest.fixture
def slow_worker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Workers that never reply to images 70 pixels wide."""
    script = tmp_path / "slow_worker.py"
    script.write_text(
        "import time\n"
        "from convllava import image_worker\n"
        "shown = image_worker.shown\n"
        "def slow(data, most, form):\n"
        "    if image_worker.measure(data, most)[1] == 70:\n"
        "        time.sleep(600)\n"
        "    return shown(data, most, form)\n"
        "image_worker.shown = slow\n"
        "image_worker.main()\n"
    )
    monkeypatch.setattr(decoding, "WORKER_COMMAND", [sys.executable, str(script)])


@pytest.mark.usefixtures("slow_worker")
def test_images_that_take_too_long_are_refused(serve: Serve) -> None:
    with serve(decode_timeout=0.5) as server:
        refused = server.chat("?", [noise(70, 64)])
        assert refused.status == 400 and refused.error["code"] == "image_too_slow"
        server.chat("?", [noise(64, 64)])  # the worker starts again, which may take its time
        server.wait_until_idle()


@pytest.mark.usefixtures("slow_worker")
def test_the_work_of_a_client_that_left_ends(serve: Serve) -> None:
    with serve() as server:
        body = json.dumps({"messages": [{"role": "user", "content": [image_part(noise(70, 64))]}]}).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n"
        connections = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(3)]
        for connection in connections:
            connection.sendall(f"{head}Content-Type: application/json\r\n\r\n".encode() + body)
        while server.engine.taken < 3:
            time.sleep(0.01)
        assert server.chat("?").status == 200  # text needs no worker
        for connection in connections:
            connection.close()
        server.wait_until_idle()
        assert server.chat("?", [noise(64, 64)]).status == 200


@pytest.mark.slow
@pytest.mark.parametrize("word", ["A1", "A2", "A3", "A4", "A5"])
def test_honest_streams_next_to_an_attack(repository: Path, tiny_checkpoint: Path, word: str) -> None:
    """A short form of the script, with wide bounds: other tests may keep the cores busy."""
    command = [sys.executable, str(repository / "benchmarks" / "serve_attacks.py"), "--only", word]
    options = ["--seconds", "3", "--model", str(tiny_checkpoint), "--json"]
    done = subprocess.run([*command, *options], capture_output=True, text=True, timeout=300)
    figures = json.loads(done.stdout.splitlines()[-1])
    assert figures.pop("sigterm_s") <= 15, done.stdout
    for name, own in figures.items():
        assert own["failed"] == 0 and own["memory_mib"] <= 1536, (name, own)
        assert (own["ratio"] <= 10 or own["gap_ms"] <= 500) and own["health_ms"] <= 2000, (name, own)


def asked_from(server: Running, address: str, image: Image.Image) -> tuple[float, dict[str, Any]]:
    """Return the seconds of an answer to a client with this address, and the answer."""
    body = {"messages": [{"role": "user", "content": [image_part(image)]}], "max_tokens": 1}
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60, source_address=(address, 0))
    started = time.perf_counter()
    connection.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
    answer = json.loads(connection.getresponse().read())
    seconds = time.perf_counter() - started
    connection.close()
    return seconds, answer


@pytest.mark.slow
def test_another_clients_image_shows_neither_in_counters_nor_in_time(server: Running) -> None:
    """Requests with an image that another client has sent, with a new one and with one's own, in turn."""
    seconds: dict[str, list[float]] = {"theirs": [], "new": [], "own": []}
    encoding: dict[str, list[float]] = {"theirs": [], "new": [], "own": []}
    for number in range(9):
        theirs, new, own = (noise(768, 768, 1000 + 3 * number + which) for which in range(3))
        asked_from(server, "127.0.0.2", theirs)
        asked_from(server, "127.0.0.3", own)
        for name, image in (("theirs", theirs), ("new", new), ("own", own)):
            took, answer = asked_from(server, "127.0.0.3", image)
            seconds[name].append(took)
            encoding[name].append(answer["convllava"]["timings"]["encode_seconds"])
            if name != "own":
                assert answer["usage"]["prompt_tokens_details"]["cached_tokens"] == 0
    middle = {name: statistics.median(values) for name, values in seconds.items()}
    encoded_in = {name: statistics.median(values) for name, values in encoding.items()}
    assert encoded_in["own"] < 0.5 * encoded_in["new"], encoded_in  # what is measured can be seen at all
    assert encoded_in["theirs"] > 0.5 * encoded_in["new"], encoded_in
    assert 0.5 < middle["theirs"] / middle["new"] < 2, middle
