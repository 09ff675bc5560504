"""RefCOCO: boxes from JSONL and from the hub."""

import json
from pathlib import Path

import pytest
from kit_files import image_bytes, parquet_image, predict, write_parquet
from PIL import Image

from convllava.eval import LoadOptions, Prediction, Scoring, find_benchmark


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


def test_a_photo_that_is_stored_lying_down_is_scored_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # stored 192 x 64, shown 64 x 192
    Image.new("RGB", (192, 64), "red").save(tmp_path / "1.jpg", exif=exif)
    line = {"image": "1.jpg", "sent": "the cup", "bbox": [0, 0, 64, 96], "width": 64, "height": 192}
    (tmp_path / "refcoco_val.jsonl").write_text(json.dumps(line) + "\n")
    benchmark = find_benchmark("refcoco-val")
    questions = benchmark.load(tmp_path, LoadOptions())
    assert questions.image_sizes(0) == [(192, 64)]
    outcome = benchmark.outcome(predict([questions[0].row], ["[0.333, 0.0, 0.667, 0.5]"]), Scoring())
    assert outcome.value == 100


@pytest.mark.parametrize("recorded", [{"width": 100, "height": 50}, {}])
def test_a_damaged_image_is_an_error_of_its_expression(tmp_path: Path, recorded: dict[str, int]) -> None:
    (tmp_path / "1.png").write_bytes(b"no image")
    line = {"image": "1.png", "sent": "the cup", "bbox": [0, 0, 100, 50], **recorded}
    (tmp_path / "refcoco_val.jsonl").write_text(json.dumps(line) + "\n")
    benchmark = find_benchmark("refcoco-val")
    questions = benchmark.load(tmp_path, LoadOptions())
    assert any("1 images of refcoco_val.jsonl cannot be read" in warning for warning in questions.warnings)
    failed = [Prediction("0", questions[0].row, "", error="is damaged")]
    assert benchmark.outcome(failed, Scoring()).value == 0


def test_expressions_about_one_image_share_its_name(tmp_path: Path) -> None:
    dogs = {"question_id": "1", "bbox": [10.0, 5, 20, 10], "image": parquet_image((50, 100))}
    rows = [{**dogs, "answer": ["a dog", "dog"]}, {**dogs, "answer": ["the cat"]}]
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    write_parquet(tmp_path / "RefCOCO/data/testB-00000-of-00001.parquet", columns)
    questions = find_benchmark("refcoco-testB").load(tmp_path, LoadOptions())
    assert len({questions[index].images[0].name for index in range(len(questions))}) == 1
    assert len(questions) == 3
