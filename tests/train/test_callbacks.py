"""Reports of a run: its log, answers, TensorBoard files, and the HTML page at the end."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from training_runs import SHAPES, STEPS, logged, write_recipe

from convllava.train import load_recipe, train
from convllava.train.report import write_report
from convllava.train.throughput import ThroughputMeter


@pytest.fixture(scope="module")
def recipe(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recipe")
    values = {
        "learning_rate": 3e-3,
        "learning_rates": {"vision_tower": 1e-4},
        "sample_answers": {"every": 3, "count": 2, "max_new_tokens": 4},
        "data": [{"path": str(folder / "data.json"), "weight": 3}, {"name": "synthetic/line"}],
    }
    return write_recipe(folder, tiny_checkpoint, **values)


@pytest.fixture(scope="module")
def run(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was stopped and resumed, so that every file went through both."""
    out = tmp_path_factory.mktemp("watched") / "run"
    train(load_recipe(recipe, [f"output_dir={out}", "stop_after_steps=4"]))
    return train(load_recipe(recipe, [f"output_dir={out}"]), resume=True)


def _total(run: Path, key: str) -> float:
    return sum(logged(run, key).values())


def test_log_lines_have_the_mixture_and_the_throughput(run: Path, recipe: Path) -> None:
    data = next(entry["path"] for entry in json.loads(recipe.read_text())["data"] if "path" in entry)
    assert _total(run, f"drawn/{data}") == 3 * STEPS
    assert _total(run, "drawn/synthetic/line") == STEPS
    entries = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    lines = [entry for entry in entries if "loss" in entry]
    assert [entry["step"] for entry in lines] == list(range(1, STEPS + 1))
    images = sum(entry["images_per_second"] * entry["seconds"] for entry in lines)
    share = sum(shape is not None for shape in SHAPES) / len(SHAPES)
    assert images == pytest.approx(STEPS + 3 * STEPS * share, abs=6)
    for entry in lines:
        assert entry["supervised_tokens_per_second"] > 0 and entry["memory_gb"] > 0
        assert 0 <= entry["waiting_for_data"] <= 1
        assert entry["learning_rate/peak 0.0001"] == pytest.approx(entry["learning_rate"] / 30)


def test_the_same_questions_are_answered_in_every_round(run: Path) -> None:
    rounds = [json.loads(line) for line in (run / "answers.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in rounds] == [0, 3, 6, STEPS]
    questions = [[asked["question"] for asked in entry["answers"]] for entry in rounds]
    assert all(asked == questions[0] for asked in questions) and len(questions[0]) == 2
    assert all(asked["truth"] for asked in rounds[0]["answers"])
    assert rounds[0]["answers"] != rounds[-1]["answers"], "the answers never changed"


def test_prompts_of_the_recipe(recipe: Path, tmp_path: Path) -> None:
    image = sorted(recipe.parent.glob("*.png"))[0]
    prompts = f"[{{question: 'What?', image: {image}}}, {{question: 'And?'}}]"
    out = tmp_path / "run"
    overrides = [
        f"output_dir={out}",
        "stop_after_steps=2",
        f"sample_answers={{every: 2, max_new_tokens: 2, prompts: {prompts}}}",
        "save_every=100",
    ]
    train(load_recipe(recipe, overrides))
    (first, *_) = [json.loads(line) for line in (out / "answers.jsonl").read_text().splitlines()]
    assert [(asked["question"], asked["truth"]) for asked in first["answers"]] == [("What?", None), ("And?", None)]


def _scalars(run: Path) -> Iterator[tuple[str, int, float]]:
    loader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    accumulator = loader.EventAccumulator(str(run / "tensorboard"))
    accumulator.Reload()
    for tag in accumulator.Tags()["scalars"]:
        yield from ((tag, event.step, event.value) for event in accumulator.Scalars(tag))


def test_tensorboard_shows_each_step_once(run: Path) -> None:
    losses = [(step, value) for tag, step, value in _scalars(run) if tag == "loss"]
    assert [step for step, _ in losses] == list(range(1, STEPS + 1))
    assert dict(losses) == pytest.approx(logged(run), rel=1e-5)


def test_a_missing_tracker_is_named(recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match="trackers asks for wandb, which is not installed: pip install wandb"):
        train(load_recipe(recipe, [f"output_dir={tmp_path / 'run'}", "trackers=[wandb]"]))
    assert not (tmp_path / "run").exists()


def test_the_page_shows_the_run(run: Path) -> None:
    page = (run / "report.html").read_text()
    for expected in ("Loss", "Learning rate of peak 0.0001", "synthetic/line", "75.0 %", f"{STEPS} of {STEPS}"):
        assert expected in page
    assert page.count("<polyline") >= 8
    assert "http://" not in page and "https://" not in page and "<script" not in page
    assert "training_stage: pretrain" in page


def test_the_page_of_hostile_text_and_of_a_short_run(tmp_path: Path) -> None:
    line = {"step": 1, "max_steps": 9, "loss": 2.0, "drawn/<b>": 4}
    (tmp_path / "log.jsonl").write_text(json.dumps(line) + "\n" + '{"step": 2, "lo')  # cut by a kill
    asked = {"question": "<script>1</script>", "answer": "&", "truth": None}
    (tmp_path / "answers.jsonl").write_text(json.dumps({"step": 0, "answers": [asked]}) + "\n")
    page = write_report(tmp_path).read_text()
    assert "<script>" not in page and "&lt;script&gt;" in page and "drawn/" not in page and "&lt;b&gt;" in page
    with pytest.raises(ValueError, match="holds no line with a loss"):
        write_report(tmp_path / "absent")


def test_sources_of_the_same_name_are_counted_separately() -> None:
    meter = ThroughputMeter(["line", "scene", "line"])
    meter.count(3, [0, 2, 2])
    figures = meter.read(meter.local_sums(0.0), 1)
    assert {key: value for key, value in figures.items() if "drawn" in key} == {
        "drawn/line": 1,
        "drawn/scene": 0,
        "drawn/line 2": 2,
    }
