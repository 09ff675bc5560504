"""One question, and boxes in its answer."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convllava import ask
from convllava.inference import Generator, Request, boxes_in_pixels, draw_boxes
from convllava.model import ConvLlavaForConditionalGeneration, ConvLlavaProcessor

Loaded = tuple[ConvLlavaForConditionalGeneration, ConvLlavaProcessor]


@pytest.fixture
def image_path(tmp_path: Path) -> Path:
    Image.new("RGB", (192, 64), "teal").save(tmp_path / "p.png")
    return tmp_path / "p.png"


def test_ask_is_the_generators_answer(tiny: Loaded, image_path: Path) -> None:
    deltas: list[str] = []
    answer = ask(*tiny, image_path, "What?", max_new_tokens=8, on_text=deltas.append)
    expected = Generator(*tiny).generate([Request.of_question("What?", [image_path], max_new_tokens=8)])[0]
    assert answer.token_ids == expected.token_ids
    assert "".join(deltas) == answer.text == expected.text
    assert answer.grids == ((1, 3),)


def test_images_in_any_form(tiny: Loaded, image_path: Path) -> None:
    loaded = Image.open(image_path)
    forms = (str(image_path), loaded, np.asarray(loaded), [image_path], (loaded,))
    answers = [ask(*tiny, form, "What?", max_new_tokens=3) for form in forms]
    assert len({answer.token_ids for answer in answers}) == 1
    assert ask(*tiny, [image_path, loaded], "What?", max_new_tokens=1).num_image_tokens == 6
    assert ask(*tiny, [], "What?", max_new_tokens=1).num_image_tokens == 0


def test_image_options(tiny: Loaded, image_path: Path) -> None:
    square = ask(*tiny, image_path, "?", image_aspect_ratio="pad", resolution=128, max_new_tokens=1)
    assert square.grids == ((2, 2),)
    assert ask(*tiny, image_path, "?", max_visual_tokens=2, max_new_tokens=1).grids == ((1, 2),)
    with pytest.raises(ValueError, match="needs a resolution"):
        ask(*tiny, image_path, "?", image_aspect_ratio="pad")


def test_no_question(tiny: Loaded, image_path: Path) -> None:
    with pytest.raises(ValueError, match="no question about the image"):
        ask(*tiny, image_path, "  ")


def test_boxes_in_pixels() -> None:
    # the padded square of 200 x 100 pixels has 50 rows above and below
    text = "at [0.10, 0.25, 0.50, 0.75] and [0.9, 0.9, 0.5, 0.5], not [1, 2]"
    first, second = boxes_in_pixels(text, 200, 100)
    assert first == pytest.approx((20, 0, 100, 100))
    assert second == pytest.approx((100, 50, 180, 100))  # corners in order, cut at the edge
    assert boxes_in_pixels("nowhere", 200, 100) == ()


def test_draw_boxes_on_a_copy() -> None:
    image = Image.new("RGB", (100, 60), "white")
    drawn = draw_boxes(image, [(10, 10, 50, 40), (60.4, 5.2, 60.4, 5.2)])
    assert image.getcolors() == [(6000, (255, 255, 255))]
    pixels = np.asarray(drawn)
    assert tuple(pixels[10, 10]) == tuple(pixels[39, 49]) == (0xE6, 0x19, 0x4B)
    assert tuple(pixels[40, 50]) == tuple(pixels[25, 30]) == (255, 255, 255)


def test_the_package_hands_out_the_functions() -> None:
    import convllava
    from convllava.inference import load_pretrained

    assert convllava.ask is ask and convllava.load_pretrained is load_pretrained
