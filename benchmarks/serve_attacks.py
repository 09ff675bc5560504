"""Attacks on `convllava serve` from this machine, while honest clients stream: what the others notice.

    python benchmarks/serve_attacks.py                    # all attacks, 12 seconds each: seven minutes
    python benchmarks/serve_attacks.py --short            # 5 seconds each: under four minutes
    python benchmarks/serve_attacks.py --only scan pixels --seconds 30

Eight clients stream answers without images while each attack runs; the same eight are measured undisturbed before and
after it, so that the ratio means something on a busy machine too. The load average at the start is printed: bounds are
meant for an idle machine. The attackers are a process of low priority, since those of a server use other machines'
processors.

Printed are the 99th percentile of the gap between two pieces of an answer, next to the attack and undisturbed, and
their ratio; the same of the time of `/health/live`; the memory of the server and its workers above idle; the memory
that is left above idle ten seconds after all attacks; and the seconds from SIGTERM to the end of the process with a
drain of 5 s, while the last attack is still running. Nothing but the started server is contacted.
"""

import argparse
import base64
import io
import json
import multiprocessing
import os
import signal
import statistics
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import numpy as np
from PIL import Image

STREAMS = 8
ATTACKERS = 2
PATIENCE = 5.0
"""Seconds after which an attacker leaves."""

SETTLE_SECONDS = 10.0
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
        pids = [str(self.process.pid)]
        for children in Path(f"/proc/{self.process.pid}/task").glob("*/children"):  # a process belongs to a thread
            with suppress(OSError):
                pids += children.read_text().split()
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


def attack(port: int, body: bytes, end: float) -> None:
    """Send a request again and again; leave after some seconds of waiting, as an attacker would."""
    while time.perf_counter() < end:
        try:
            connection = HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
            connection.request("POST", "/v1/chat/completions", body, {"Content-Type": "application/json"})
            connection.getresponse().read()
            connection.close()
        except (OSError, HTTPException):
            pass
        time.sleep(0.1)


def attackers(port: int, body: bytes, end: float) -> None:
    """Attack from a process of low priority."""
    os.nice(19)
    threads = [threading.Thread(target=attack, args=(port, body, end), daemon=True) for _ in range(ATTACKERS)]
    for thread in threads:
        thread.start()
    time.sleep(max(0.0, end - time.perf_counter()))


def started_attack(server: Server, body: bytes, end: float) -> "multiprocessing.process.BaseProcess":
    process = multiprocessing.get_context("fork").Process(target=attackers, args=(server.port, body, end), daemon=True)
    process.start()
    return process


def observed(server: Server, seconds: float, body: bytes | None) -> Watch:
    """Return what honest clients saw for some seconds, next to attackers or undisturbed."""
    watch, end = Watch(), time.perf_counter() + seconds
    attacker = None if body is None else started_attack(server, body, end)  # before there are threads
    threads = [threading.Thread(target=stream, args=(server, end, watch)) for _ in range(STREAMS)]
    threads.append(threading.Thread(target=look, args=(server, end, watch)))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if attacker is not None:
        attacker.join()
    return watch


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))] if values else float("nan")


def seconds_to_end(server: Server, body: bytes) -> float:
    """Return the seconds from SIGTERM to the end of the process, while it is attacked."""
    watch, end = Watch(), time.perf_counter() + 8
    attacker = started_attack(server, body, end)
    threading.Thread(target=stream, args=(server, end, watch), daemon=True).start()
    time.sleep(2)
    started = time.perf_counter()
    server.process.send_signal(signal.SIGTERM)
    try:
        server.process.wait(60)
    except subprocess.TimeoutExpired:
        server.process.kill()
    ended = time.perf_counter() - started
    attacker.kill()
    return ended


def measure(server: Server, names: list[str], seconds: float) -> dict[str, dict[str, float]]:
    """Run the attacks one after the other, each between two undisturbed times, and return the figures of each."""
    figures = {}
    observed(server, 3, None)  # warm
    idle = statistics.median(server.memory_mib() for _ in range(5))
    before = observed(server, seconds / 2, None)
    for name in names:
        body = ATTACKS[name]()
        storm = observed(server, seconds, body)
        after = observed(server, seconds / 2, None)
        gap, calm = percentile(storm.gaps, 0.99), percentile(before.gaps + after.gaps, 0.99)
        figures[name] = {
            "gap_ms": 1000 * gap,
            "calm_gap_ms": 1000 * calm,
            "ratio": gap / calm,
            "health_ms": 1000 * percentile(storm.health, 0.99),
            "calm_health_ms": 1000 * percentile(before.health + after.health, 0.99),
            "memory_mib": max(storm.memory, default=0.0) - idle,
            "failed": len(storm.failed),
        }
        before = after
        print(f"{name:32}" + "  ".join(f"{key} {value:.1f}" for key, value in figures[name].items()), flush=True)
    time.sleep(SETTLE_SECONDS)
    print(f"{SETTLE_SECONDS:g} s after the attacks: {server.memory_mib() - idle:+.0f} MiB from idle", flush=True)
    return figures


def kept(figures: dict[str, float]) -> bool:
    """Return whether all bounds hold."""
    return figures["failed"] == 0 and all(figures[name] <= most for name, most in LIMITS.items() if name in figures)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--seconds", type=float, default=12.0, help="Seconds of each attack.")
    parser.add_argument("--short", action="store_true", help="Take 5 seconds for each attack.")
    parser.add_argument("--only", nargs="+", default=[""], help="Attacks whose name has one of these words.")
    parser.add_argument("--json", action="store_true", help="Print the figures as JSON in the last line.")
    options = parser.parse_args()
    names = [name for name in ATTACKS if any(word in name for word in options.only)]
    print(f"load average {os.getloadavg()[0]:.2f} on {os.cpu_count()} processors before the start", flush=True)
    server = start(options.model)
    try:
        figures = measure(server, names, 5.0 if options.short else options.seconds)
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
