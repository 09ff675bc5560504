"""Greedy answers of vLLM and of `convllava serve`, for the same checkpoint and requests.

    benchmarks/vllm_environment.sh DIRECTORY
    python benchmarks/vllm_compare.py --vllm DIRECTORY/bin/python --work WORK

Serves the checkpoint in vLLM (transformers backend, on the CPU unless the environment has another vLLM). Both servers
get images of mixed aspect ratios, two images in one question, text alone, and a streamed request. Everything is
float32, so that answers can differ only at ties.
"""

import argparse
import base64
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from convllava.images import image_size

EXAMPLES = Path(__file__).parents[1] / "src" / "convllava" / "serve" / "static" / "examples"
MODEL = "compared"
START_SECONDS = 900.0


def requests() -> dict[str, tuple[list[str], str]]:
    """Return images and question by the name of the case."""
    entries = json.loads((EXAMPLES / "examples.json").read_text(encoding="utf-8"))
    cases = {entry["title"]: ([entry["file"]], entry["question"]) for entry in entries}
    cases["two images"] = (["receipt.png", "line.png"], "What is written in the second image?")
    cases["text alone"] = ([], "What is the capital of France?")
    return cases


def body(images: list[str], question: str, **options: Any) -> bytes:
    """Return a request in the OpenAI format."""
    parts: list[dict[str, Any]] = []
    for name in images:
        data = base64.b64encode((EXAMPLES / name).read_bytes()).decode()
        parts.append({"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}})
    content = [*parts, {"type": "text", "text": question}]
    message = {"role": "user", "content": content}
    return json.dumps({"model": MODEL, "messages": [message], "temperature": 0, "max_tokens": 48, **options}).encode()


def ask(url: str, data: bytes) -> str:
    """Return an answer, or the error."""
    request = urllib.request.Request(f"{url}/chat/completions", data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=600) as response:
            return str(json.load(response)["choices"][0]["message"]["content"])
    except urllib.error.HTTPError as error:
        return f"<status {error.code}: {error.read()[:300]!r}>"


def ask_streaming(url: str, data: bytes) -> str:
    """Return a streamed answer."""
    request = urllib.request.Request(f"{url}/chat/completions", data, {"Content-Type": "application/json"})
    text = ""
    with urllib.request.urlopen(request, timeout=600) as response:
        for line in response:
            if line.startswith(b"data: {"):
                for choice in json.loads(line[6:])["choices"]:
                    text += choice["delta"].get("content") or ""
    return text


@contextmanager
def served(command: list[str], url: str, log: Path, environment: dict[str, str]) -> Iterator[str]:
    """Run a server until the block ends."""
    with log.open("wb") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT, env=environment)
        try:
            wait(process, url, log)
            yield url
        finally:
            process.terminate()
            process.wait(120)


def environment_of_vllm() -> dict[str, str]:
    """Return the environment without variables that point to this interpreter's packages."""
    own = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    return own | {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "VLLM_CPU_KVCACHE_SPACE": "1"}


def wait(process: "subprocess.Popen[bytes]", url: str, log: Path) -> None:
    """Wait until a server lists its models."""
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        if process.poll() is not None:
            break
        try:
            urllib.request.urlopen(f"{url}/models", timeout=5).close()
            return
        except OSError:
            time.sleep(1)
    raise SystemExit(f"the server did not start; the end of {log}:\n{log.read_text(errors='replace')[-3000:]}")


def vllm_command(python: Path, model: Path, port: int) -> list[str]:
    """Return the command that starts vLLM; `--model-impl transformers` would bypass registered plugins."""
    return [
        str(python),
        *("-m", "vllm.entrypoints.openai.api_server", "--model", str(model), "--served-model-name", MODEL),
        *("--dtype", "float32", "--port", str(port), "--host", "127.0.0.1"),
        *("--max-model-len", "2048", "--limit-mm-per-prompt", '{"image": 2}', "--enforce-eager"),
    ]


def our_command(model: Path, port: int) -> list[str]:
    """Return the command that starts `convllava serve`."""
    options = ["--name", MODEL, "--dtype", "float32", "--port", str(port)]
    code = "import sys; from convllava.cli.main import main; sys.exit(main())"
    return [sys.executable, "-c", code, "serve", str(model), *options]


def own_checkpoint(model: str, folder: Path) -> Path:
    """Write a checkpoint with `save_pretrained` and return its directory."""
    from convllava.inference import load_pretrained

    loaded, processor = load_pretrained(model, device="cpu")
    loaded.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def compare(ours: str, theirs: str) -> int:
    """Print both answers to each request; return how many differ."""
    different = 0
    for name, (images, question) in requests().items():
        expected, got = ask(ours, body(images, question)), ask(theirs, body(images, question))
        different += expected != got
        sizes = ", ".join("x".join(map(str, reversed(image_size(EXAMPLES / name)))) for name in images)
        print(f"{'equal    ' if expected == got else 'DIFFERENT'} {name} ({sizes}): {expected!r}", flush=True)
        if expected != got:
            print(f"          vLLM: {got!r}", flush=True)
    images, question = next(iter(requests().values()))
    streamed = ask_streaming(theirs, body(images, question, stream=True))
    same = streamed == ask(ours, body(images, question))
    print(f"{'equal    ' if same else 'DIFFERENT'} streamed: {streamed!r}", flush=True)
    return different + (not same)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vllm", type=Path, required=True, help="Python of the environment that has vLLM.")
    parser.add_argument("--model", default="nano")
    parser.add_argument("--work", type=Path, required=True, help="Directory for the checkpoint and the logs.")
    parser.add_argument("--port", type=int, default=8100)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    model = own_checkpoint(options.model, options.work / "checkpoint")
    ours, theirs = (f"http://127.0.0.1:{options.port + place}/v1" for place in range(2))
    # one after the other, or they would fight for the cores while they start
    with served(our_command(model, options.port), ours, options.work / "ours.log", dict(os.environ)):
        command = vllm_command(options.vllm, model, options.port + 1)
        with served(command, theirs, options.work / "vllm.log", environment_of_vllm()):
            different = compare(ours, theirs)
    print(f"{different} answers differ")
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
