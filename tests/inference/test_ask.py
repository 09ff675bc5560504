"""One question, and boxes in its answer."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convllava import ask
from convllava.inference import Generator, Request, boxes_in_pixels, draw_boxes, prepare
from convllava.inference.sequence import GeneratedSequence
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


def test_images_stay_within_the_sizes_of_the_training(
    tiny: Loaded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("RGB", (640, 1280), "teal").save(tmp_path / "large.png")
    monkeypatch.setattr(tiny[0].config, "trained_visual_tokens", [4, 20])
    assert ask(*tiny, tmp_path / "large.png", "?", max_new_tokens=1).grids == ((6, 3),)
    assert ask(*tiny, Image.new("RGB", (64, 64)), "?", max_new_tokens=1).grids == ((2, 2),)
    assert ask(*tiny, tmp_path / "large.png", "?", max_visual_tokens=50, max_new_tokens=1).grids == ((10, 5),)
    assert ask(*tiny, tmp_path / "large.png", "?", resolution=640, max_new_tokens=1).grids == ((20, 10),)


def test_boxes_are_about_the_image_that_is_named_or_the_last(tiny: Loaded, image_path: Path) -> None:
    square = Image.new("RGB", (128, 128))
    images = [image_path, square, image_path]
    for question, expected in {
        "Where is the cat?": 2,
        "Where is the cat in the first image?": 0,
        "Where is the cat in image 2?": 1,
        "Is the cat of the 1st image in the second image?": 2,
        "Where is the cat in image 7?": 2,
    }.items():
        assert ask(*tiny, images, question, max_new_tokens=1).box_image == expected
    assert ask(*tiny, images, "Where is the cat in image 2?", box_image=0, max_new_tokens=1).box_image == 0
    assert ask(*tiny, [], "Where?", max_new_tokens=1).box_image is None
    with pytest.raises(ValueError, match="box_image is 3, but the request has 3 images"):
        ask(*tiny, images, "Where?", box_image=3)
    with pytest.raises(ValueError, match="box_image must be the index of an image, at least 0, got -1"):
        ask(*tiny, images, "Where?", box_image=-1)


def test_boxes_are_in_pixels_of_their_image(tiny: Loaded, image_path: Path) -> None:
    request = Request.of_question("Where?", [image_path, Image.new("RGB", (128, 256))], max_new_tokens=1)
    prompt = prepare(request, tiny[1], 512)
    sequence = GeneratedSequence(0, request, prompt, tiny[1], tiny[0].generation_config, set(), 0.0)
    for token in tiny[1].tokenizer("[0.25, 0.00, 0.75, 1.00]")["input_ids"]:
        sequence.append(token)
    answer = sequence.answer("stop")
    assert answer.box_image == 1 and answer.boxes == ((0.0, 0.0, 128.0, 256.0),)


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
