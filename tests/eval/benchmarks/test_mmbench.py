"""MMBench: circular evaluation."""

from pathlib import Path

from kit_files import image_text, predict, write_tsv

from convllava.eval import LoadOptions, Prediction, Scoring, find_benchmark


def test_mmbench_counts_questions_with_all_rotations_correct(tmp_path: Path) -> None:
    shown = {"hint": "", "category": "c", "l2-category": "logic_reasoning", "split": "dev"}
    rows = [
        {"index": 3, "image": image_text(), "question": "Which?", "A": "cat", "B": "dog", "answer": "A", **shown},
        {"index": 1000003, "image": "3", "question": "Which?", "A": "dog", "B": "cat", "answer": "B", **shown},
        {"index": 4, "image": "3", "question": "Which?", "A": "cat", "B": "dog", "answer": "A", **shown},
    ]
    write_tsv(tmp_path / "MMBench_DEV_EN.tsv", rows)
    questions = find_benchmark("mmbench").load(tmp_path, LoadOptions())
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
