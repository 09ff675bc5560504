"""`convllava ask --each`: a table of the answers, which a killed run goes on with."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from convllava import inference
from convllava.cli.main import main
from convllava.inference import asking_each

QUESTION = "What is it?"


@pytest.fixture
def scans(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder `scans` in the current one, with images in a subfolder, a PDF of two pages and a text."""
    monkeypatch.chdir(tmp_path)
    folder = Path("scans")
    (folder / "more").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name, size in {"a.png": (64, 64), "b.png": (64, 128), "more/c.png": (70, 90)}.items():
        Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(folder / name)
    Image.new("RGB", (64, 32)).save(folder / "d.pdf", save_all=True, append_images=[Image.new("RGB", (32, 96))])
    (folder / "notes.txt").write_text("no image")
    return folder


@pytest.fixture
def ask(tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[str, str]]:
    """Run the command with the tiny model; return what it printed on the two streams."""

    def run(*arguments: str, code: int = 0, tokens: str = "3") -> tuple[str, str]:
        options = ("--each", "--model", str(tiny_checkpoint), "--device", "cpu", "--max-new-tokens", tokens)
        assert main(["ask", *arguments, *options]) == code
        printed = capsys.readouterr()
        return printed.out, printed.err

    return run


def table(path: str) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_a_folder_becomes_a_table_in_order(
    ask: Callable[..., tuple[str, str]], scans: Path, tiny_checkpoint: Path
) -> None:
    out, err = ask("scans", QUESTION, "--out", "totals.csv")
    assert out == "" and err == "5 answers in totals.csv\n"
    rows = table("totals.csv")
    places = [(row["file"], row["page"]) for row in rows]
    assert places == [
        ("scans/a.png", ""),
        ("scans/b.png", ""),
        ("scans/d.pdf", "1"),
        ("scans/d.pdf", "2"),
        ("scans/more/c.png", ""),
    ]
    loaded = inference.load_pretrained(tiny_checkpoint, device="cpu")
    assert rows[1]["answer"] == inference.ask(*loaded, "scans/b.png", QUESTION, max_new_tokens=3).text
    assert {row["question"] for row in rows} == {QUESTION} and {row["error"] for row in rows} == {""}
    assert sorted(path.name for path in Path().iterdir()) == ["scans", "totals.csv"]


def test_several_questions_patterns_and_json_lines(ask: Callable[..., tuple[str, str]], scans: Path) -> None:
    Path("questions.txt").write_text("What is it?\n\n  Where is it?\nWhat is it?\n")
    ask("scans/*.png", "scans/more", "scans/a.png", "--questions", "questions.txt", "--out", "all.jsonl")
    records = [json.loads(line) for line in Path("all.jsonl").read_text().splitlines()]
    assert [(record["file"], record["question"]) for record in records] == [
        (file, question)
        for file in ("scans/a.png", "scans/b.png", "scans/more/c.png")
        for question in ("What is it?", "Where is it?")
    ]
    assert records[0]["num_image_tokens"] == 1 and records[0]["boxes"] == [] and records[0]["page"] is None


def test_with_a_schema_each_key_has_a_column(ask: Callable[..., tuple[str, str]], scans: Path) -> None:
    pytest.importorskip("llguidance")
    properties = {"ok": {"type": "boolean"}, "page": {"enum": [7]}}
    schema = {"type": "object", "properties": properties, "required": ["ok", "page"]}
    Path("schema.json").write_text(json.dumps(schema))
    ask("scans/a.png", "scans/b.png", QUESTION, "--out", "o.csv", "--json-schema", "schema.json", tokens="40")
    for row in table("o.csv"):
        assert json.loads(row["answer"]) == {"ok": row["ok"] == "true", "page": 7}
        assert row["answer.page"] == "7" and row["page"] == "" and row["ok"] in ("true", "false")


def test_a_system_message_reaches_every_question(ask: Callable[..., tuple[str, str]], scans: Path) -> None:
    ask("scans/a.png", QUESTION, "--out", "o.jsonl", "--system", "Be brief.")
    assert json.loads(Path("o.jsonl").read_text())["error"] is None


def test_without_an_output_each_answer_is_printed(ask: Callable[..., tuple[str, str]], scans: Path) -> None:
    out, _ = ask("scans/a.png", "scans/d.pdf", QUESTION)
    assert sorted(line.split("\t")[0] for line in out.splitlines()) == ["scans/a.png", "scans/d.pdf:1", "scans/d.pdf:2"]
    out, _ = ask("scans/a.png", QUESTION, "--json")
    assert json.loads(out)["file"] == "scans/a.png"


def test_bad_files_are_listed_and_tried_again_by_the_same_command(
    ask: Callable[..., tuple[str, str]], scans: Path
) -> None:
    good = (scans / "a.png").read_bytes()
    (scans / "a.png").write_bytes(b"no image")
    (scans / "b.png").write_bytes((scans / "b.png").read_bytes()[:100])
    _, err = ask("scans", QUESTION, "--out", "totals.csv", code=1)
    lines = err.splitlines()
    assert [line.split(" is ")[0] for line in sorted(lines[:2])] == ["error: scans/a.png", "error: scans/b.png"]
    assert lines[2] == "3 answers in totals.csv; 2 without, the same command tries them again"
    assert ["is not an image" in row["error"] for row in table("totals.csv")] == [True, False, False, False, False]
    (scans / "a.png").write_bytes(good)
    _, err = ask("scans", QUESTION, "--out", "totals.csv", code=1)
    assert "4 answers" in err and "a.png" not in err
    assert [bool(row["answer"] or not row["error"]) for row in table("totals.csv")] == [True, False, True, True, True]
    (scans / "b.png").unlink()
    ask("scans", QUESTION, "--out", "totals.csv")
    assert len(table("totals.csv")) == 4 and not Path("totals.csv.partial.jsonl").exists()


@pytest.mark.slow
def test_a_killed_run_goes_on(
    ask: Callable[..., tuple[str, str]], tmp_path: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("many").mkdir()
    for number in range(80):
        Image.new("RGB", (64 + 64 * (number % 3), 64), (number % 256, 0, 0)).save(f"many/{number:03}.png")
    partial = Path("out.csv.partial.jsonl")
    options = ["--each", "--model", str(tiny_checkpoint), "--device", "cpu", "--max-new-tokens", "3"]
    command = [sys.executable, "-m", "convllava.cli.main", "ask", "many", QUESTION, "--out", "out.csv", *options]
    process = subprocess.Popen(command, env=dict(os.environ), stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not partial.exists() or partial.read_bytes().count(b"\n") < 9:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = [json.loads(line) for line in partial.read_text().splitlines()[1:] if line.endswith("}")]
    assert 8 <= len(kept) < 80 and not Path("out.csv").exists()
    with partial.open("a") as file:
        file.write('{"file": "many/2')  # a line that was cut off
    asked: list[str] = []
    real = asking_each.open_images

    def open_images(sources: list[str], *rest: Any, **more: Any) -> Any:
        asked.extend(sources)
        return real(sources, *rest, **more)

    monkeypatch.setattr(asking_each, "open_images", open_images)
    _, err = ask("many", QUESTION, "--out", "out.csv")
    assert "80 answers in out.csv" in err and not partial.exists()
    assert sorted(asked) == sorted({f"many/{n:03}.png" for n in range(80)} - {record["file"] for record in kept})
    rows = table("out.csv")
    assert [row["file"] for row in rows] == [f"many/{number:03}.png" for number in range(80)]
    by_file = {row["file"]: row["answer"] for row in rows}
    assert all(by_file[record["file"]] == record["answer"] for record in kept)


def test_a_run_with_other_options_is_refused(ask: Callable[..., tuple[str, str]], scans: Path) -> None:
    (scans / "a.png").write_bytes(b"no image")
    ask("scans/a.png", "scans/b.png", QUESTION, "--out", "o.csv", code=1)
    before = Path("o.csv.partial.jsonl").read_bytes()
    _, err = ask("scans", QUESTION, "--out", "o.csv", "--max-visual-tokens", "1", code=2)
    assert "o.csv.partial.jsonl is from a run with other options (image_options)" in err
    assert Path("o.csv.partial.jsonl").read_bytes() == before


def test_two_runs_do_not_write_one_table(ask: Callable[..., tuple[str, str]], scans: Path) -> None:
    fcntl: Any = pytest.importorskip("fcntl")
    with Path("o.csv.partial.jsonl").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        _, err = ask("scans", QUESTION, "--out", "o.csv", code=2)
    assert "is being written by another run" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["scans", "--out", "o.csv"], "the question is missing"),
        ([QUESTION, "--out", "o.csv"], "the question is missing"),
        (["scans", QUESTION, "--out", "o.xlsx"], "the name must end in .csv or .jsonl"),
        (["scans", QUESTION, "--out", "no/o.csv"], "must be a file in a folder that exists"),
        (["scans", QUESTION, "--out", "old.csv"], "--out old.csv exists already"),
        (["nowhere.png", QUESTION], "nowhere.png does not exist"),
        (["scans/*.jpg", QUESTION], "scans/*.jpg has no images and no PDFs"),
        (["empty", QUESTION], "empty has no images and no PDFs"),
        (["-", QUESTION], "standard input"),
        (["scans", "--questions", "nowhere.txt"], "the file of questions nowhere.txt does not exist"),
        (["scans", "--questions", "blank.txt"], "blank.txt has no questions"),
        (["scans", QUESTION, "--page", "2"], "--page has no effect with --each"),
        (["scans", QUESTION, "--draw", "x.png"], "--draw has no effect with --each"),
    ],
)
def test_what_is_wrong_is_one_line(
    ask: Callable[..., tuple[str, str]], scans: Path, arguments: list[str], message: str
) -> None:
    Path("empty").mkdir()
    Path("blank.txt").write_text(" \n\n")
    Path("old.csv").write_text("mine")
    out, err = ask(*arguments, code=2)
    assert out == "" and err.count("\n") == 1 and message in err
    assert Path("old.csv").read_text() == "mine" and not list(Path().glob("*.partial.jsonl"))


def test_options_of_each_need_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ask", "a.png", QUESTION, "--out", "o.csv"]) == 2
    assert "--out has no effect without --each" in capsys.readouterr().err
