"""Data of the user's own as a benchmark: metrics, prompts as they are, and errors for options without effect."""

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from convllava.cli.main import main
from convllava.eval import LoadOptions, Prediction, Scoring
from convllava.eval.own_data import OwnData, OwnQuestions, open_own_data, options_in


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.png", "b.png"):
        Image.new("RGB", (128, 64), "red" if name == "a.png" else "blue").save(tmp_path / name)
    return tmp_path


def _write(folder: Path, *records: Any, name: str = "mine.jsonl") -> Path:
    (folder / name).write_text("\n".join(map(json.dumps, records)))
    return folder / name


def _ask(image: str, question: str, answer: Any) -> dict[str, Any]:
    return {"image": image, "question": question, "answer": answer}


PRICES = [_ask("a.png", "Price?", "12.50"), _ask("a.png", "Unit?", "kg"), _ask("b.png", "Price?", "3.20")]


@pytest.mark.parametrize(
    ("metric", "question", "answers", "said", "credit"),
    [
        ("exact", "Q", ["Red"], " red.", 1),
        ("exact", "Q", ["red", "crimson"], "Crimson", 1),
        ("exact", "Q", ["12.50"], "12.5", 0),
        ("anls", "Q", ["abcd"], "abce", 0.75),
        ("anls", "Q", ["abcd", "x"], "y", 0),
        ("cer", "Q", ["abcd"], "abcz", 0.75),
        ("vqa", "Q", ["a dog"], "Dog", 1),
        ("vqa", "Q", ["dog"] * 2 + ["cat"] * 8, "dog", 0.6),
        ("choice", "Color?\nA. red\nB. blue", ["B"], "B.", 1),
        ("choice", "Color?\nA. red\nB. blue", ["B"], "It is blue", 1),
        ("choice", "Color?\nA. red\nB. blue", ["B"], "A", 0),
        ("iou", "Q", ["[0.00, 0.00, 0.50, 0.50]"], "[0.00, 0.00, 0.50, 0.40]", 1),
        ("iou", "Q", ["[0.00, 0.00, 0.50, 0.50]"], "[0.00, 0.00, 0.50, 0.20]", 0),
        ("iou", "Q", ["[0.00, 0.00, 0.50, 0.50]"], "[0, 0, 500, 500]", 1),
        ("iou", "Q", ["[0.00, 0.00, 0.50, 0.50], [0.50, 0.50, 1.00, 1.00]"], "[0.5, 0.5, 1.0, 1.0]", 0.5),
        ("iou", "Q", ["[0.00, 0.00, 0.50, 0.50]"], "[0.5, 0.5, 1.0, 1.0] [0.0, 0.0, 0.5, 0.5]", 0.5),
        ("iou", "Q", ["[0.00, 0.00, 0.50, 0.50]"], "nowhere", 0),
    ],
)
def test_metrics(metric: str, question: str, answers: list[str], said: str, credit: float) -> None:
    row = {"question": question, "answer": answers[0], "answers": answers}
    verdict = OwnData("mine", metric).verdict(Prediction("0", row, said), Scoring())
    assert math.isclose(verdict.credit, credit, abs_tol=1e-9)


def test_character_errors_are_over_all_characters() -> None:
    pairs = [("abcd", "abcz"), ("abcdefgh", "abcdefgh")]
    predictions = [Prediction(truth, {"answer": truth, "answers": [truth]}, said) for truth, said in pairs]
    own = OwnData("mine", "cer")
    assert own.outcome(predictions, Scoring()).value == 1 / 12 and not own.higher_is_better


@pytest.mark.parametrize(
    ("records", "metric"),
    [
        (PRICES, "exact"),
        ([_ask("a.png", "All?", "A line of text that is longer than any short answer")], "anls"),
        ([_ask("a.png", "All?", "A line of text that is longer than any short answer. " * 3)], "cer"),
        ([_ask("a.png", "Price?", ["12.50", "12,50"])], "anls"),
        ([_ask("a.png", "Price?", ["12.50"] * 10)], "vqa"),
        ([{**_ask("a.png", "Color?", "B"), "choices": ["red", "blue"]}], "choice"),
        ([{"image": "a.png", "sent": "dog", "bbox": [0, 0, 64, 64], "width": 128, "height": 64}], "iou"),
    ],
)
def test_the_metric_follows_from_the_answers(folder: Path, records: list[Any], metric: str) -> None:
    found = OwnQuestions(_write(folder, *records))
    assert (found.metric, found.data["metric"]) == (metric, metric) and found.reason
    assert OwnQuestions(folder / "mine.jsonl", metric).reason == ""


def test_answers_that_a_metric_cannot_score_are_errors(folder: Path) -> None:
    path = _write(folder, *PRICES)
    with pytest.raises(ValueError, match=r"--metric iou: the answer to 0 has no box"):
        open_own_data(path, "iou")
    with pytest.raises(ValueError, match="--metric choice: the answer to 0 is no option"):
        open_own_data(path, "choice")
    with pytest.raises(ValueError, match="--metric must be one of exact, anls, cer, iou, vqa, choice, got 'bleu'"):
        open_own_data(path, "bleu")


def test_options_in_a_question() -> None:
    assert options_in("Color?\nA. red\nB. blue") == {"A": "red", "B": "blue"}
    assert options_in("Color?\n(A) red\n(B) blue") == {"A": "red", "B": "blue"}
    assert options_in("I. a\nB. b") == {}


def test_each_turn_is_a_question_after_the_true_dialogue(folder: Path) -> None:
    turns = [("human", "<image>\nPrice?"), ("gpt", "12.50"), ("human", "Unit?"), ("gpt", "kg")]
    talk = {"id": "r", "image": "a.png", "conversations": [{"from": who, "value": said} for who, said in turns]}
    own, questions = open_own_data(_write(folder, {**talk, "system": "Be brief."}))
    assert questions.ids == ["r/0", "r/1"]
    last = questions[1]
    assert (last.row["question"], last.row["answer"], len(last.images)) == ("Unit?", "kg", 1)
    messages, images = own.messages(last.row, 1, LoadOptions())
    assert [message["role"] for message in messages] == ["system", "user", "assistant", "user"]
    assert images == [0]


def test_a_name_of_a_benchmark_is_not_taken(folder: Path) -> None:
    own, _ = open_own_data(_write(folder, *PRICES, name="DocVQA.jsonl"))
    assert own.name == "DocVQA-data"


def test_run_score_compare_and_report(tiny_checkpoint: Path, folder: Path, capsys: Any) -> None:
    path = _write(folder, *PRICES)
    run = ["eval", "run", str(tiny_checkpoint), "--data", str(path), "--out", str(folder / "out")]
    assert main(run) == 0
    printed = capsys.readouterr()
    assert "mine: 3 questions about 2 images (question and answer); metric: exact match, because the" in printed.err
    assert printed.out.startswith("mine: exact match ")
    predictions = folder / "out" / "mine.predictions.jsonl"
    lines = [json.loads(line) for line in predictions.read_text().splitlines()]
    assert all(line["prompt"].count("<image>") == 1 for line in lines)
    assert all(re.search(r"<image>\s*(Price|Unit)\?", line["prompt"]) for line in lines)
    score = json.loads((folder / "out" / "mine.score.json").read_text())
    assert score["units"] == {"kind": "images", "number": 2}
    assert main(["eval", "score", str(predictions)]) == 0
    assert main(["eval", "compare", str(predictions), str(predictions)]) == 0
    assert "paired permutation test by images: p = 1" in capsys.readouterr().out
    assert main(["eval", "report", str(folder / "out")]) == 0
    page = (folder / "out" / "mine.report.html").read_text()
    assert "prompt sent" in page and "Unit?" in page
    assert main([*run[:-1], str(folder / "other"), "--metric", "anls", "--limit", "1"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("mine: ANLS ")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--data", "{data}", "--benchmark", "docvqa"], "is no folder: docvqa needs the folder of its file"),
        (["--data", "{folder}", "--benchmark", "synthetic-scenes"], "--data has no effect on synthetic-scenes"),
        (["--metric", "anls"], "--metric: for data of your own, which are --data FILE without --benchmark"),
        (["--benchmark", "docvqa", "--metric", "anls"], "--metric: for data of your own"),
        (["--format", "qa", "--suite", "pages"], "--format: for data of your own"),
        (["--data", "{data}", "--prompts", "llava"], "--prompts has no effect on data of your own"),
        (["--data", "{data}", "--profile", "llava"], "--profile llava has no effect on data of your own"),
        (["--data", "{data}", "--ocr-tokens"], "--ocr-tokens has no effect on mine"),
        (["--data", "{folder}/absent.jsonl"], "absent.jsonl does not exist"),
    ],
)
def test_options_without_effect_are_errors(folder: Path, words: list[str], message: str, capsys: Any) -> None:
    path = _write(folder, *PRICES)
    given = [word.format(data=path, folder=folder) for word in words]
    assert main(["eval", "run", "nano", *given, "--out", str(folder / "out")]) == 2
    assert message in capsys.readouterr().err
