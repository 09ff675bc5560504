"""``convllava data check`` and ``data stats`` on the command line."""

import json
import sys
from pathlib import Path

import pytest
from PIL import Image

from convllava.cli.data_report import colored
from convllava.cli.main import main
from convllava.data.check.preview import Span
from convllava.synthetic import dataset

RECIPE = """
training_stage: foundation
model: nano
image: {max_visual_tokens: 1}
data:
  - {path: data.json, weight: 3}
  - {name: synthetic/line, weight: 1}
learning_rate: 1e-3
max_steps: 10
global_batch_size: 4
output_dir: run
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (256, 64)).save("a.png")
    turns = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "a [bold] answer"}]
    records = [{"id": "1", "image": "a.png", "conversations": turns}]
    Path("good.json").write_text(json.dumps(records))
    Path("data.json").write_text(json.dumps([*records, {"id": "2", "image": "gone.png", "conversations": turns}]))
    Path("recipe.yaml").write_text(RECIPE)
    return tmp_path


def test_exit_codes_and_report(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "check", "good.json", "--jobs", "1", "--preview", "1"]) == 0
    printed = capsys.readouterr().out
    assert "⟦a [bold] answer</s>⟧" in printed and "0 errors and 0 warnings in 1 record." in printed
    assert main(["data", "check", "data.json", "--jobs", "1", "--report", "r.json", "--clean", "c.json"]) == 1
    printed = capsys.readouterr().out
    assert "missing image" in printed and "c.json: 1 records kept, 1 left out" in printed
    report = json.loads(Path("r.json").read_text())
    assert [fault["sample_id"] for fault in report["faults"]] == ["2"]
    assert len(json.loads(Path("c.json").read_text())) == 1


def test_a_recipe_is_checked_as_it_trains(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset, "CHECKED_SAMPLES", 8)
    assert main(["data", "check", "recipe.yaml", "--jobs", "1", "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    file, drawn = report["sources"]
    assert (file["records"], file["drawn"], file["visual_tokens"]) == (2, 30, 1)
    assert (drawn["name"], drawn["drawn"], drawn["records"]) == ("synthetic/line", 10, 8)
    assert file["share_of_supervised_tokens"] + drawn["share_of_supervised_tokens"] == pytest.approx(1)
    assert (
        main(["data", "check", "recipe.yaml", "image.max_visual_tokens=4", "max_length=4", "--jobs", "1", "--json"])
        == 1
    )
    report = json.loads(capsys.readouterr().out)
    assert (report["max_length"], report["counts"]["too_long"]) == (4, 9)


def test_stats(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "stats", "good.json", "--out", "plots", "--budget", "3"]) == 0
    printed = capsys.readouterr().out
    assert "native, 3 tokens" in printed and "wrote plots/index.html" in printed
    stats = json.loads(Path("plots/stats.json").read_text())
    assert stats["visual_tokens"]["native, own size"]["max"] == 4
    assert stats["visual_tokens"]["native, 3 tokens"]["max"] == 3
    assert stats["aspect_ratio"]["mean"] == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["check", "absent.json"], "data file absent.json does not exist"),
        (["check", "good.json", "max_length=3"], "max_length=3: KEY=VALUE changes a recipe"),
        (["check", "recipe.yaml", "--clean", "c.json"], "--clean copies one data set"),
        (["check", "good.json", "--clean", "data.json"], "--clean data.json exists already"),
        (["check", "good.json", "--clean", "c.jsonl"], "must end in .json"),
        (["check", "good.json", "--report", "no/r.json"], "the folder no does not exist"),
        (["check", "recipe.yaml", "--image-folder", "."], "a recipe has its own image_folder"),
        (["check", "good.json", "--model", "nanno"], "unknown model 'nanno'"),
        (["stats", "absent-*.parquet"], "no data file absent-*.parquet"),
    ],
)
def test_user_errors_are_one_line(capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    before = sorted(Path().iterdir())
    assert main(["data", *arguments, *(["--jobs", "1"] if arguments[0] == "check" else [])]) == 2
    printed = capsys.readouterr()
    assert message in printed.err and len(printed.err.splitlines()) == 1 and printed.out == ""
    assert sorted(Path().iterdir()) == before


def test_preview_is_colored_on_a_terminal_and_escapes_control_characters() -> None:
    spans = [Span("shown", "a\x1b[31m"), Span("image", "4 visual tokens"), Span("supervised", "yes")]
    text = colored(spans, marked=False)
    assert text.plain == "a\ufffd[31m[4 visual tokens]yes"
    assert [str(span.style) for span in text.spans] == ["dim", "cyan", "bold green"]


def test_data_help_loads_nothing_heavy(capsys: pytest.CaptureFixture[str]) -> None:
    loaded = set(sys.modules)
    assert main(["data", "check", "--help"]) == 0
    assert "--preview" in capsys.readouterr().out
    assert not {"torch", "datasets"} & (set(sys.modules) - loaded)


def test_statistics_of_text_alone_have_no_image_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    turns = [{"from": "human", "value": "Hi?"}, {"from": "gpt", "value": "x"}]
    (tmp_path / "t.json").write_text(json.dumps([{"id": "1", "conversations": turns}]))
    assert main(["data", "stats", str(tmp_path / "t.json")]) == 0
    assert "1 samples (1 without images), 0 images" in capsys.readouterr().out
    assert main(["data", "stats", str(tmp_path / "t.json"), "--out", str(tmp_path / "out")]) == 2
    assert "there is nothing to plot" in capsys.readouterr().err
