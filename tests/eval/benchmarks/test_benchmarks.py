"""Files, prompts and figures of each benchmark."""

import json
from pathlib import Path
from typing import Any

import pytest
from kit_files import image_bytes, image_text, write_tsv

from convllava.eval import LoadOptions, Prediction, Scoring
from convllava.eval.adapters.vlmevalkit_scoring import kit_outcome
from convllava.eval.benchmarks import ALL, find_benchmark
from convllava.eval.benchmarks.synthetic import SYNTHETIC

PLAIN = LoadOptions()


def predict(rows: list[dict[str, Any]], predictions: list[str], **more: Any) -> list[Prediction]:
    return [
        Prediction(str(number), row, prediction, **more)
        for number, (row, prediction) in enumerate(zip(rows, predictions, strict=True))
    ]


def value(name: str, rows: list[dict[str, Any]], predictions: list[str]) -> float:
    return find_benchmark(name).outcome(predict(rows, predictions), Scoring()).value


def write_parquet(path: Path, columns: dict[str, list[Any]]) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pyarrow.table(columns), path)


def cell(size: tuple[int, int] = (64, 96)) -> dict[str, Any]:
    return {"bytes": image_bytes(size=size), "path": None}


def test_all_seventeen_and_the_synthetic_ones_are_there() -> None:
    of_this_package = [own for own in ALL.values() if type(own).__module__.startswith("convllava.")]
    assert len(of_this_package) == 9 + 8 + len(SYNTHETIC)
    assert find_benchmark("TextVQA_VAL") is find_benchmark("textvqa")


@pytest.mark.parametrize("name", ["mme", "mmbench", "mmmu", "refcoco-testA"])
def test_the_message_for_missing_data_has_their_address(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no data of .* below .*Download .*--data"):
        find_benchmark(name).load(tmp_path, PLAIN)


MCQ = {"question": "Which?", "A": "cat", "B": "dog", "answer": "B", "category": "animals"}


def test_choices(tmp_path: Path) -> None:
    rows = [{"index": n, "image": image_text(), **MCQ} for n in range(3)]
    write_tsv(tmp_path / "SEEDBench_IMG.tsv", rows)
    questions = find_benchmark("seedbench").load(tmp_path, PLAIN)
    loaded = [questions[index].row for index in range(3)]
    outcome = find_benchmark("seedbench").outcome(predict(loaded, ["B", "a dog", "neither"]), Scoring())
    assert outcome.value == pytest.approx(200 / 3)
    assert outcome.per_category == {"animals": pytest.approx(200 / 3)}
    assert [verdict.resolved for verdict in outcome.verdicts] == [True, True, False]
    assert any("md5" in warning for warning in questions.warnings)


def test_plain_choice_tables(shared_dir: Path) -> None:
    names = {"SEEDBench_IMG": "seedbench", "RealWorldQA": "realworldqa", "MMMU_DEV_VAL": "mmmu"}
    cases = json.loads((shared_dir / "eval/vectors/mcq_vanilla.json").read_text(encoding="utf-8"))["cases"]
    for case in cases:
        rows = [dict(zip(case["columns"], row, strict=True)) for row in case["rows"]]
        benchmark = find_benchmark(names[case["dataset"]])
        for profile, column in (("paper", "paper_era"), ("current", "current")):
            judged = predict(rows, [row["prediction"] or "" for row in rows])
            outcome = kit_outcome(benchmark, judged, Scoring(profile))  # type: ignore[arg-type]
            expected = case["expected"]["exact_matching"][column]
            hits = {str(row["index"]): int(v.credit) for row, v in zip(rows, outcome.verdicts, strict=True)}
            assert hits == expected["hit"], (case["id"], profile)
            for split, report in expected["report"].items():
                own = [answer for answer in judged if answer.row.get("split", split) == split]
                within = kit_outcome(benchmark, own, Scoring(profile))  # type: ignore[arg-type]
                assert within.value == pytest.approx(100 * report["Overall"]), (case["id"], profile, split)


def test_mmbench_counts_questions_with_all_rotations_correct(tmp_path: Path) -> None:
    shown = {"hint": "", "category": "c", "l2-category": "logic_reasoning", "split": "dev"}
    rows = [
        {"index": 3, "image": image_text(), "question": "Which?", "A": "cat", "B": "dog", "answer": "A", **shown},
        {"index": 1000003, "image": "3", "question": "Which?", "A": "dog", "B": "cat", "answer": "B", **shown},
        {"index": 4, "image": "3", "question": "Which?", "A": "cat", "B": "dog", "answer": "A", **shown},
    ]
    write_tsv(tmp_path / "MMBench_DEV_EN.tsv", rows)
    questions = find_benchmark("mmbench").load(tmp_path, PLAIN)
    loaded = [questions[index].row for index in range(3)]
    assert loaded[0]["hint"] is None
    benchmark = find_benchmark("mmbench")
    outcome = benchmark.outcome(predict(loaded, ["A", "A", "A"]), Scoring())
    assert outcome.value == 50
    assert outcome.units == ["3", "4"]
    assert outcome.per_category == {"c": 50, "l2: logic_reasoning": 50}
    judged = [Prediction("3", loaded[0], "the feline", judgment="A"), *predict(loaded[1:], ["B", "A"])]
    assert benchmark.outcome(judged, Scoring()).value == 100
    failed = [Prediction("3", loaded[0], "", error="too long"), *predict(loaded[1:], ["B", "A"])]
    assert benchmark.outcome(failed, Scoring()).value == 50


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
    questions = benchmark.load(tmp_path, PLAIN)
    assert len(questions) == 2
    sample = questions[0]
    assert benchmark.prompt(sample.row, 2, PLAIN)[:4] == ["", 1, " or ", 0]
    loaded = [questions[0].row, questions[1].row]
    outcome = benchmark.outcome(predict(loaded, ["A", "about 12 of them"]), Scoring())
    assert outcome.value == 100
    rows[0]["question"] = "<image 5>"
    write_tsv(tmp_path / "MMMU_DEV_VAL.tsv", rows)
    with pytest.raises(ValueError, match=r"MMMU_DEV_VAL.tsv, index 1: the text mentions <image 5>"):
        benchmark.load(tmp_path, PLAIN)


def test_mmmu_from_the_hub(tmp_path: Path) -> None:
    write_parquet(
        tmp_path / "MMMU/data/validation-00000-of-00001.parquet",
        {
            "id": ["validation_Art_Theory_1"],
            "question": ["What is <image 1>?"],
            "options": ["['a', 'b']"],
            "answer": ["B"],
            "image_1": [cell()],
            "image_2": [{"bytes": None, "path": None}],
        },
    )
    row = find_benchmark("mmmu").load(tmp_path, PLAIN)[0].row
    assert (row["A"], row["B"], row["category"], row["l2-category"]) == ("a", "b", "Art_Theory", "Art & Design")


LETTER = "Please answer directly with only the letter of the correct option and nothing else."
WORD = "Please answer directly with a single word or number."


def realworldqa(folder: Path, questions: list[str], answers: list[str]) -> Any:
    write_parquet(
        folder / "RealWorldQA/data/test-00000-of-00001.parquet",
        {"image": [cell()] * len(questions), "question": questions, "answer": answers},
    )
    return find_benchmark("realworldqa").load(folder, PLAIN)


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
    assert benchmark.prompt(rows[0], 1, PLAIN)[1] == (
        "What can we do?\nA. Straight\nB. Turn right. Slowly\nAnswer with the option's letter from the given choices "
        "directly."
    )
    assert benchmark.prompt(rows[1], 1, PLAIN)[1] == "How many cars are there?\nAnswer the question directly."
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


def test_mme_counts_images() -> None:
    rows = [
        {"category": "count", "image_path": "1", "answer": "Yes"},
        {"category": "count", "image_path": "1", "answer": "No"},
        {"category": "count", "image_path": "2", "answer": "Yes"},
        {"category": "count", "image_path": "2", "answer": "No"},
        {"category": "code_reasoning", "image_path": "3", "answer": "Yes"},
        {"category": "code_reasoning", "image_path": "3", "answer": "No"},
    ]
    outcome = find_benchmark("mme").outcome(predict(rows, ["Yes", "No", "Yes", "Yes", "yes", "no"]), Scoring())
    assert outcome.value == 75 + 50
    assert outcome.figures["cognition"] == 200
    assert len(outcome.units) == 3
    assert outcome.value == outcome.figures["perception"]


def test_pope_is_pooled_f1() -> None:
    rows = [
        {"category": "random,popular", "answer": "Yes"},
        {"category": "random", "answer": "No"},
        {"category": "popular", "answer": "No"},
    ]
    outcome = find_benchmark("pope").outcome(predict(rows, ["Yes", "Yes", "No"]), Scoring())
    assert outcome.value == pytest.approx(outcome.figures["f1"]) == pytest.approx(80)
    assert outcome.per_category == {"random": pytest.approx(200 / 3), "popular": 100}


def test_short_answers() -> None:
    text = [{"question": "?", "answer": repr(["red"] * 4 + ["blue"] * 6)}]
    assert value("textvqa", text, ["Red."]) == 100
    assert value("textvqa", text, [""]) == 0
    page = [{"question": "?", "answer": "['itc limited']"}]
    assert value("docvqa", page, ["ITC limite"]) == pytest.approx(1000 / 11)
    empty = [Prediction("0", {"question": "?", "answer": "['']"}, "", error="too long")]
    assert find_benchmark("docvqa").outcome(empty, Scoring()).value == 0


def test_empty_answers_are_read_as_nan_only_by_the_kit() -> None:
    rows = [{"question": "?", "answer": "['nan']"}]
    assert value("docvqa", rows, [""]) == 0
    assert kit_outcome(find_benchmark("docvqa"), predict(rows, [""]), Scoring()).value == 100


def test_mmvet_needs_points() -> None:
    rows = [
        {"question": "?", "answer": "x", "category": "rec,ocr"},
        {"question": "?", "answer": "x", "category": "rec"},
    ]
    judged = [Prediction("0", rows[0], "p", judgment=0.5), Prediction("1", rows[1], "p", judgment=1.0)]
    outcome = find_benchmark("mmvet").outcome(judged, Scoring())
    assert outcome.value == 75
    assert outcome.per_category == {"rec": 75, "ocr": 50}
    with pytest.raises(ValueError, match="no points without a judge"):
        find_benchmark("mmvet").outcome(predict(rows, ["p", "p"]), Scoring())


def test_grounding_from_jsonl_and_from_the_hub(tmp_path: Path) -> None:
    (tmp_path / "coco").mkdir()
    (tmp_path / "coco" / "1.png").write_bytes(image_bytes(size=(50, 100)))
    line = {"image": "coco/1.png", "sent": "the cup", "bbox": [0, 0, 100, 50], "width": 100, "height": 50}
    (tmp_path / "refcoco_testA.jsonl").write_text(json.dumps(line) + "\n")
    benchmark = find_benchmark("refcoco-testA")
    questions = benchmark.load(tmp_path, PLAIN)
    assert benchmark.prompt(questions[0].row, 1, PLAIN) == [
        0,
        "Please provide the bounding box coordinate of the region this sentence describes: the cup.",
    ]
    outcome = benchmark.outcome(predict([questions[0].row] * 2, ["[0.0, 0.25, 1.0, 0.75]", "[0, 0, 1, 1]"]), Scoring())
    assert [verdict.credit for verdict in outcome.verdicts] == [1, 1]
    outcome = benchmark.outcome(predict([questions[0].row] * 2, ["nowhere", "[0.5, 0.5, 0.4, 0.4]"]), Scoring())
    assert [(verdict.credit, verdict.resolved) for verdict in outcome.verdicts] == [(0, False), (0, True)]
    columns = {
        "image": [cell((50, 100))],
        "question_id": ["7"],
        "answer": [["a cup", "cup"]],
        "bbox": [[10.0, 5, 20, 10]],
    }
    write_parquet(tmp_path / "RefCOCO/data/testB-00000-of-00001.parquet", columns)
    questions = find_benchmark("refcoco-testB").load(tmp_path, PLAIN)
    assert [questions[index].row["bbox"] for index in range(2)] == [[10.0, 5.0, 30.0, 15.0]] * 2


def test_an_invalid_box_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "1.png").write_bytes(image_bytes(size=(50, 100)))
    line = {"image": "1.png", "sent": "the cup", "bbox": [50, 10, 20, 30]}
    (tmp_path / "refcocog_val.jsonl").write_text(json.dumps(line) + "\n")
    with pytest.raises(ValueError, match=r"bbox must be \[x0, y0, x1, y1\] with x0 < x1"):
        find_benchmark("refcocog-val").load(tmp_path, PLAIN)
    line.update(bbox=[1, 1, 5, 5], width=50, height=100)
    (tmp_path / "refcocog_val.jsonl").write_text(json.dumps(line) + "\n")
    with pytest.raises(ValueError, match=r"the file says 50 x 100 pixels, the image has 100 x 50"):
        find_benchmark("refcocog-val").load(tmp_path, PLAIN)
