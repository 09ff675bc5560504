"""Load test of `convllava serve`: throughput, latency, memory, and correctness of the answers.

    python benchmarks/serve_load.py --seconds 300 --clients 32
    python benchmarks/serve_load.py --url http://127.0.0.1:8001/v1 --name NAME    # another server, for example vLLM

Clients are threads of this process and share the cores with the server. Each sends its next request when it has its
answer: images of mixed shapes up to 512 pixels per side, answers of 64 to 128 tokens. A copy of the checkpoint without
end tokens is served, so that answers have full length and every server does equal work. Every request has another
image, so that no cache is measured. Throughput is compared with that of a single client, and a part of the greedy
answers with those given alone.
"""

import argparse
import base64
import itertools
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from io import BytesIO
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
from PIL import Image, ImageDraw

SHAPES = ((128, 256), (256, 256), (512, 256), (384, 384), (256, 512), (192, 320), (512, 512), (64, 320))
LENGTHS = (64, 96, 128)
QUESTIONS = ("What is written here?", "Transcribe the text.", "Where is the red circle?", "How many shapes are there?")


@dataclass
class Reply:
    """One answer with its times."""

    which: int
    status: int
    text: str
    tokens: int
    first: float
    total: float


def request_bodies(start: int, number: int, name: str | None) -> list[bytes]:
    """Return the requests with their images, the same at every run."""
    bodies = []
    for index in range(start, start + number):
        rng = random.Random(index)
        width, height = SHAPES[index % len(SHAPES)]
        ground = np.random.default_rng(index).integers(170, 255, (height // 8, width // 8, 3), dtype=np.uint8)
        image = Image.fromarray(ground).resize((width, height), Image.Resampling.BICUBIC)
        draw = ImageDraw.Draw(image)
        for _ in range(4):
            x, y = rng.randrange(width), rng.randrange(height)
            draw.ellipse((x, y, x + 40, y + 30), fill=tuple(rng.randrange(256) for _ in range(3)))
        draw.text((8, 8), f"No. {index} {rng.randrange(10**6)}", fill="black", font_size=24)
        stream = BytesIO()
        image.save(stream, "PNG")
        url = "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()
        content = [
            {"type": "image_url", "image_url": {"url": url}},
            {"type": "text", "text": f"{QUESTIONS[index % len(QUESTIONS)]} ({index})"},
        ]
        body = {
            "messages": [{"role": "user", "content": content}],
            "max_tokens": LENGTHS[index % len(LENGTHS)],
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        bodies.append(json.dumps(body | ({"model": name} if name else {})).encode())
    return bodies


def ask(url: str, which: int, body: bytes) -> Reply:
    """Send one request and read the stream."""
    parts = urlsplit(url)
    started = time.perf_counter()
    connection = HTTPConnection(parts.hostname or "127.0.0.1", parts.port, timeout=600)
    try:
        connection.request("POST", f"{parts.path}/chat/completions", body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        text, tokens, first = "", 0, 0.0
        if response.status != 200:
            return Reply(which, response.status, response.read().decode(), 0, 0.0, 0.0)
        for line in response:
            if not line.startswith(b"data: ") or line.startswith(b"data: [DONE]"):
                continue
            event = json.loads(line[6:])
            if "error" in event:
                return Reply(which, 599, json.dumps(event), 0, 0.0, 0.0)
            tokens = (event.get("usage") or {}).get("completion_tokens", tokens)
            for choice in event.get("choices", ()):
                if choice["delta"].get("content"):
                    first = first or time.perf_counter() - started
                    text += choice["delta"]["content"]
        now = time.perf_counter()
        return Reply(which, response.status, text, tokens, first or now - started, now - started)
    finally:
        connection.close()


def one_at_a_time(url: str, bodies: list[bytes]) -> tuple[list[Reply], float]:
    """Send the requests one after the other; return the replies and tokens per second."""
    started = time.perf_counter()
    replies = [ask(url, which, body) for which, body in enumerate(bodies)]
    return replies, sum(reply.tokens for reply in replies) / (time.perf_counter() - started)


def storm(url: str, bodies: list[bytes], clients: int, seconds: float) -> list[Reply]:
    """Let clients send different requests until the time is over; running requests are finished."""
    replies: list[Reply] = []
    end = time.perf_counter() + seconds
    turns = itertools.count()  # taking the next is atomic

    def client() -> None:
        while time.perf_counter() < end:
            which = next(turns) % len(bodies)
            replies.append(ask(url, which, bodies[which]))

    threads = [threading.Thread(target=client) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return replies


class MemoryWatch(threading.Thread):
    """Samples the resident memory of a process and its children twice a second."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.pid, self.samples, self._stop_wanted = pid, list[tuple[float, float]](), threading.Event()

    def run(self) -> None:
        while not self._stop_wanted.wait(0.5):
            pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
            self.samples.append((time.perf_counter(), pages * os.sysconf("SC_PAGE_SIZE") / 2**20))

    def finish(self) -> list[tuple[float, float]]:
        """Return (seconds, MiB) of all samples."""
        self._stop_wanted.set()
        self.join()
        return self.samples


def endless_copy(model: str, folder: Path) -> Path:
    """Write a copy of a checkpoint without end tokens."""
    from convllava.inference import load_pretrained

    loaded, processor = load_pretrained(model, device="cpu")
    never = len(processor.tokenizer) - 2  # a character; the row after it is <image>
    loaded.generation_config.eos_token_id = loaded.config.text_config.eos_token_id = None
    processor.tokenizer.eos_token = processor.tokenizer.convert_ids_to_tokens(never)
    loaded.generation_config.suppress_tokens = sorted({*(loaded.generation_config.suppress_tokens or ()), 2, never})
    loaded.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@contextmanager
def served(model: Path, options: list[str], log: Path) -> Iterator[tuple[str, int]]:
    """Run the server; yield its address and process id."""
    command = [sys.executable, "-m", "convllava.cli.main", "serve", str(model), "--name", "load", "--port", "0"]
    with log.open("w") as errors:
        process = subprocess.Popen([*command, *options], stdout=subprocess.PIPE, stderr=errors, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        yield line.split(" at ")[1].split(" ")[0] + "/v1", process.pid
    finally:
        process.terminate()
        process.wait(60)


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def slope(samples: list[tuple[float, float]]) -> float:
    """Return the growth in MiB per minute over the last third, when the caches are full."""
    late = samples[len(samples) * 2 // 3 :]
    return statistics.linear_regression(*zip(*late, strict=True)).slope * 60 if len(late) > 2 else float("nan")


def different(url: str, bodies: list[bytes], replies: list[Reply], most: int) -> int:
    """Send some of the requests again, one at a time; return how many answers differ."""
    chosen = {reply.which: reply for reply in replies if reply.status == 200}
    sample = random.Random(0).sample(sorted(chosen), min(most, len(chosen)))
    return sum(ask(url, which, bodies[which]).text != chosen[which].text for which in sample)


def report(replies: list[Reply], seconds: float, baseline: float) -> dict[str, float]:
    """Print the figures of a load test."""
    good = [reply for reply in replies if reply.status == 200]
    rate = sum(reply.tokens for reply in good) / seconds
    figures = {
        "requests": len(replies),
        "errors": len(replies) - len(good),
        "tokens_per_second": round(rate, 1),
        "speedup": round(rate / baseline, 2),
        "ttft_p50": round(percentile([reply.first for reply in good], 0.50), 2),
        "ttft_p95": round(percentile([reply.first for reply in good], 0.95), 2),
        "total_p50": round(percentile([reply.total for reply in good], 0.50), 2),
        "total_p95": round(percentile([reply.total for reply in good], 0.95), 2),
    }
    print("   ".join(f"{name} {value}" for name, value in figures.items()), flush=True)
    for reply in [reply for reply in replies if reply.status != 200][:3]:
        print(f"status {reply.status}: {reply.text[:300]}", flush=True)
    return figures


def measure(url: str, pid: int | None, options: argparse.Namespace) -> bool:
    """Warm up, measure a single client, then the load; return whether the bounds were kept."""
    one_at_a_time(url, request_bodies(0, 3, options.name))
    expected, baseline = one_at_a_time(url, request_bodies(1000, options.alone, options.name))
    fast = statistics.median(reply.first for reply in expected)
    print(f"one at a time: {baseline:.1f} tokens/s, first token after {fast:.2f} s (median)", flush=True)
    kept = True
    for number, clients in enumerate(options.clients, start=2):
        bodies = request_bodies(number * 10_000, options.requests, options.name)  # nobody has seen them
        print(f"{clients} clients, {options.seconds:.0f} s", flush=True)
        watch = MemoryWatch(pid) if pid else None
        if watch:
            watch.start()
        started = time.perf_counter()
        replies = storm(url, bodies, clients, options.seconds)
        figures = report(replies, time.perf_counter() - started, baseline)
        samples = watch.finish() if watch else []
        wrong = different(url, bodies, replies, options.compare)
        print(f"{wrong} of {min(options.compare, len(replies))} answers differ from those given alone", flush=True)
        kept &= not figures["errors"] and not wrong
        if len(replies) > len(bodies):
            print(f"only {len(bodies)} different requests for {len(replies)}: give more --requests", flush=True)
        if samples:
            print(f"memory {samples[0][1]:.0f} -> {samples[-1][1]:.0f} MiB, {slope(samples):+.2f} MiB/min", flush=True)
    return bool(kept)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--seconds", type=float, default=60.0, help="Seconds of each load test.")
    parser.add_argument("--requests", type=int, default=1000, help="Number of different requests.")
    parser.add_argument("--alone", type=int, default=32, help="Number of requests that a single client sends first.")
    parser.add_argument("--compare", type=int, default=64, help="Number of answers that are compared.")
    parser.add_argument("--model", default="nano")
    parser.add_argument("--url", help="URL of a running server; by default one is started.")
    parser.add_argument("--name", help="Model name at --url.")
    parser.add_argument("--write-copy", type=Path, help="Only write the checkpoint without end tokens, to serve it.")
    parser.add_argument("--log", type=Path, default=Path(os.devnull), help="Options of the server.")
    options, rest = parser.parse_known_args()
    if options.write_copy:
        print(endless_copy(options.model, options.write_copy))
        return 0
    if options.url:
        return 0 if measure(options.url, None, options) else 1
    with (
        tempfile.TemporaryDirectory() as folder,
        served(endless_copy(options.model, Path(folder)), rest, options.log) as server,
    ):
        return 0 if measure(*server, options) else 1


if __name__ == "__main__":
    sys.exit(main())
