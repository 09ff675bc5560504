"""ChartQA, InfoVQA, OCRBench and OmniDocBench: scores computed by hand from their published rules."""

import json
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kit_files import predict
from PIL import Image

from convllava.eval import LoadOptions, Scoring, find_benchmark
from convllava.eval.benchmarks.chartqa import relaxed_match
from convllava.eval.benchmarks.ocrbench import contains_answer
from convllava.eval.benchmarks.omnidocbench import assignment, blocks_of_answer, blocks_of_page, page_distances
from convllava.eval.metrics import edit_distance


@pytest.mark.parametrize(
    ("prediction", "answer", "is_correct"),
    [
        ("10.5", "10", True),  # exactly 5 percent
        ("10.51", "10", False),
        ("9.5", "10", True),
        ("-10.2", "-10", True),
        ("10", "-10", False),
        ("12%", "12%", True),
        ("12", "12%", False),  # 0.12 and 12
        ("0.12", "12%", True),
        ("0", "0", True),  # as texts: 0 has no 5 percent
        ("0.0", "0", False),
        ("Germany", "germany", True),
        ("Germany.", "Germany", False),
        ("10", "ten", False),
        ("1,000", "1000", False),  # no number for Python
        ("1000 people", "1000", False),
        ("", "5", False),
    ],
)
def test_relaxed_match(prediction: str, answer: str, is_correct: bool) -> None:
    assert relaxed_match(prediction, answer) is is_correct


def test_chartqa_by_split() -> None:
    rows = [
        {"question": "?", "answer": "100", "split": "test_human"},
        {"question": "?", "answer": "['Yes', 'No']", "split": "test_augmented"},
        {"question": "?", "answer": "2", "split": "test_augmented"},
    ]
    outcome = find_benchmark("chartqa").outcome(predict(rows, [" 96\n", "no", "3"]), Scoring())
    assert outcome.value == pytest.approx(200 / 3)
    assert outcome.per_category == {"test_human": 100, "test_augmented": 50}


@pytest.mark.parametrize(
    ("prediction", "answers", "is_formula", "is_correct"),
    [
        ("The word is CENTER.", ["center"], False, True),
        ("cente", ["center"], False, False),
        ("a\nb", ["A b"], False, True),
        ("x", ["y", " X "], False, True),
        ("\\frac { 1 } { 2 }", ["\\frac{1}{2}"], True, True),
        ("\\FRAC{1}{2}", ["\\frac{1}{2}"], True, False),
        ("ab", ["a b"], False, False),
    ],
)
def test_an_answer_of_ocrbench_contains_the_reference(
    prediction: str, answers: list[str], is_formula: bool, is_correct: bool
) -> None:
    assert contains_answer(prediction, answers, is_formula=is_formula) is is_correct


def test_ocrbench_sums_text_recognition() -> None:
    names = ["Regular Text Recognition", "Digit String Recognition", "Doc-oriented VQA"]
    names.append("Handwritten Mathematical Expression Recognition")
    rows = [{"question": "?", "answer": "['12']", "category": name} for name in names]
    outcome = find_benchmark("ocrbench").outcome(predict(rows, ["12", "no", "is 12", "1 2"]), Scoring())
    assert (outcome.value, outcome.figures) == (75, {"final_score": 3})
    assert outcome.per_category["Text Recognition"] == 50
    assert outcome.per_category[names[3]] == 100


def test_infovqa_is_scored_as_docvqa() -> None:
    rows = [{"question": "?", "answer": "['itc limited']"}]
    outcome = find_benchmark("infovqa").outcome(predict(rows, ["ITC limite"]), Scoring())
    assert outcome.value == pytest.approx(1000 / 11)


def _page(*blocks: tuple[str, str, int], cut: tuple[tuple[int, int], ...] = ()) -> dict[str, Any]:
    elements = [
        {"anno_id": number, "category_type": kind, "text": text, "order": order}
        for number, (kind, text, order) in enumerate(blocks)
    ]
    relations = [
        {"relation_type": "truncated", "source_anno_id": first, "target_anno_id": second} for first, second in cut
    ]
    return {"layout_dets": elements, "extra": {"relation": relations}, "page_info": {"image_path": "a.png"}}


PAGE = _page(("title", "Abc", 1), ("text_block", "Two words", 2), ("text_block", "Last.", 3))


@pytest.mark.parametrize(
    ("prediction", "text", "order"),
    [
        ("# Abc\n\nTwo words\n\nLast.", 0, 0),
        ("Abc\nTwo words\nLast.", 0, 0),  # single line breaks, where there is no blank line
        ("Last.\n\nAbc\n\nTwo words", 0, 2 / 3),  # 3 1 2: one deletion and one insertion
        ("Abc\n\nTwo words", 4 / 15, 1 / 3),  # Last is missing: 4 of 3 + 8 + 4 characters
        ("Abc\n\nTwo word\n\nLast", 1 / 15, 0),
        ("Abc\n\nTwo words\n\nLast\n\nMore", 4 / 19, 0),  # a block that the page does not have
        ("", 1, 1),
        ("```markdown\nAbc\n\nTwo words\n\n| a | b |\n|---|---|\n\nLast\n\n$$x^2$$\n\n![i](i.png)\n```", 0, 0),
        ("Abc\n\n<table><tr><td>9</td></tr></table>\n\nTwo words\n\nLast", 0, 0),
    ],
)
def test_page_distances(prediction: str, text: float, order: float) -> None:
    assert page_distances(prediction, PAGE) == pytest.approx((text, order))


def test_captions_are_matched_and_not_scored() -> None:
    page = _page(("text_block", "Body", 1), ("header", "Journal", 0), ("figure", "", 2))
    assert page_distances("Journal\n\nBody", page) == pytest.approx((0, 0))
    assert page_distances("Body", page) == pytest.approx((0, 0))
    assert page_distances("Body\n\nUnknown text", page)[0] == 0  # the header is the nearest block left
    assert page_distances("Body\n\nJournal\n\nxy", page)[0] == pytest.approx(2 / 6)


def test_a_cut_paragraph_is_one_block() -> None:
    page = _page(("text_block", "second", 3), ("title", "T", 1), ("text_block", "first ", 2), cut=((2, 0),))
    assert [(block.text, block.order) for block in blocks_of_page(page)] == [("T", 1), ("firstsecond", 2)]


def test_chinese_and_accents_are_letters() -> None:
    assert blocks_of_answer("## \u6807\u9898 \u2014 caf\u00e9_1 *x*") == ["\u6807\u9898caf\u00e9_1x"]


def test_omnidocbench_from_its_json(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    Image.new("RGB", (64, 64)).save(tmp_path / "images" / "a.png")
    (tmp_path / "OmniDocBench.json").write_text(json.dumps([PAGE, _page(("figure", "", 1))]))
    benchmark = find_benchmark("omnidocbench")
    questions = benchmark.load(tmp_path, LoadOptions())
    assert len(questions) == 1  # a page without text is left out
    row = questions[0].row
    outcome = benchmark.outcome(predict([row, row], ["Abc\n\nTwo words", "Abc\n\nTwo words\n\nLast"]), Scoring())
    assert outcome.value == pytest.approx(2 / 15)
    assert outcome.figures == {"reading_order_edit_distance": pytest.approx(1 / 6)}
    assert not benchmark.higher_is_better


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 5), st.integers(0, 3), st.randoms(use_true_random=False))
def test_the_assignment_is_the_least(rows: int, more: int, random: Any) -> None:
    costs = np.array([[random.randint(0, 9) / 10 for _ in range(rows + more)] for _ in range(rows)])
    found = assignment(costs)
    assert len(set(found)) == rows
    least = min(costs[range(rows), list(columns)].sum() for columns in permutations(range(rows + more), rows))
    assert costs[range(rows), found].sum() == pytest.approx(least)


@settings(deadline=None, max_examples=50)
@given(st.text("abc\u00e9\u6f22", max_size=40), st.text("abc\u00e9\u6f22", max_size=40))
def test_the_edit_distance_is_that_of_the_table(first: str, second: str) -> None:
    row = list(range(len(second) + 1))
    for number, one in enumerate(first, start=1):
        above, row = row, [number]
        for column, other in enumerate(second, start=1):
            row.append(min(above[column] + 1, row[-1] + 1, above[column - 1] + (one != other)))
    assert edit_distance(first, second) == row[-1]
    assert edit_distance(list(first), list(second)) == row[-1]
