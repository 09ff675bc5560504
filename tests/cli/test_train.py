"""``convllava train`` from the outside: the plan it prints, and one clear line for each mistake."""

import json
from pathlib import Path

import pytest

from convllava.cli.main import main

RECIPE = """
training_stage: foundation
model: nano
data: [{path: data.json}]
learning_rate: 1e-3
epochs: 1
global_batch_size: 1
output_dir: run
"""
TURNS = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "this"}]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    return tmp_path


def _data(*records: dict[str, object]) -> None:
    Path("data.json").write_text(json.dumps(list(records)))


@pytest.mark.usefixtures("here")
def test_dry_run_prints_the_plan(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = repository / "recipes" / "nano" / "0_encoder.yaml"
    assert main(["train", str(recipe), "max_steps=10", "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert "multi_modal_projector" in printed
    assert "640 samples in 10 steps" in printed
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["absent.yaml"], "recipe absent.yaml does not exist"),
        (["recipe.yaml", "learning_rat=1"], "unknown key 'learning_rat'; did you mean 'learning_rate'?"),
        (
            ["recipe.yaml", "init_from=nowhere", "model=null", "data=[{name: synthetic/line}]"],
            "unknown model 'nowhere'",
        ),
        (
            ["recipe.yaml", "model=nanno", "data=[{name: synthetic/line}]"],
            "model 'nanno' cannot be trained from scratch",
        ),
        (["recipe.yaml", "data=[{name: synthetic/lin}]"], "did you mean 'line'?"),
        (["recipe.yaml", "data=[{name: lcs-558}]"], "no data set is called 'lcs-558'; did you mean 'lcs-558k'?"),
        (["recipe.yaml", "seed=-1"], "seed: Input should be greater than or equal to 0"),
        (["recipe.yaml", "max_steps=1000000000000", "epochs=null"], "max_steps: Input should be less than or equal to"),
        (["recipe.yaml", "data=[{name: synthetic/scene, options: {sizes: [[99999, 99999]]}}]"], "is too large"),
        (["recipe.yaml"], "record 0 (id 7): no image absent.png"),
        (["recipe.yaml", "max_length=4", "data=[{name: synthetic/line, count: 3}]"], "more than max_length 4"),
    ],
)
def test_mistakes_end_in_one_line_and_leave_nothing(
    here: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    _data({"id": "7", "image": "absent.png", "conversations": TURNS})
    assert main(["train", *arguments, "--dry-run"]) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert len(printed.err.strip().splitlines()) == 1
    assert printed.out == ""
    assert sorted(path.name for path in here.iterdir()) == ["data.json", "recipe.yaml"]


def test_own_data_trains_from_a_file(here: Path) -> None:
    from PIL import Image

    Image.new("RGB", (64, 64), "red").save(here / "7.png")
    _data(
        {"id": "7", "image": "7.png", "conversations": TURNS},
        {"id": "8", "conversations": [{"from": "human", "value": "Hello"}, {"from": "gpt", "value": "Good day"}]},
    )
    assert main(["train", "recipe.yaml", "log_every=1"]) == 0
    log = [json.loads(line) for line in (here / "run" / "log.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in log if "loss" in entry] == [1, 2]
    assert (here / "run" / "model.safetensors").is_file()


@pytest.mark.parametrize(("limit", "told"), [("stop_after_minutes=0.0001", True), ("stop_after_steps=1", False)])
def test_a_run_that_its_budget_ended_says_so(
    repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], limit: str, told: bool
) -> None:
    recipe = repository / "recipes" / "nano" / "0_encoder.yaml"
    size = ["max_steps=2", "global_batch_size=2", f"output_dir={tmp_path / 'run'}"]
    assert main(["train", str(recipe), *size, limit]) == 0
    assert ("ended the run at step 1 of 2; continue with --resume" in capsys.readouterr().out) == told
