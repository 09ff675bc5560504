"""The lmms-eval adapter: its interface against a stub, and a real run where lmms-eval is installed."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from convllava.eval import LoadOptions, find_benchmark
from convllava.inference import Generator, Request

PROMPT = "What is it?"


@pytest.fixture
def adapter(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The adapter's module, over a stub with the interface of lmms-eval 0.7.3."""

    class lmms:
        is_simple = True

        def __init__(self) -> None:
            self._rank, self._world_size, self.task_dict = 0, 1, {}

    for name in ("lmms_eval", "lmms_eval.api", "lmms_eval.api.model"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    sys.modules["lmms_eval.api.model"].lmms = lmms  # type: ignore[attr-defined]
    monkeypatch.delitem(sys.modules, "convllava.eval.adapters.lmms_eval_model", raising=False)
    yield importlib.import_module("convllava.eval.adapters.lmms_eval_model")
    sys.modules.pop("convllava.eval.adapters.lmms_eval_model", None)


def image(number: int) -> Image.Image:
    return Image.new("RGB", ((128, 64), (64, 128), (64 * 24, 64 * 24))[number], "red")


def to_messages(doc: int) -> list[dict[str, Any]]:
    content = [{"type": "image", "url": image(doc)}, {"type": "text", "text": PROMPT}]
    return [{"role": "user", "content": content}]


def test_requests_are_answered_in_order(adapter: Any, tiny_checkpoint: Path, caplog: Any) -> None:
    model = adapter.ConvLlava(str(tiny_checkpoint), batch_size="2", device="cpu")
    assert not model.is_simple
    model.task_dict = {"task": {"test": [0, 1, 2]}}
    options = {"max_new_tokens": 5000, "until": ["\n\n"], "temperature": 0, "num_beams": 1}
    args = [("", to_messages, options, number, "task", "test") for number in (1, 2, 0)]
    answers = model.generate_until([SimpleNamespace(args=own) for own in args])
    generator: Generator = model._generator
    wanted = generator.generate([Request.of_question(PROMPT, [image(number)], stop=["\n\n"]) for number in (1, 0)])
    assert answers == [wanted[0].text, "", wanted[1].text]
    assert "request 1 cannot be answered" in caplog.text


def test_generation_options(adapter: Any) -> None:
    found = adapter.generation_options({"until": "x", "max_new_tokens": 7})
    assert found == {"stop": ["x"], "max_new_tokens": 7, "stop_on_repetition": False}
    drawn = adapter.generation_options({"do_sample": True, "temperature": 0.5, "top_p": None})
    assert (drawn["temperature"], drawn["top_p"]) == (0.5, 1.0)
    assert "temperature" not in adapter.generation_options({"do_sample": False, "temperature": 0.5})
    with pytest.raises(ValueError, match="num_beams is 5"):
        adapter.generation_options({"num_beams": 5})


TASK = """\
task: convllava_scenes
dataset_path: parquet
dataset_kwargs:
  data_files: {{test: {data}}}
test_split: test
output_type: generate_until
doc_to_visual: !function scenes.doc_to_visual
doc_to_text: !function scenes.doc_to_text
doc_to_target: answer
generation_kwargs: {{max_new_tokens: 64, temperature: 0, do_sample: false}}
process_results: !function scenes.process_results
metric_list:
  - {{metric: right, aggregation: mean, higher_is_better: true}}
"""

FUNCTIONS = """\
def doc_to_visual(doc):
    return [doc["image"].convert("RGB")]


def doc_to_text(doc):
    return doc["question"]


def process_results(doc, results):
    return {"right": float(results[0].strip().lower() == doc["answer"].lower())}
"""


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("lmms_eval") is None, reason="lmms-eval is not installed here")
def test_lmms_eval_gives_our_runners_answers(tmp_path: Path, repository: Path) -> None:
    from datasets import Dataset, Features, Value
    from datasets import Image as ImageFeature

    from convllava.eval import run_benchmark
    from convllava.inference import load_pretrained

    questions = find_benchmark("synthetic-scenes").load(tmp_path, LoadOptions())
    rows = [questions[number] for number in range(6)]
    columns = {
        "image": [row.images[0].open() for row in rows],
        "question": [row.row["question"] for row in rows],
        "answer": [row.row["answer"] for row in rows],
    }
    features = Features({"image": ImageFeature(), "question": Value("string"), "answer": Value("string")})
    Dataset.from_dict(columns, features=features).to_parquet(tmp_path / "scenes.parquet")
    (tmp_path / "scenes.py").write_text(FUNCTIONS)
    (tmp_path / "scenes.yaml").write_text(TASK.format(data=tmp_path / "scenes.parquet"))
    installed = tmp_path / "site" / "convllava_plugin-1.dist-info"  # entry points without installing anything
    installed.mkdir(parents=True)
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: convllava-plugin\nVersion: 1\n")
    target = "convllava.eval.adapters:lmms_eval_manifest"
    (installed / "entry_points.txt").write_text(f"[lmms_eval.models]\nconvllava = {target}\n")
    paths = [str(tmp_path / "site"), str(repository / "src"), *sys.path]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "HF_HOME": str(tmp_path / "hf")}
    command = [sys.executable, "-m", "lmms_eval", "--model", "convllava", "--model_args", "pretrained=nano,device=cpu"]
    command += ["--tasks", "convllava_scenes", "--include_path", str(tmp_path), "--batch_size", "3"]
    command += ["--output_path", str(tmp_path / "out"), "--log_samples"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Error during evaluation" not in done.stdout, done.stdout[-3000:]  # lmms-eval exits with 0 all the same
    (samples,) = (tmp_path / "out").rglob("*samples*.jsonl")
    theirs = {line["doc_id"]: line for line in map(json.loads, samples.read_text().splitlines())}
    run_benchmark(Generator(*load_pretrained("nano", device="cpu")), "synthetic-scenes", limit=6, out=tmp_path / "ours")
    lines = (tmp_path / "ours" / "synthetic-scenes.predictions.jsonl").read_text().splitlines()
    ours = [json.loads(line)["prediction"] for line in lines]
    assert [theirs[number]["filtered_resps"] for number in range(6)] == ours
