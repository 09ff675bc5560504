"""Questions about each of many images: the answers are those of `ask`, and a bad image is no end."""

import itertools
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from convllava import ask
from convllava.image_options import ImageOptions
from convllava.inference import AnswerAbout, EachOptions, ImageOf, Prompt, ask_each, pages_of
from convllava.model import ConvLlavaForConditionalGeneration, ConvLlavaProcessor

Loaded = tuple[ConvLlavaForConditionalGeneration, ConvLlavaProcessor]

QUESTIONS = ["What?", "And where is it?"]
OPTIONS = EachOptions(max_batch=4, request={"max_new_tokens": 4})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Noise images of three shapes."""
    rng = np.random.default_rng(0)
    for number, (height, width) in zip(range(9), itertools.cycle([(64, 128), (128, 64), (70, 60)]), strict=False):
        Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(tmp_path / f"{number}.png")
    return tmp_path


def images_of(folder: Path) -> list[ImageOf]:
    return [ImageOf(str(path)) for path in sorted(folder.glob("*.png"))]


def by_key(answers: Iterator[AnswerAbout]) -> dict[tuple[str, int | None, str], AnswerAbout]:
    return {(str(item.image.source), item.image.page, item.question): item for item in answers}


def test_each_answer_is_that_of_ask(tiny: Loaded, folder: Path) -> None:
    found = by_key(ask_each(*tiny, images_of(folder), QUESTIONS, OPTIONS))
    assert len(found) == 18 and all(item.error is None for item in found.values())
    for (name, _, question), item in found.items():
        assert item.answer is not None
        assert item.answer.token_ids == ask(*tiny, name, question, max_new_tokens=4).token_ids
        assert item.answer.box_image == 0


def test_a_bad_image_has_an_error_and_the_others_are_answered(tiny: Loaded, folder: Path) -> None:
    (folder / "0.png").write_bytes(b"no image")
    (folder / "1.png").write_bytes((folder / "2.png").read_bytes()[:90])
    found = by_key(ask_each(*tiny, images_of(folder), ["What?"], OPTIONS))
    errors = {Path(name).name: item.error for (name, _, _), item in found.items() if item.error}
    assert sorted(errors) == ["0.png", "1.png"] and "is not an image" in str(errors["0.png"])
    assert sum(item.answer is not None for item in found.values()) == 7


def test_a_question_that_does_not_fit_is_an_error_of_its_own(tiny: Loaded, folder: Path) -> None:
    found = by_key(ask_each(*tiny, images_of(folder)[:2], ["What?", "word " * 600], OPTIONS))
    errors = {question[:5]: item.error for (_, _, question), item in found.items()}
    assert len(found) == 4 and errors["What?"] is None and "context holds 512" in str(errors["word "])


def test_pages_of_a_pdf_are_asked_about_one_by_one(tiny: Loaded, tmp_path: Path) -> None:
    pages = [Image.new("RGB", (64, 32 * number)) for number in (1, 2, 3)]
    pages[0].save(tmp_path / "p.pdf", save_all=True, append_images=pages[1:], resolution=72)
    assert [image.page for image in pages_of(tmp_path / "p.pdf")] == [1, 2, 3]
    found = by_key(ask_each(*tiny, pages_of(str(tmp_path / "p.pdf")), ["What?"], OPTIONS))
    grids = {page: item.answer.grids for (_, page, _), item in found.items() if item.answer}
    assert grids == {1: ((1, 2),), 2: ((2, 2),), 3: ((3, 2),)}
    (tmp_path / "bad.pdf").write_bytes(b"%PDF-1.7 and nothing else")
    (item,) = ask_each(*tiny, pages_of(str(tmp_path / "bad.pdf")), ["What?"], OPTIONS)
    assert "bad.pdf is a PDF that cannot be read" in str(item.error)


def test_what_is_done_is_not_asked_again_nor_opened(tiny: Loaded, folder: Path) -> None:
    done = {"0.png", "3.png"}
    (folder / "0.png").unlink()
    images = [ImageOf(str(folder / f"{number}.png")) for number in range(9)]
    found = by_key(
        ask_each(*tiny, images, ["What?"], OPTIONS, is_done=lambda image, _: Path(str(image.source)).name in done)
    )
    assert len(found) == 7 and all(item.error is None for item in found.values())


def test_images_are_taken_as_they_are_needed(tiny: Loaded, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = 0

    def endless() -> Iterator[ImageOf]:
        nonlocal taken
        for image in itertools.cycle(images_of(folder)):
            taken += 1
            yield image

    prompts: list[weakref.ref[Prompt]] = []
    initialize = Prompt.__init__

    def watched(prompt: Prompt, *arguments: Any, **options: Any) -> None:
        initialize(prompt, *arguments, **options)
        prompts.append(weakref.ref(prompt))

    monkeypatch.setattr(Prompt, "__init__", watched)
    answers = ask_each(*tiny, endless(), ["What?"], OPTIONS)
    counts = []
    for number in range(120):
        next(answers)
        if number % 20 == 19:
            counts.append(sum(prompt() is not None for prompt in prompts))
    answers.close()
    assert len(prompts) >= 120 and taken < 150 and max(counts) <= 4 * OPTIONS.max_batch, (
        "images are held only while they are asked about"
    )


def test_options_reach_every_image(tiny: Loaded, folder: Path) -> None:
    options = EachOptions(image_options=ImageOptions(max_visual_tokens=1), request={"max_new_tokens": 1})
    found = by_key(ask_each(*tiny, images_of(folder), ["What?"], options))
    assert {item.answer.grids for item in found.values() if item.answer} == {((1, 1),)}
    with pytest.raises(ValueError, match="no question"):
        next(ask_each(*tiny, images_of(folder), []))
    with pytest.raises(ValueError, match="question is empty"):
        next(ask_each(*tiny, images_of(folder), [" "]))
