"""MMMU: several images, open questions, rows of the hub."""

from pathlib import Path

import pytest
from kit_files import image_text, parquet_image, predict, write_parquet, write_tsv

from convllava.eval import LoadOptions, Scoring, find_benchmark


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
