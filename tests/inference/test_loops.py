"""Loops are found soon; what honest answers repeat is none."""

import time
from collections.abc import Iterable

import pytest

from convllava.inference.loops import MAX_PERIOD, LoopDetector


def loop_at(text: str | list[str]) -> int | None:
    """Return after how many tokens (one a character, or those given) a loop is found."""
    words = sorted(set(text))
    detector = LoopDetector(lambda tokens: any(any(map(str.isalpha, words[token])) for token in tokens))
    for number, word in enumerate(text, start=1):
        if detector.push(words.index(word)):
            return number
    return None


@pytest.mark.parametrize(
    "text",
    [
        "0 " * 150,  # a row of zeros
        "\n".join(["0 0 0 0 0 0 0 0 0 0"] * 40),  # a table of zeros
        "\n".join(["| 0.00 | 0.00 | 0.00 |"] * 40),
        "|---" * 40 + "|",
        "Introduction " + "." * 150 + " 3\n" + "Methods " + "." * 152 + " 14\n",  # a table of contents
        ("_" * 120 + "\n") * 20,  # a form to fill in
        "=" * 200 + "\n",
        " " * 200,
        "\n".join(["N/A | N/A | N/A | N/A"] * 20),
        "yes no " * 18,
        "ha" * 40,
        "All work and no play makes Jack a dull boy.\n" * 20,
        "\n".join(f"{number} apples" for number in range(200)),
        "0" * 300,
    ],
)
def test_honest_texts_are_not_cut(text: str) -> None:
    assert loop_at(text) is None


@pytest.mark.parametrize(
    ("block", "most"), [("8 Bhooal ", 216), ("a", 128), ("the ", 128), ("0", 384), ("0 ", 384), ("x" + "y" * 99, 2400)]
)
def test_loops_are_found(block: str, most: int) -> None:
    start = "Total 810042: "
    found = loop_at(start + block * 3000)
    assert found is not None and found <= len(start) + most


def test_a_loop_with_a_change_in_between_begins_anew() -> None:
    assert loop_at(("the " * 31 + "!") * 3) is None


def test_a_passage_longer_than_the_longest_period_is_no_loop() -> None:
    words = [f"w{number}" for number in range(MAX_PERIOD + 1)]
    assert loop_at(words * 30) is None
    assert loop_at(words[:MAX_PERIOD] * 30) == 24 * MAX_PERIOD


def test_time_is_linear() -> None:
    def seconds(tokens: Iterable[int]) -> float:
        detector = LoopDetector(lambda _: False)  # the loop goes on, and letters are asked for each time
        start = time.perf_counter()
        for token in tokens:
            detector.push(token)
        return time.perf_counter() - start

    seconds(range(100))
    assert seconds([1] * 8000) < 40 * max(seconds([1] * 1000), 1e-3)
