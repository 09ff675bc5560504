"""MME: points of subtasks and images."""

from kit_files import predict

from convllava.eval import Scoring, find_benchmark


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
