"""`convllava demo` shows one fixed sample of each kind and marks right and wrong answers."""

from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from PIL import Image

from convllava.cli import demo
from convllava.cli.main import main
from convllava.inference import Answer, Timings

ANSWER = Answer(
    text="",
    token_ids=(2,),
    finish_reason="stop",
    boxes=(),
    num_prompt_tokens=1,
    num_image_tokens=0,
    image_sizes=(),
    grids=(),
    timings=Timings(0.0, 0.0, 0.0),
)
GROUNDING = [case.name for case in demo.CASES].index("grounding")


def test_images_of_several_shapes() -> None:
    sizes = [demo.draw_case(index).image.size for index in range(len(demo.CASES))]
    ratios = {width / height for width, height in sizes}
    assert len(sizes) >= 6 and len(ratios) >= 5 and min(ratios) < 1 < max(ratios)
    assert {case.kind for case in demo.CASES} == {"line", "document", "scene", "grounding"}


def test_text_is_right_word_for_word() -> None:
    example = demo.draw_case(0)
    assert demo.is_right(example, replace(ANSWER, text=example.answer + "\n"))
    assert not demo.is_right(example, replace(ANSWER, text=example.answer + "x"))
    assert not demo.is_right(example, ANSWER)


def test_a_box_is_right_by_its_overlap() -> None:
    example = demo.draw_case(GROUNDING)
    box = example.facts["box"]
    shifted = (box[2], box[1], box[2] + 9, box[3])
    assert demo.is_right(example, replace(ANSWER, boxes=(box,)))
    assert not demo.is_right(example, replace(ANSWER, boxes=(shifted,)))
    assert not demo.is_right(example, replace(ANSWER, text=example.answer))
    assert not demo.is_right(example, replace(ANSWER, boxes=(box, shifted)))


def test_wrong_answers_are_shown(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo, "MAX_ANSWER_TOKENS", 4)
    assert main(["demo", "--model", str(tiny_checkpoint), "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert printed.count("✗ wrong") == len(demo.CASES)
    assert f"0 of {len(demo.CASES)} right." in printed
    assert max(map(len, printed.splitlines())) <= 80
    for index, case in enumerate(demo.CASES):
        assert f"{case.name}.png" in printed.replace("\n", "")
        with Image.open(tmp_path / "out" / f"{case.name}.png") as image:
            assert image.size == demo.draw_case(index).image.size


def test_the_box_is_drawn(tmp_path: Path) -> None:
    example = demo.draw_case(GROUNDING)
    answer = replace(ANSWER, boxes=(example.facts["box"],))
    path = Path(demo.draw_answer(demo.CASES[GROUNDING], example, answer, tmp_path))
    with Image.open(path) as drawn:
        assert drawn.tobytes() != example.image.tobytes()


def test_the_first_series_is_shown_and_another_has_other_images(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo, "MAX_ANSWER_TOKENS", 1)
    for seed, option in (("0", []), ("1", ["--seed", "1"])):
        out = tmp_path / seed
        assert main(["demo", "--model", str(tiny_checkpoint), "--out", str(out), *option]) == 0
        assert f"first samples of held-out series {seed}" in " ".join(capsys.readouterr().out.split())
    for index, case in enumerate(demo.CASES):
        assert Image.open(tmp_path / "0" / f"{case.name}.png").tobytes() == demo.draw_case(index).image.tobytes()
        first, second = (Image.open(tmp_path / seed / f"{case.name}.png") for seed in ("0", "1"))
        assert first.tobytes() != second.tobytes()


def test_larger_than_trained_is_larger_than_any_size_in_the_recipes(repository: Path) -> None:
    recipes = [yaml.safe_load(path.read_text()) for path in (repository / "recipes" / "nano").glob("*.yaml")]
    trained = [size for recipe in recipes for entry in recipe.get("data", ()) for size in entry["options"]["sizes"]]
    (shown,) = next(case for case in demo.CASES if case.name == "larger_than_trained").options["sizes"]
    assert all(min(shown) > min(size) and max(shown) > max(size) for size in trained)
