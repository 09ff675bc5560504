"""Mistakes on the command line are told before torch is imported, which takes seconds."""

import json
import os
import subprocess
import sys

import pytest
from PIL import Image

QUESTION = "What is it?"

MISTAKES: list[tuple[list[str], str]] = [
    (["ask", "nowhere.png", QUESTION], "nowhere.png does not exist"),
    (["ask", "good.png"], "the question is missing"),
    (["ask", "good.png", QUESTION, "--model", "nanoo"], "unknown model 'nanoo'"),
    (["ask", "good.png", QUESTION, "--model", "album"], "album is not a checkpoint"),
    (["ask", "notes.txt", QUESTION], "notes.txt is not an image"),
    (["ask", "good.png", QUESTION, "--page", "3"], "page 3 was asked for"),
    (["ask", "good.png", QUESTION, "--dtype", "float61"], "dtype 'float61' is not known"),
    (["ask", "good.png", QUESTION, "--device", "gpu"], "device 'gpu' is not known"),
    (["ask", "good.png", QUESTION, "--quantize", "int3"], "quantize is one of int8, nf4"),
    (["ask", "good.png", QUESTION, "--adapter", "nowhere"], "the adapter nowhere does not exist"),
    (["ask", "good.png", QUESTION, "--max-visual-tokens", "0"], "max_visual_tokens is at least 1"),
    (["ask", "good.png", QUESTION, "--max-new-tokens", "0"], "--max-new-tokens"),
    (["ask", "good.png", QUESTION, "--image-aspect-ratio", "wide"], "image_aspect_ratio is one of"),
    (["ask", "good.png", QUESTION, "--resolution", "big"], "--resolution 'big'"),
    (["ask", "good.png", QUESTION, "--box-image", "2"], "--box-image 2"),
    (["ask", "good.png", QUESTION, "--draw", "out.txt"], "must end in .png"),
    (["chat", "nowhere.png"], "nowhere.png does not exist"),
    (["chat", "good.png", "--model", "nanoo"], "unknown model 'nanoo'"),
    (["demo", "--model", "nanoo"], "unknown model 'nanoo'"),
    (["serve", "nanoo"], "unknown model 'nanoo'"),
    (["serve", "nano", "--model", "album"], "two models are given"),
    (["serve", "--dtype", "float61"], "dtype 'float61'"),
    (["eval", "run", "nanoo", "--benchmark", "pope"], "unknown model 'nanoo'"),
    (["eval", "run", "--benchmark", "pope"], "the model is missing"),
    (["eval", "run", "nano", "--benchmark", "pope", "--data", "nowhere"], "--data nowhere does not exist"),
    (["eval", "score", "nowhere"], "predictions nowhere does not exist"),
    (["eval", "compare", "good.png", "nowhere"], "predictions nowhere does not exist"),
    (["eval", "sweep", "nanoo", "--benchmark", "pope"], "unknown model 'nanoo'"),
    (["train", "nowhere.yaml"], "recipe nowhere.yaml does not exist"),
    (["data", "check", "nowhere.json"], "data file nowhere.json does not exist"),
    (["data", "stats", "nowhere.json"], "data file nowhere.json does not exist"),
    (["inspect", "nowhere"], "unknown model 'nowhere'"),
    (["convert", "nowhere", "out"], "unknown model 'nowhere'"),
    (["convert", "nano", "album"], "album exists already"),
    (["verify", "nano", "nowhere"], "unknown model 'nowhere'"),
    (["export", "code", "nowhere", "out"], "unknown model 'nowhere'"),
    (["export", "onnx", "nowhere", "out"], "unknown model 'nowhere'"),
    (["join", "out", "--vision-tower", "nowhere", "--language-model", "nano"], "unknown model 'nowhere'"),
    (["cost", "nowhere.png"], "nowhere.png does not exist"),
    (["cost", "nanoo"], "did you mean 'nano'"),
    (["cost", "good.png", "--model", "convllava-7b-15"], "did you mean 'convllava-7b-1536'"),
    (["cost", "nano", "--dtype", "float61"], "dtype 'float61'"),
]

SCRIPT = """
import contextlib, io, json, sys
from convllava.cli.main import main
results = []
for arguments in json.loads(sys.argv[1]):
    with contextlib.redirect_stderr(io.StringIO()) as errors:
        code = main(arguments)
    results.append([code, errors.getvalue(), sorted({"torch", "transformers"} & set(sys.modules))])
print(json.dumps(results))
"""


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[int, str, list[str]]]:
    """Exit code, standard error, and the slow packages that were loaded by then, of each mistake in one process."""
    folder = tmp_path_factory.mktemp("mistakes")
    (folder / "album").mkdir()
    (folder / "album" / "notes.txt").touch()
    (folder / "notes.txt").write_text("no image")
    Image.new("RGB", (64, 64)).save(folder / "good.png")
    command = [sys.executable, "-c", SCRIPT, json.dumps([arguments for arguments, _ in MISTAKES])]
    done = subprocess.run(command, cwd=folder, env=dict(os.environ), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return [tuple(result) for result in json.loads(done.stdout)]


@pytest.mark.parametrize("number", range(len(MISTAKES)), ids=[" ".join(arguments) for arguments, _ in MISTAKES])
def test_a_mistake_is_one_line_without_torch(results: list[tuple[int, str, list[str]]], number: int) -> None:
    code, errors, loaded = results[number]
    assert code == 2 and errors.startswith("error: ") and errors.count("\n") == 1, errors
    assert MISTAKES[number][1] in errors
    assert loaded == [], f"loaded by this or an earlier mistake: {loaded}"
