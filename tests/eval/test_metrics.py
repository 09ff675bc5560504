"""Edit distance, exact match and grounding: cases computed by hand, and properties."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convllava.eval.metrics import character_error_rate, edit_distance, exact_match, grounding_hit

TEXT = st.text(alphabet="abc ", max_size=8)


@pytest.mark.parametrize(
    ("prediction", "truth", "distance"),
    [("", "", 0), ("", "abc", 3), ("abc", "", 3), ("kitten", "sitting", 3), ("12.50", "12.60", 1), ("ab", "ba", 2)],
)
def test_edit_distance(prediction: str, truth: str, distance: int) -> None:
    assert edit_distance(prediction, truth) == distance


@given(TEXT, TEXT, TEXT)
def test_edit_distance_is_a_distance(a: str, b: str, c: str) -> None:
    assert edit_distance(a, b) == edit_distance(b, a)
    assert (edit_distance(a, b) == 0) == (a == b)
    assert edit_distance(a, c) <= edit_distance(a, b) + edit_distance(b, c)
    assert abs(len(a) - len(b)) <= edit_distance(a, b) <= max(len(a), len(b))


def test_error_rate_counts_characters_not_lines() -> None:
    assert character_error_rate([("", "a"), ("bbbbbbbbb", "bbbbbbbbb")]) == pytest.approx(0.1)


def test_exact_match_ignores_case_blanks_and_a_period() -> None:
    assert exact_match(" Red.", "red")
    assert not exact_match("reddish", "red")
    assert not exact_match("1250", "12.50")


def test_grounding_hit_uses_the_padded_square() -> None:
    truth = (0, 0, 100, 50)  # the whole of an image 100 wide and 50 high: the middle half of its square
    assert grounding_hit("[0.00, 0.25, 1.00, 0.75]", truth, 100, 50)
    assert not grounding_hit("[0.00, 0.00, 1.00, 1.00]", truth, 100, 50, threshold=0.51)
    assert not grounding_hit("nowhere", truth, 100, 50)
