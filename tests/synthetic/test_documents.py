"""Documents: sums are correct, boxes contain their text, answers are on the page."""

import random
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convllava.geometry import box_from_square, box_iou, find_boxes
from convllava.synthetic import Example, SyntheticDataset
from convllava.synthetic.fonts import faces
from convllava.synthetic.layout_rows import LayoutContext
from convllava.synthetic.layouts import LAYOUTS
from convllava.synthetic.typesetting import Cell, Fact, Page, Row, Type, typeset

TYPE = Type(faces("train")[0], 16, 8)


def draw(count: int, **options: Any) -> list[Example]:
    dataset = SyntheticDataset("document", count=count, **options)
    return [dataset.example(index) for index in range(count)]


def page_of(example: Example) -> Page:
    page = example.facts["page"]
    assert isinstance(page, Page)
    return page


@pytest.mark.parametrize("split", ["train", "heldout"])
def test_transcript_gives_all_lines(split: str) -> None:
    for example in draw(60, split=split, tasks=["transcribe"]):
        assert example.answer == "\n".join(page_of(example).lines)
        assert all(line == line.strip() and line for line in page_of(example).lines)


def test_the_answer_is_on_the_page() -> None:
    for example in draw(60, tasks=["field"]):
        assert any(example.answer in line for line in page_of(example).lines)
        assert example.answer in {field.text for field in page_of(example).fields}


def test_questions_of_a_page_are_unambiguous() -> None:
    for example in draw(80):
        phrases = [field.fact.phrase for field in page_of(example).fields]
        assert len(phrases) == len(set(phrases)), page_of(example).lines


def test_boxes_hold_their_ink() -> None:
    """A field's box has ink at each of its edges, and none just outside on its line."""
    for example in draw(60, noise=0):
        dark = np.asarray(page_of(example).mask) > 0
        height, width = dark.shape
        for field in page_of(example).fields:
            x0, y0, x1, y1 = (int(value) for value in field.box)
            assert 0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height, field
            inside = dark[y0:y1, x0:x1]
            assert inside[:, :3].any() and inside[:, -3:].any() and inside[:3].any() and inside[-3:].any()
            assert not dark[y0:y1, x1 + 1 : x1 + 3].any(), "the next cell is a space away"


def test_located_box_is_that_of_a_field() -> None:
    for example in draw(60, tasks=["locate"]):
        height, width = example.image.size[::-1]
        (fractions,) = find_boxes(example.answer)
        box = box_from_square(fractions, width, height)
        best = max(box_iou(box, field.box) for field in page_of(example).fields)
        assert best > 0.5


def test_ink_keeps_a_margin() -> None:
    for example in draw(80, noise=0):
        dark = np.asarray(page_of(example).mask) > 0
        assert not (dark[0].any() or dark[-1].any() or dark[:, 0].any() or dark[:, -1].any())


def test_sums_of_a_receipt_add_up() -> None:
    checked = 0
    for example in draw(80, layouts=["receipt"], tasks=["transcribe"]):
        values = {field.fact.phrase: number(field.text) for field in page_of(example).fields if number(field.text)}
        prices = sum(value for phrase, value in values.items() if phrase.startswith("the price of "))
        assert values.get("the subtotal", values["the total"]) == pytest.approx(prices)
        assert values["the total"] == pytest.approx(prices + values.get("the tax", 0))
        if "the change" in values:
            assert values["the amount paid"] - values["the change"] == pytest.approx(values["the total"])
            checked += 1
    assert checked > 2


def number(text: str) -> float:
    match = re.fullmatch(r"[$£€]?(\d+\.\d\d)(?: €)?", text)
    return float(match[1]) if match else 0.0


@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_layout_is_drawn_on_request(layout: str) -> None:
    rng = random.Random(0)
    assert all(LAYOUTS[layout](rng, LayoutContext("train", rows)) for rows in range(3, 30))
    pages = [page_of(example) for example in draw(15, layouts=[layout])]
    assert sum(page.fields[0].fact.phrase == "the number" and len(page.lines) == 1 for page in pages) <= 1


@given(
    index=st.integers(0, 999),
    height=st.integers(96, 400),
    width=st.integers(96, 400),
    split=st.sampled_from(["train", "heldout"]),
)
@settings(max_examples=40, deadline=None)
def test_any_size_gives_a_page(index: int, height: int, width: int, split: str) -> None:
    dataset = SyntheticDataset("document", count=1000, split=split, sizes=[[height, width]], font_size=[10, 16])
    example = dataset.example(index)
    assert example.image.size == (width, height)
    assert page_of(example).fields and example.answer


def test_typeset_returns_none_when_rows_do_not_fit() -> None:
    word = Row((Cell("incomprehensibilities"),))
    assert typeset([word] * 3, (100, 300), TYPE) is not None
    assert typeset([word] * 9, (100, 300), TYPE) is None
    assert typeset([word], (100, 100), TYPE) is None
    apart = Row((Cell("incomprehensible"), Cell("1234567.00")), "spread")
    assert typeset([apart], (100, 220), TYPE) is None


@pytest.mark.parametrize("align", ["left", "center", "spread", "tab"])
def test_alignments_place_cells_in_order(align: str) -> None:
    facts = [Fact(f"the {name}") for name in ("first", "second", "third")]
    row = Row((Cell("Milk", facts[0]), Cell("2", facts[1]), Cell("4.10", facts[2])), align)
    page = typeset([row, Row(rule=True), row], (120, 300), TYPE)
    assert page is not None
    assert page.lines == ("Milk 2 4.10", "Milk 2 4.10")
    first, second, third, below = (page.fields[index].box for index in range(4))
    assert first[2] < second[0] and second[2] < third[0]
    assert below[1] > first[3]
    assert (third[2] >= 290) == (align == "spread")
