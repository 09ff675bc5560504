"""Properties of the metrics for any input, and cases computed by hand."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convllava.eval.benchmarks.mmbench import circular_scores
from convllava.eval.benchmarks.mme import mme_scores
from convllava.eval.benchmarks.mmvet import mmvet_scores
from convllava.eval.benchmarks.pope import pope_scores
from convllava.eval.benchmarks.textvqa import normalize_vqa_answer, vqa_accuracy
from convllava.eval.metrics import PROFILES, anls, box_iou, extract_yes_no, grounding_hit, parse_box
from convllava.eval.multiple_choice import extract_choice

PROFILE = st.sampled_from(PROFILES)
ANSWER = st.text(alphabet="ABZab .,()'\n yesno13-[]", max_size=24) | st.text(max_size=12)
CHOICES = st.dictionaries(st.sampled_from("ABCDEFGHI"), st.text(alphabet="abc d", max_size=6), max_size=5)
PIXEL = st.integers(0, 600)


@st.composite
def boxes(draw: Any) -> tuple[int, int, int, int]:
    x0, y0 = draw(PIXEL), draw(PIXEL)
    return x0, y0, x0 + draw(st.integers(1, 600)), y0 + draw(st.integers(1, 600))


@given(ANSWER, CHOICES, PROFILE)
def test_a_choice_is_one_of_the_letters(prediction: str, choices: dict[str, str], profile: Any) -> None:
    found = extract_choice(prediction, choices, profile=profile)
    assert found is None or found == "Z" or found in choices or (profile == "current" and found in "ABCD")


@given(st.sampled_from("ABCD"), st.sampled_from(["{}", "{}.", "({})", " {} ", "{}: because", "{}\n"]), PROFILE)
def test_a_bare_letter_is_the_choice(letter: str, form: str, profile: Any) -> None:
    choices = dict(zip("ABCD", ("one", "two", "three", "four"), strict=True))
    assert extract_choice(form.format(letter), choices, profile=profile) == letter


@given(ANSWER, PROFILE)
def test_yes_or_no_ignores_case(prediction: str, profile: Any) -> None:
    found = extract_yes_no(prediction, profile=profile)
    assert found in ("Yes", "No", "Unknown")
    assert extract_yes_no(prediction.lower(), profile=profile) == found


@given(ANSWER, PROFILE)
def test_normalized_answers_have_single_blanks(text: str, profile: Any) -> None:
    normal = normalize_vqa_answer(text, profile=profile)
    assert normal == " ".join(normal.split())
    assert not set(normal.split()) & {"a", "an", "the", "none", "two"}


@given(st.integers(0, 10), PROFILE)
def test_vqa_accuracy_by_the_number_of_matches(agreeing: int, profile: Any) -> None:
    answers = ["red"] * agreeing + [f"color {number}" for number in range(10 - agreeing)]
    assert vqa_accuracy("Red.", answers, profile=profile) == pytest.approx(min(1.0, 0.3 * agreeing))


@given(ANSWER, st.lists(ANSWER, min_size=1, max_size=3))
def test_anls_is_zero_or_at_least_one_half(prediction: str, answers: list[str]) -> None:
    value = anls(prediction, answers)
    assert value == 0 or 0.5 <= value <= 1
    assert anls(answers[0], answers) == 1
    assert value == anls(prediction, answers[::-1])


@given(boxes(), boxes())
def test_overlap_is_symmetric_and_at_most_one(a: Any, b: Any) -> None:
    assert box_iou(a, b) == pytest.approx(box_iou(b, a), abs=1e-6)
    assert 0 <= box_iou(a, b) <= 1
    assert box_iou(a, a) == 1


@given(boxes(), st.integers(1, 2000), st.integers(1, 2000))
def test_the_true_box_on_the_square_is_a_hit(box: Any, width: int, height: int) -> None:
    side = max(width, height)
    x0, y0, x1, y1 = (value / 1200 * least for value, least in zip(box, (width, height) * 2, strict=True))
    left, top = (side - width) // 2, (side - height) // 2
    written = [(x0 + left) / side, (y0 + top) / side, (x1 + left) / side, (y1 + top) / side]
    assert grounding_hit(str(written), (x0, y0, x1, y1), width, height)


@given(ANSWER | st.text(alphabet="[]0123,.-e nainf", max_size=30))
def test_any_text_is_a_box_or_none(text: str) -> None:
    box = parse_box(text)
    assert box is None or len(box) == 4
    assert isinstance(grounding_hit(text, (0, 0, 10, 10), 20, 10), bool)


def test_unreadable_boxes_and_boxes_without_area() -> None:
    assert parse_box("no box") is None
    assert parse_box("[1, 2, 3]") is None
    assert parse_box("[nan, 1, 2, 3]") is not None
    assert math.isnan(box_iou((0, 0, 0, 0), (0, 0, 0, 0)))
    assert not grounding_hit("[0.5, 0.5, 0.1, 0.1]", (1, 1, 5, 5), 10, 10)


def test_empty_tables_score_zero() -> None:
    assert mme_scores([])["perception"] == 0
    assert pope_scores([])["overall"]["f1"] == 0
    assert circular_scores([])["overall"] == 0
    assert mmvet_scores([])["overall"] == 0


ROTATED = {"category": "c", "answer": "A", "prediction": "A", "choices": {"A": "x", "B": "y"}}


def test_a_rotation_needs_its_question_and_a_unique_index() -> None:
    with pytest.raises(ValueError, match="index 1000007 is a rotation of question 7, which is missing"):
        circular_scores([{"index": 1_000_007, **ROTATED}])
    with pytest.raises(ValueError, match="index 7 occurs twice"):
        circular_scores([{"index": 7, **ROTATED}, {"index": "7", **ROTATED}])


def test_missing_predictions_are_wrong_not_errors() -> None:
    rows = [{"index": 7, **ROTATED, "prediction": None}]
    assert circular_scores(rows)["overall"] == 0
    assert pope_scores([{"category": "random", "answer": "No", "prediction": None}])["overall"]["accuracy"] == 0


def test_an_unknown_profile_is_an_error() -> None:
    with pytest.raises(ValueError, match="profile must be one of paper, current, got 'llava'"):
        extract_choice("A", {"A": "x"}, profile="llava")  # type: ignore[arg-type]
