"""MM-Vet: points of a judge."""

import pytest
from kit_files import predict

from convllava.eval import Prediction, Scoring, find_benchmark


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
