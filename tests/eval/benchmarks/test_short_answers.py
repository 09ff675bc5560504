"""TextVQA and DocVQA: scores of short answers."""

from typing import Any

import pytest
from kit_files import predict

from convllava.eval import Prediction, Scoring, find_benchmark
from convllava.eval.adapters.vlmevalkit_scoring import kit_outcome


def value(name: str, rows: list[dict[str, Any]], predictions: list[str]) -> float:
    return find_benchmark(name).outcome(predict(rows, predictions), Scoring()).value


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


def test_pages_of_one_document_are_drawn_together() -> None:
    """The hub names the document of a page; VLMEvalKit's TSV does not."""
    benchmark = find_benchmark("docvqa")
    hub = {"questionId": "1", "question": "?", "answers": ["x"], "ucsf_document_id": "ffdw0217"}
    row = benchmark.from_hub(hub)
    assert row is not None
    page = Prediction("1", row, "x", images=("a1",))
    assert benchmark.shared_by(page) == {"images": ("a1",), "documents": ["ffdw0217"]}
    assert benchmark.shared_by(Prediction("1", {"answer": "x"}, "x", images=("a1",))) == {"images": ("a1",)}
