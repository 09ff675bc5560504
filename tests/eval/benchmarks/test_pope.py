"""POPE: F1 pooled over the splits."""

import pytest
from kit_files import predict

from convllava.eval import Scoring, find_benchmark


def test_pope_is_pooled_f1() -> None:
    rows = [
        {"category": "random,popular", "answer": "Yes"},
        {"category": "random", "answer": "No"},
        {"category": "popular", "answer": "No"},
    ]
    outcome = find_benchmark("pope").outcome(predict(rows, ["Yes", "Yes", "No"]), Scoring())
    assert outcome.value == pytest.approx(outcome.figures["f1"]) == pytest.approx(80)
    assert outcome.per_category == {"random": pytest.approx(200 / 3), "popular": 100}
