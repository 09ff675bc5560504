"""RefCOCO: boxes from JSONL and from the hub."""

import json
from pathlib import Path

import pytest
from kit_files import image_bytes, parquet_image, predict, write_parquet

from convllava.eval import LoadOptions, Scoring, find_benchmark


def test_grounding_from_jsonl_and_from_the_hub(tmp_path: Path) -> None:
    (tmp_path / "coco").mkdir()
    (tmp_path / "coco" / "1.png").write_bytes(image_bytes(size=(50, 100)))
    line = {"image": "coco/1.png", "sent": "the cup", "bbox": [0, 0, 100, 50], "width": 100, "height": 50}
    (tmp_path / "refcoco_testA.jsonl").write_text(json.dumps(line) + "\n")
    benchmark = find_benchmark("refcoco-testA")
    questions = benchmark.load(tmp_path, LoadOptions())
    assert benchmark.prompt(questions[0].row, 1, LoadOptions()) == [
        0,
        "Please provide the bounding box coordinate of the region this sentence describes: the cup.",
    ]
    outcome = benchmark.outcome(predict([questions[0].row] * 2, ["[0.0, 0.25, 1.0, 0.75]", "[0, 0, 1, 1]"]), Scoring())
    assert [verdict.credit for verdict in outcome.verdicts] == [1, 1]
    outcome = benchmark.outcome(predict([questions[0].row] * 2, ["nowhere", "[0.5, 0.5, 0.4, 0.4]"]), Scoring())
    assert [(verdict.credit, verdict.resolved) for verdict in outcome.verdicts] == [(0, False), (0, True)]
    columns = {
        "image": [parquet_image((50, 100))],
        "question_id": ["7"],
        "answer": [["a cup", "cup"]],
        "bbox": [[10.0, 5, 20, 10]],
    }
    write_parquet(tmp_path / "RefCOCO/data/testB-00000-of-00001.parquet", columns)
    questions = find_benchmark("refcoco-testB").load(tmp_path, LoadOptions())
    assert [questions[index].row["bbox"] for index in range(2)] == [[10.0, 5.0, 30.0, 15.0]] * 2


def test_an_invalid_box_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "1.png").write_bytes(image_bytes(size=(50, 100)))
    line = {"image": "1.png", "sent": "the cup", "bbox": [50, 10, 20, 30]}
    (tmp_path / "refcocog_val.jsonl").write_text(json.dumps(line) + "\n")
    with pytest.raises(ValueError, match=r"bbox must be \[x0, y0, x1, y1\] with x0 < x1"):
        find_benchmark("refcocog-val").load(tmp_path, LoadOptions())
    line.update(bbox=[1, 1, 5, 5], width=50, height=100)
    (tmp_path / "refcocog_val.jsonl").write_text(json.dumps(line) + "\n")
    with pytest.raises(ValueError, match=r"the file says 50 x 100 pixels, the image has 100 x 50"):
        find_benchmark("refcocog-val").load(tmp_path, LoadOptions())
