"""RealWorldQA: the hub's questions and their options."""

from pathlib import Path
from typing import Any

import pytest
from kit_files import parquet_image, predict, write_parquet

from convllava.eval import LoadOptions, Scoring, find_benchmark

LETTER = "Please answer directly with only the letter of the correct option and nothing else."


WORD = "Please answer directly with a single word or number."


def realworldqa(folder: Path, questions: list[str], answers: list[str]) -> Any:
    write_parquet(
        folder / "RealWorldQA/data/test-00000-of-00001.parquet",
        {"image": [parquet_image()] * len(questions), "question": questions, "answer": answers},
    )
    return find_benchmark("realworldqa").load(folder, LoadOptions())


def test_realworldqa_from_the_hub(tmp_path: Path) -> None:
    benchmark = find_benchmark("realworldqa")
    questions = realworldqa(
        tmp_path,
        [
            f"What can we do?\n\nA. Straight\nB. Turn right. Slowly\n{LETTER}",
            f"How many cars are there?\n{WORD}",
            f"Is it wet?\n{WORD}",
        ],
        ["B", "2", "Yes"],
    )
    rows = [questions[index].row for index in range(3)]
    assert rows[0] == {
        "question": "What can we do?",
        "A": "Straight",
        "B": "Turn right. Slowly",
        "answer": "B",
        "index": 0,
    }
    assert rows[1]["question"] == "How many cars are there?"
    assert benchmark.prompt(rows[0], 1, LoadOptions())[1] == (
        "What can we do?\nA. Straight\nB. Turn right. Slowly\nAnswer with the option's letter from the given choices "
        "directly."
    )
    assert benchmark.prompt(rows[1], 1, LoadOptions())[1] == "How many cars are there?\nAnswer the question directly."
    credits = [
        [verdict.credit for verdict in benchmark.outcome(predict(rows, given), Scoring()).verdicts]
        for given in (["B. Turn right", "2", "yes."], ["A", "12", "Yes, there is"], ["", "", ""])
    ]
    assert credits == [[1, 1, 1], [0, 0, 0], [0, 0, 0]]
    (warning,) = [text for text in questions.warnings if "no options" in text]
    assert warning.startswith(
        "2 of 3 questions of test-00000-of-00001.parquet have no options and are scored by the exact word"
    )


def test_realworldqa_that_contradicts_itself(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="asks for a letter and has no options"):
        realworldqa(tmp_path / "1", [f"What is it?\n{LETTER}"], ["A"])
    with pytest.raises(ValueError, match="the answer 'C' is none of the options A, B"):
        realworldqa(tmp_path / "2", [f"What is it?\nA. a cat\nB. a dog\n{LETTER}"], ["C"])
    with pytest.raises(ValueError, match="a question is empty but for its options and instruction"):
        realworldqa(tmp_path / "3", [WORD], ["Yes"])
