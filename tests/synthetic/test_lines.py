"""Text lines: the text is complete, inside the image, and fills it."""

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from convllava.synthetic import Example, SyntheticDataset
from convllava.synthetic.fonts import CHARACTERS


def ink(image: Image.Image) -> tuple[int, int, int, int]:
    """Bounding box of the ink on a clean white page, faint edges of letters included."""
    box = image.convert("L").point([255] * 250 + [0] * 6).getbbox()
    assert box is not None
    return box


def draw(index: int, **options: Any) -> Example:
    return SyntheticDataset("line", count=10_000, **options).example(index)


@given(
    index=st.integers(0, 9999),
    height=st.integers(24, 96),
    width=st.integers(48, 400),
    split=st.sampled_from(["train", "heldout"]),
    rows=st.integers(1, 2),
    content=st.sampled_from(["fields", "characters"]),
)
@settings(max_examples=120, deadline=None)
def test_text_is_inside(index: int, height: int, width: int, split: str, rows: int, content: str) -> None:
    example = draw(index, sizes=[[height, width]], split=split, rows=rows, content=content, noise=0)
    left, top, right, bottom = ink(example.image)
    assert 0 < left < right < width and 0 < top < bottom < height
    lines = example.answer.split("\n")
    assert len(lines) == rows
    assert all(line and line == line.strip() and "  " not in line for line in lines)
    assert set(example.answer) <= set(CHARACTERS) | {"\n"}


def test_clean_lines_are_black_on_white() -> None:
    for index in range(20):
        pixels = np.asarray(draw(index, noise=0).image)
        assert (pixels[0] == 255).all() and (pixels[-1] == 255).all()
        assert pixels.min() < 60
        assert (pixels.max(axis=2) == pixels.min(axis=2)).all()


def test_noisy_lines_stay_readable() -> None:
    """Even at full noise, ink and paper differ by far more than the speckles."""
    for index in range(100):
        grey = np.asarray(draw(index, noise=1.0).image.convert("L"), dtype=float)
        low, high = np.percentile(grey, [1, 99])
        assert high - low > 60, index


def test_lines_fill_the_width() -> None:
    shares = []
    for index in range(200):
        left, _, right, _ = ink(draw(index, noise=0).image)
        shares.append((right - left) / 192)
    assert 0.6 < np.mean(shares) < 0.9
    assert max(shares) <= 190 / 192


def test_characters_come_in_any_order() -> None:
    answers = [draw(index, content="characters").answer for index in range(150)]
    assert set("".join(answers)) == set(CHARACTERS) - set(" £€")
    assert np.mean([len(answer) for answer in answers]) > 8


def test_cap_sets_the_height_of_letters() -> None:
    def mean_height(cap: list[float]) -> float:
        boxes = [ink(draw(index, cap=cap, noise=0).image) for index in range(60)]
        return float(np.mean([bottom - top for _, top, _, bottom in boxes]))

    assert mean_height([0.75, 0.85]) > 1.5 * mean_height([0.35, 0.45])


def test_lines_are_in_order_and_do_not_touch() -> None:
    for index in range(40):
        example = draw(index, sizes=[[96, 192]], rows=3, noise=0)
        dark = (np.asarray(example.image.convert("L")) < 128).any(axis=1)
        starts = int(np.sum(dark[1:] & ~dark[:-1]))
        assert starts >= 3, "blank pixels separate the lines"
