"""The text at each position of an image: every mark once, at the right position."""

import string

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convllava.geometry import Box, box_from_square
from convllava.synthetic import POSITION_END, SyntheticDataset
from convllava.synthetic.positions import Mark, position_of, spell_positions

SIZE = (128, 192)
PAGES = {"sizes": [[192, 192], [192, 256]], "font_size": [24, 32], "tasks": ["transcribe"]}


def _without_spaces(text: str) -> list[str]:
    return sorted("".join(text.split()))


def test_two_lines_share_a_position_and_the_next_is_empty() -> None:
    upper, lower = [Mark(letter, 20, 10) for letter in "ab"], [Mark("c", 20, 40), Mark("d", 100, 70)]
    assert spell_positions([upper, lower], SIZE, 64) == "ab\nc\t\t\t\td\t"


@given(st.floats(-20, 220), st.floats(-20, 160))
def test_every_mark_has_a_position(x: float, y: float) -> None:
    row, column = position_of(Mark("a", x, y), SIZE, 64)
    assert 0 <= row < 2 and 0 <= column < 3
    texts = spell_positions([[Mark("a", x, y)]], SIZE, 64).split(POSITION_END)
    assert texts[row * 3 + column] == "a" and "".join(texts) == "a"


@pytest.mark.parametrize(("kind", "options"), [("line", {"sizes": [[64, 192]], "rows": 1}), ("document", PAGES)])
def test_positions_together_hold_the_text_of_the_image(kind: str, options: dict[str, object]) -> None:
    dataset = SyntheticDataset(kind, count=20, seed=5, **options)
    spelled_dataset = SyntheticDataset(kind, count=20, seed=5, stride=64, **options)
    for index in range(20):
        image, spelled = spelled_dataset[index].images[0], spelled_dataset[index].messages[-1]["content"][0]["text"]
        assert image.tobytes() == dataset[index].images[0].tobytes()
        assert len(spelled.split(POSITION_END)) == (image.width // 64) * (image.height // 64)
        assert _without_spaces(spelled) == _without_spaces(dataset[index].messages[-1]["content"][0]["text"])


def test_a_position_gives_the_box_of_its_object() -> None:
    scenes = SyntheticDataset("scene", count=30, seed=1, sizes=[[128, 192]], tasks=["caption"], stride=64)
    for index in range(30):
        example = scenes.example(index)
        texts = example.answer.split(POSITION_END)
        marks = [(position, text) for position, spelled in enumerate(texts) for text in spelled.split("\n") if text]
        assert len(marks) == len(example.facts["scene"].objects)
        for item in example.facts["scene"].objects:
            position = int(item.center[1] // 64) * 3 + int(item.center[0] // 64)
            boxes = [_box_of_letters(text) for where, text in marks if where == position and text.endswith(item.name)]
            assert min(np.abs(np.subtract(box, item.box)).max() for box in boxes) <= 192 / 52


def _box_of_letters(text: str) -> Box:
    """Return the box, in pixels of an image of 128x192, of the four letters before a name."""
    letters = text.split()[0]
    x0, y0, x1, y1 = ((string.ascii_letters.swapcase().index(letter) + 0.5) / 52 for letter in letters)
    return box_from_square((x0, y0, x1, y1), 192, 128)


def test_a_size_that_the_stride_does_not_divide_is_rejected() -> None:
    with pytest.raises(ValueError, match=r"size 64x100 is not a multiple of stride 64"):
        SyntheticDataset("line", count=1, sizes=[[64, 100]], stride=64)
