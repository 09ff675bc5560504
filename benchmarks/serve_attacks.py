"""Attacks on `convllava serve` from this machine, while honest clients stream: what the others notice.

    python benchmarks/serve_attacks.py                    # all attacks, 12 seconds each
    python benchmarks/serve_attacks.py --only scan pixels --seconds 30

Eight clients stream answers without images while each attack runs; the same eight were measured undisturbed just
before, so that the ratio holds on a busy machine too. Printed are the 99th percentile of the gap between two pieces of
an answer and its ratio to the undisturbed one, the slowest answer of `/health/live`, the memory of the server and its
workers above idle, and at the end the seconds from SIGTERM to the end of the process with a drain of 5 s, while the
last attack is still running. Nothing but the started server is contacted.
"""

import argparse
import base64
import io
import json
import os
import signal
import statistics
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import numpy as np
from PIL import Image

STREAMS = 8
LIMITS = {"ratio": 3.0, "health_ms": 100.0, "memory_mib": 1536.0, "sigterm_s": 10.0}


def chat(content: object, **options: object) -> bytes:
    """Return the body of a request with one message."""
    return json.dumps({"messages": [{"role": "user", "content": content}], **options}).encode()


def image(data: bytes, kind: str, count: int = 1) -> bytes:
    """Return the body of a request with the same image several times."""
    url = f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
    parts: list[object] = [{"type": "image_url", "image_url": {"url": url}} for _ in range(count)]
    return chat([*parts, {"type": "text", "text": "?"}], max_tokens=8)


def encoded(side: int, kind: str, mode: str = "RGB", **options: object) -> bytes:
    """Return a blank image, which is small as a file."""
    stream = io.BytesIO()
    Image.new(mode, (side, side)).save(stream, kind, **options)  # type: ignore[arg-type]
    return stream.getvalue()


def scan_bomb(scans: int, side: int = 2048) -> bytes:
    """Return a progressive JPEG with many empty scans."""
    stream = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (side, side, 3), dtype=np.uint8)
    Image.fromarray(noise).save(stream, "JPEG", progressive=True, quality=5)
    data = stream.getvalue()
    last = data.rindex(b"\xff\xda")
    head = data[last : last + 2 + int.from_bytes(data[last + 2 : last + 4], "big")]
    return data[:last] + (head + b"\0" * 4) * scans + data[last:]


def many_chunks(number: int) -> bytes:
    """Return a PNG with many empty chunks before its pixels."""
    data = encoded(64, "PNG")
    empty = b"\0\0\0\0teSt" + zlib.crc32(b"teSt").to_bytes(4, "big")
    return data[:33] + empty * number + data[33:]


TEXT = "Tell me a long story."

ATTACKS: dict[str, Callable[[], bytes]] = {
    "A1 temperature 1e-320": lambda: chat(TEXT, temperature=1e-320, max_tokens=20),
    "A1 top_p 1e-320": lambda: chat(TEXT, temperature=1, top_p=1e-320, max_tokens=20),
    "A2 long stop texts": lambda: chat(TEXT, stop=["a" * 1_000_000 + str(n) for n in range(4)], max_tokens=200),
    "A2 longest stop texts allowed": lambda: chat(TEXT, stop=["a" * 1023 + str(n) for n in range(4)], max_tokens=200),
    "A3 wrong messages": lambda: b'{"messages":[' + b"1," * 8_000_000 + b"1]}",
    "A3 unknown keys": lambda: b"{" + b",".join(b'"k%d":1' % n for n in range(1_000_000)) + b"}",
    "A3 one long key": lambda: b'{"' + b"x" * 30_000_000 + b'":1}',
    "A3 quotes": lambda: b'{"messages":"' + b'\\"' * 12_000_000 + b'"}',
    "A3 data URL parameters": lambda: chat(
        [{"type": "image_url", "image_url": {"url": "data:image/png" + ";a=b" * 7_000_000 + ";base64,AAAA"}}]
    ),
    "A3 data URL blanks": lambda: chat(
        [{"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A " * 14_000_000}}]
    ),
    "A3 long text": lambda: chat("word " * 6_000_000),
    "A3 long word": lambda: chat("x" * 60_000),
    "A4 pixels of PNG": lambda: image(encoded(8192, "PNG"), "png", 16),
    "A4 pixels with alpha": lambda: image(encoded(8000, "PNG", "RGBA"), "png", 4),
    "A4 palette with transparency": lambda: image(encoded(8000, "PNG", "P", transparency=0), "png", 4),
    "A4 pixels of WebP": lambda: image(encoded(8000, "WEBP"), "webp", 4),
    "A5 scan bomb": lambda: image(scan_bomb(20_000), "jpeg"),
    "A5 scans up to the limit": lambda: image(scan_bomb(80, 6000), "jpeg", 3),
    "A5 PNG chunks": lambda: image(many_chunks(1_500_000), "png"),
    "A5 rotated JPEG": lambda: image(encoded(8000, "JPEG", exif=_turned()), "jpeg", 4),
}


def _turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif.tobytes()


@dataclass
class Server:
    """A server process and its address."""

    process: "subprocess.Popen[str]"
    port: int

    def send(self, body: bytes, path: str = "/v1/chat/completions", seconds: float = 120) -> HTTPConnection:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=seconds)
        connection.request("POST", path, body, {"Content-Type": "application/json"})
        return connection

    def memory_mib(self) -> float:
        """Return the resident memory of the server and its workers."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        pids = [str(self.process.pid), *(children.read_text().split() if children.exists() else [])]
        pages = 0
        for pid in pids:
            try:
                pages += int(Path(f"/proc/{pid}/statm").read_text().split()[1])
            except OSError:
                continue
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


@dataclass
class Watch:
    """What the honest clients and the watcher of the process saw."""

    gaps: list[float] = field(default_factory=list)
    health: list[float] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)


def start(model: str) -> Server:
    """Start a server that drains for 5 s."""
    options = ["--port", "0", "--drain-timeout", "5", "--name", "attacked", "--max-batch", "16"]
    command = [sys.executable, "-m", "convllava.cli.main", "serve", model, *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    line = process.stdout.readline()
    return Server(process, int(line.split(" at http://127.0.0.1:")[1].split(" ")[0]))


def stream(server: Server, end: float, watch: Watch) -> None:
    """Ask for long answers until the time is over; note the gaps between pieces."""
    body = chat("Tell me a very long story about a house.", max_tokens=300, temperature=1, seed=1, stream=True)
    while time.perf_counter() < end:
        try:
            connection = server.send(body)
            response = connection.getresponse()
            before = None
            for line in response:
                if line.startswith(b"data: {") and b'"content"' in line:
                    now = time.perf_counter()
                    if before is not None:
                        watch.gaps.append(now - before)
                    before = now
                if b'"error"' in line:
                    watch.failed.append(line.decode()[:200])
                if time.perf_counter() > end:
                    break
            connection.close()
        except (OSError, HTTPException) as error:
            watch.failed.append(repr(error))


def look(server: Server, end: float, watch: Watch) -> None:
    """Ask for the health and read the memory until the time is over."""
    while time.perf_counter() < end:
        started = time.perf_counter()
        try:
            connection = HTTPConnection("127.0.0.1", server.port, timeout=60)
            connection.request("GET", "/health/live")
            connection.getresponse().read()
            connection.close()
            watch.health.append(time.perf_counter() - started)
        except (OSError, HTTPException) as error:
            watch.failed.append(f"health: {error!r}")
        watch.memory.append(server.memory_mib())
        time.sleep(0.05)


def attack(server: Server, body: bytes, end: float, patience: float) -> None:
    """Send a request again and again; leave after some seconds of waiting, as an attacker would."""
    while time.perf_counter() < end:
        try:
            connection = server.send(body, seconds=patience)
            connection.getresponse().read()
            connection.close()
        except (OSError, HTTPException):
            pass
        time.sleep(0.1)


def observed(server: Server, seconds: float, body: bytes | None, attackers: int = 2) -> Watch:
    """Return what honest clients saw for some seconds, next to attackers or undisturbed."""
    watch, end = Watch(), time.perf_counter() + seconds
    threads = [threading.Thread(target=stream, args=(server, end, watch)) for _ in range(STREAMS)]
    threads.append(threading.Thread(target=look, args=(server, end, watch)))
    if body is not None:
        threads += [threading.Thread(target=attack, args=(server, body, end, 5.0)) for _ in range(attackers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return watch


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))] if values else float("nan")


def seconds_to_end(server: Server, body: bytes) -> float:
    """Return the seconds from SIGTERM to the end of the process, while it is attacked."""
    watch, end = Watch(), time.perf_counter() + 8
    for target, arguments in ((stream, (server, end, watch)), (attack, (server, body, end, 5.0))):
        threading.Thread(target=target, args=arguments, daemon=True).start()
    time.sleep(2)
    started = time.perf_counter()
    server.process.send_signal(signal.SIGTERM)
    try:
        server.process.wait(60)
    except subprocess.TimeoutExpired:
        server.process.kill()
    return time.perf_counter() - started


def measure(server: Server, names: list[str], seconds: float) -> dict[str, dict[str, float]]:
    """Run the attacks one after the other and return the figures of each."""
    figures = {}
    observed(server, 3, None)  # warm
    idle = statistics.median(server.memory_mib() for _ in range(5))
    for name in names:
        body = ATTACKS[name]()
        calm = observed(server, seconds / 2, None)
        storm = observed(server, seconds, body)
        figures[name] = {
            "gap_ms": 1000 * percentile(storm.gaps, 0.99),
            "ratio": percentile(storm.gaps, 0.99) / percentile(calm.gaps, 0.99),
            "health_ms": 1000 * percentile(storm.health, 0.99),
            "calm_health_ms": 1000 * percentile(calm.health, 0.99),
            "memory_mib": max(storm.memory, default=0.0) - idle,
            "failed": len(storm.failed),
        }
        print(f"{name:32}" + "  ".join(f"{key} {value:.1f}" for key, value in figures[name].items()), flush=True)
    return figures


def kept(figures: dict[str, float]) -> bool:
    """Return whether all bounds hold."""
    return figures["failed"] == 0 and all(figures[name] <= most for name, most in LIMITS.items() if name in figures)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--seconds", type=float, default=12.0, help="Seconds of each attack.")
    parser.add_argument("--only", nargs="+", default=[""], help="Attacks whose name has one of these words.")
    parser.add_argument("--json", action="store_true", help="Print the figures as JSON in the last line.")
    options = parser.parse_args()
    names = [name for name in ATTACKS if any(word in name for word in options.only)]
    server = start(options.model)
    try:
        figures = measure(server, names, options.seconds)
        ended = seconds_to_end(server, ATTACKS[names[-1]]())
    finally:
        server.process.kill()
    print(f"SIGTERM with a drain of 5 s: {ended:.1f} s, status {server.process.returncode}")
    broken = [name for name, own in figures.items() if not kept(own)]
    print("all bounds hold" if not broken else f"beyond a bound: {', '.join(broken)}")
    if options.json:
        print(json.dumps(figures | {"sigterm_s": ended}))
    return int(bool(broken) or ended > LIMITS["sigterm_s"])


if __name__ == "__main__":
    sys.exit(main())
