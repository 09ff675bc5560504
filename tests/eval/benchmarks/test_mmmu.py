"""MMMU: several images, open questions, rows of the hub."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from kit_files import image_text, parquet_image, predict, write_parquet, write_tsv

from convllava.eval import LoadOptions, Outcome, Scoring, find_benchmark
from convllava.eval.adapters.vlmevalkit_scoring import kit_outcome
from convllava.eval.scoring import score_file


def test_mmmu_scores_the_validation_split_with_open_questions(tmp_path: Path) -> None:
    two = repr([image_text(), image_text("blue", (40, 30))])
    more = {"category": "Art", "l2-category": "Art & Design"}
    rows = [
        {"index": 1, "image": two, "question": "<image 2> or <image 1>?", "A": "x", "B": "y", "answer": "A", **more},
        {"index": 2, "image": image_text(), "question": "How many in <image 1>?", "answer": "12", **more},
        {"index": 3, "image": image_text(), "question": "dev", "A": "x", "B": "y", "answer": "A", **more},
    ]
    for row in rows:
        row["split"] = "dev" if row["index"] == 3 else "validation"
    write_tsv(tmp_path / "MMMU_DEV_VAL.tsv", rows)
    benchmark = find_benchmark("mmmu")
    questions = benchmark.load(tmp_path, LoadOptions())
    assert len(questions) == 2
    sample = questions[0]
    assert benchmark.prompt(sample.row, 2, LoadOptions())[:4] == ["", 1, " or ", 0]
    loaded = [questions[0].row, questions[1].row]
    outcome = benchmark.outcome(predict(loaded, ["A", "about 12 of them"]), Scoring())
    assert outcome.value == 100
    rows[0]["question"] = "<image 5>"
    write_tsv(tmp_path / "MMMU_DEV_VAL.tsv", rows)
    with pytest.raises(ValueError, match=r"MMMU_DEV_VAL.tsv, index 1: the text mentions <image 5>"):
        benchmark.load(tmp_path, LoadOptions())


def test_mmmu_from_the_hub(tmp_path: Path) -> None:
    write_parquet(
        tmp_path / "MMMU/data/validation-00000-of-00001.parquet",
        {
            "id": ["validation_Art_Theory_1"],
            "question": ["What is <image 1>?"],
            "options": ["['a', 'b']"],
            "answer": ["B"],
            "image_1": [parquet_image()],
            "image_2": [{"bytes": None, "path": None}],
        },
    )
    row = find_benchmark("mmmu").load(tmp_path, LoadOptions())[0].row
    assert (row["A"], row["B"], row["category"], row["l2-category"]) == ("a", "b", "Art_Theory", "Art & Design")


OPEN = {"question": "How many?", "answer": "5"}
LOOSE = ["15", "50", "2.5", "A", "The answer is 15."]
STRICT = ["5", "5.0", " 5. ", "The answer is 5.", "2 + 3 = 5", "**Answer:** 5"]


def scored(texts: list[str], scoring: Scoring, answer: str = "5") -> Outcome:
    return find_benchmark("mmmu").outcome(predict([{**OPEN, "answer": answer}] * len(texts), texts), scoring)


def test_the_paper_reads_open_answers_loosely_and_says_how_many_it_affects() -> None:
    outcome = scored([*LOOSE, *STRICT, "7"], Scoring())
    assert [verdict.credit for verdict in outcome.verdicts] == [1] * 11 + [0]
    assert outcome.figures == {"open_questions": 12, "open_questions_read_loosely": 5}
    assert outcome.warnings == [
        "5 of 12 open questions have another result if the whole answer must equal the reference: this profile finds "
        "the reference anywhere in it, as VLMEvalKit did for the paper"
    ]
    assert scored(["5", "7"], Scoring()).warnings == []


def test_the_current_profile_reads_open_answers_strictly() -> None:
    outcome = scored([*LOOSE, *STRICT, "7"], Scoring("current"))
    assert [verdict.credit for verdict in outcome.verdicts] == [0] * 5 + [1] * 6 + [0]
    assert outcome.warnings == [] and "open_questions_read_loosely" not in outcome.figures
    assert scored(["1000", "$1,000"], Scoring("current"), "$1,000").value == 100
    assert scored(["twenty-four", "24", "Ivory."], Scoring("current"), "['24', 'twenty-four']").value == pytest.approx(
        200 / 3
    )
    judged = replace(predict([OPEN], ["half a dozen less one"])[0], judgment="A")
    assert find_benchmark("mmmu").outcome([judged], Scoring("current")).value == 100


def test_the_kits_figures_are_reproduced_under_every_profile() -> None:
    predictions = predict([OPEN] * 2, ["15", "7"])
    assert kit_outcome(find_benchmark("mmmu"), predictions, Scoring("current")).value == 50


def test_the_warning_is_stored_in_the_score(write_predictions: Any, tmp_path: Path) -> None:
    path = write_predictions(tmp_path, "mmmu", [(OPEN, "15")])
    assert score_file(path).score.warnings[0].startswith("1 of 1 open questions have another result")
    assert score_file(path, Scoring("current")).score.warnings == []
