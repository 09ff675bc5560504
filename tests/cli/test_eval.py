"""``convllava eval``: a run, scores, tables, comparisons and a report; one-line messages."""

import io
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from kit_files import write_tsv, yes_no_rows

from convllava.cli.main import main


@pytest.fixture(scope="module")
def scores(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of MME on eight questions with images padded to 128 pixels."""
    folder = tmp_path_factory.mktemp("scores")
    write_tsv(folder / "MME.tsv", yes_no_rows(8))
    words = ["--benchmark", "MME", "--data", str(folder), "--out", str(folder / "out"), "--batch-size", "3"]
    shown = ["--image-aspect-ratio", "pad", "--resolution", "128"]
    assert main(["eval", "run", str(tiny_checkpoint), *words, *shown]) == 0
    return folder


def test_run_prints_a_figure_and_its_warnings(scores: Path, tiny_checkpoint: Path, capsys: Any) -> None:
    words = ["--benchmark", "mme", "--data", str(scores), "--out", str(scores / "out"), "--json"]
    shown = ["--image-aspect-ratio", "pad", "--resolution", "128"]
    assert main(["eval", "run", str(tiny_checkpoint), *words, *shown]) == 0
    (score,) = json.loads(capsys.readouterr().out)
    assert score["run"]["protocol"]["image"]["resolution"] == 128
    assert (score["samples"], score["units"]) == (8, {"kind": "images", "number": 4})


def test_score_compare_table_report(scores: Path, capsys: Any) -> None:
    path = scores / "out" / "mme.predictions.jsonl"
    assert main(["eval", "score", str(path), "--profile", "current"]) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith("mme: perception points ")
    assert "warning: mme: the md5 of MME.tsv" in printed.err
    assert main(["eval", "compare", str(path), str(path)]) == 0
    assert "0 of 8 samples changed" in capsys.readouterr().out
    assert main(["eval", "table", str(scores / "out"), "--format", "latex"]) == 0
    assert r"\caption{Table 5: Benchmarks" in capsys.readouterr().out
    assert main(["eval", "report", str(scores / "out"), "--data", str(scores)]) == 0
    page = Path(capsys.readouterr().out.strip())
    assert "Is there number 7?" in page.read_text()


def test_mmvet_without_a_judge_keeps_its_predictions(tiny_checkpoint: Path, tmp_path: Path, capsys: Any) -> None:
    rows = [{**row, "answer": "x", "category": "rec"} for row in yes_no_rows(2)]
    write_tsv(tmp_path / "MMVet.tsv", rows)
    words = ["--benchmark", "mmvet", "--data", str(tmp_path), "--out", str(tmp_path / "out")]
    assert main(["eval", "run", str(tiny_checkpoint), *words]) == 2
    message = capsys.readouterr().err
    assert "MM-Vet is answered but cannot be scored without a judge: convllava eval score" in message
    assert len((tmp_path / "out" / "mmvet.predictions.jsonl").read_text().splitlines()) == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", "nano", "--benchmark", "mmee"], "no benchmark 'mmee'; did you mean 'mme'?"),
        (["run", "nano", "--suite", "table1"], "no suite 'table1': one of table2, table3, table4, table5, table6"),
        (["run", "nano", "--suite", "table5", "--benchmark", "mme"], "give either --benchmark or --suite"),
        (["run", "nano", "--benchmark", "mme", "--data", "."], "no data of MME below ."),
        (["run", "nano", "--suite", "table5", "--data", "."], "(8 more benchmarks are missing too)"),
        (["run", "nano", "--suite", "table7", "--resolution", "64"], "--suite table7 sets --image-aspect-ratio"),
        (["run", "nano", "--profile", "new"], "--profile must be one of paper, current, llava, got 'new'"),
        (["run", "nano", "--prompts", "new"], "--prompts must be one of paper, current, llava, got 'new'"),
        (["run", "nano", "--batch-size", "0"], "--batch-size must be auto or a whole number of at least 1"),
        (["run", "nano", "--judge-model", "m"], "a judge needs both --judge-url and --judge-model"),
        (["score", "."], "holds no predictions (NAME.predictions.jsonl)"),
        (["table", "."], "there are no score files"),
        (["table", ".", "--format", "word"], "--format must be one of markdown, latex, csv, got 'word'"),
        (["sweep", "nano", "--benchmark", "mme", "--data", "."], "no data of MME below ."),
        (["sweep", "nano", "--benchmark", "synthetic-lines", "--resolution", "x"], "'x' is not a whole number"),
    ],
)
def test_bad_input_ends_in_one_line(
    words: list[str], message: str, capsys: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["eval", *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_console_that_is_not_utf_8_gets_every_figure(
    scores: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model name and an answer that cp1252 cannot encode are escaped; the command does its work."""
    for name in ("mme.predictions.jsonl", "mme.protocol.json"):
        text = (scores / "out" / name).read_text(encoding="utf-8")
        card = re.sub('"name": "[^"]*"', '"name": "mod\u00e8le \u0142\u6f22\U0001f600"', text)
        (tmp_path / name).write_text(card, encoding="utf-8")
    path = str(tmp_path / "mme.predictions.jsonl")
    shown = {}
    for words in (["score", path, "--json"], ["score", path], ["table", str(tmp_path)], ["compare", path, path]):
        stream = io.TextIOWrapper(io.BytesIO(), encoding="cp1252")
        monkeypatch.setattr(sys, "stdout", stream)
        assert main(["eval", *words]) == 0
        stream.flush()
        shown[" ".join(words[:1] + words[2:3])] = stream.buffer.getvalue().decode("cp1252")
    assert json.loads(shown["score --json"])[0]["run"]["model"]["name"] == "mod\u00e8le \u0142\u6f22\U0001f600"
    assert "mod\u00e8le \\u0142\\u6f22\\U0001f600" in shown["table"]
