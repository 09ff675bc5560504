"""`convllava ask` as a user sees it."""

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from convllava import inference
from convllava.cli.main import main
from convllava.cli.options import printable
from convllava.inference import Answer, Timings

QUESTION = "What is it?"


@pytest.fixture
def image(tmp_path: Path) -> str:
    Image.new("RGB", (192, 64), "teal").save(tmp_path / "p.png")
    return str(tmp_path / "p.png")


@pytest.fixture
def ask(tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """Run the command with the tiny model; return what it printed on the two streams."""

    def run(*arguments: str) -> tuple[str, str]:
        options = ("--model", str(tiny_checkpoint), "--device", "cpu", "--max-new-tokens", "6")
        assert main(["ask", *arguments, *options]) == 0
        printed = capsys.readouterr()
        return printed.out, printed.err

    return run


@pytest.fixture
def answer_with_box(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the model find something in the left half of the image."""
    answer = Answer(
        text="[0.00, 0.00, 0.50, 1.00]",
        token_ids=(1,),
        finish_reason="stop",
        boxes=((0.0, 0.0, 96.0, 64.0),),
        num_prompt_tokens=9,
        num_image_tokens=3,
        image_sizes=((64, 192),),
        grids=((1, 3),),
        timings=Timings(0.1, 0.2, 0.3),
    )
    monkeypatch.setattr(inference, "ask", lambda *args, **kwargs: answer)


def test_options_of_sampling_reach_the_request(
    image: str, tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, Any] = {}
    answer = inference.ask

    def spy(*args: Any, **options: Any) -> Answer:
        seen.update(options)
        return replace(answer(*args, **options), finish_reason="repetition")

    monkeypatch.setattr(inference, "ask", spy)
    words = "--temperature 0.5 --top-k 3 --min-p 0.1 --seed 4 --no-repeat-ngram-size 2 --no-repeat-ngram-window 9"
    command = ["ask", image, QUESTION, "--model", str(tiny_checkpoint), "--max-new-tokens", "4", *words.split()]
    assert main([*command, "--no-stop-on-repetition", "--system", "Be brief."]) == 0
    expected = {"temperature": 0.5, "top_k": 3, "min_p": 0.1, "seed": 4, "no_repeat_ngram_size": 2}
    expected |= {"no_repeat_ngram_window": 9, "stop_on_repetition": False, "system": "Be brief."}
    assert expected.items() <= seen.items()
    assert "the answer repeated itself and was ended after 4 tokens" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--top-k", "3"], "--top-k has no effect without sampling: add --temperature"),
        (["--temperature", "nan"], "temperature must be from 0 to 100, got nan"),
        (["--repetition-penalty", "inf"], "repetition_penalty must be from 0.1 to 10, got inf"),
        (["--no-repeat-ngram-size", "99999999999999999999"], "no_repeat_ngram_size must be from 0 to 1000"),
    ],
)
def test_wrong_options_of_sampling_are_one_line(
    image: str, tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    assert main(["ask", image, QUESTION, "--model", str(tiny_checkpoint), *options]) == 2
    printed = capsys.readouterr().err
    assert message in printed and printed.count("\n") == 1


def test_answer_is_streamed(ask: Any, image: str, tiny_checkpoint: Path) -> None:
    out, err = ask(image, QUESTION)
    loaded = inference.load_pretrained(tiny_checkpoint)
    assert out == printable(inference.ask(*loaded, image, QUESTION, max_new_tokens=6).text) + "\n"
    assert err == "the answer was cut off at 6 tokens: raise --max-new-tokens\n"


def test_json(ask: Any, image: str, tiny_checkpoint: Path) -> None:
    out, _ = ask(image, QUESTION, "--json", "--image-aspect-ratio", "pad", "--resolution", "192")
    report = json.loads(out)
    assert report["model"] == str(tiny_checkpoint) and report["question"] == QUESTION
    assert report["grids"] == [[3, 3]] and report["num_image_tokens"] == 9
    assert report["image_sizes"] == [[192, 192]]
    assert report["boxes"] == [] and isinstance(report["answer"], str)
    assert report["num_new_tokens"] == 6 and report["finish_reason"] == "length"
    assert report["timings"].keys() == {"queue_seconds", "encode_seconds", "first_token_seconds", "total_seconds"}
    assert out.count("\n") == 1


def test_several_images_and_a_budget(ask: Any, image: str) -> None:
    out, _ = ask(image, image, QUESTION, "--json", "--max-visual-tokens", "2")
    assert json.loads(out)["grids"] == [[1, 2], [1, 2]]


def test_standard_input_and_a_page(ask: Any, image: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("RGB", (64, 32)).save(tmp_path / "p.pdf", save_all=True, append_images=[Image.new("RGB", (32, 96))])
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(Path(image).read_bytes())))
    out, _ = ask("-", str(tmp_path / "p.pdf"), QUESTION, "--page", "2", "--json")
    assert json.loads(out)["grids"] == [[1, 3], [3, 1]]


def test_boxes_are_drawn_on_a_copy(answer_with_box: None, ask: Any, image: str, tmp_path: Path) -> None:
    before = Path(image).read_bytes()
    out, err = ask(image, QUESTION, "--json", "--draw", str(tmp_path / "out.png"))
    assert json.loads(out)["boxes"] == [[0.0, 0.0, 96.0, 64.0]] and err == ""
    drawn = Image.open(tmp_path / "out.png")
    assert drawn.getpixel((0, 0)) == (0xE6, 0x19, 0x4B) and drawn.getpixel((100, 30)) == (0, 128, 128)
    assert Path(image).read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.png", "p.png"]


def test_boxes_are_drawn_on_the_image_that_they_are_about(
    ask: Any, image: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("RGB", (64, 64), "navy").save(tmp_path / "second.png")
    seen: list[int | None] = []

    def answer(*arguments: Any, box_image: int | None, **options: Any) -> Answer:
        seen.append(box_image)
        timings = Timings(0.1, 0.2, 0.3)
        return Answer("", (1,), "stop", ((0.0, 0.0, 32.0, 64.0),), 9, 3, (), (), timings, box_image=box_image or 1)

    monkeypatch.setattr(inference, "ask", answer)
    options = ("--draw", str(tmp_path / "out.png"), "--json")
    out, _ = ask(image, str(tmp_path / "second.png"), QUESTION, *options)
    assert json.loads(out)["box_image"] == 1 and Image.open(tmp_path / "out.png").size == (64, 64)
    ask(image, str(tmp_path / "second.png"), QUESTION, *options, "--box-image", "1")
    assert seen == [None, 0]


def test_an_answer_without_a_box_is_not_drawn(ask: Any, image: str, tmp_path: Path) -> None:
    _, err = ask(image, QUESTION, "--draw", str(tmp_path / "out.png"))
    assert err.endswith(f"the answer has no box: {tmp_path / 'out.png'} was not written\n")
    assert not (tmp_path / "out.png").exists()


def test_an_answer_cannot_drive_the_terminal() -> None:
    assert printable("a\x1b[2Jb\r\x07\n\té漢🎉\u202e") == "a\ufffd[2Jb\ufffd\ufffd\n\té漢🎉\ufffd"


def test_the_fast_ways_give_an_answer_about_the_same_image(ask: Any, tmp_path: Path) -> None:
    path = str(tmp_path / "p.jpg")
    Image.effect_noise((1000, 400), 90).convert("RGB").save(path)
    options = ("--json", "--resolution", "128")
    exact, fast = (
        json.loads(ask(path, QUESTION, *options, *more)[0]) for more in ((), ("--fast", "--preprocessing", "fast"))
    )
    assert fast["image_sizes"] == exact["image_sizes"] == [[128, 320]]
    assert fast["num_prompt_tokens"] == exact["num_prompt_tokens"]


def test_boxes_are_in_pixels_of_the_whole_image_however_it_is_decoded(tiny_checkpoint: Path, tmp_path: Path) -> None:
    path = tmp_path / "p.jpg"
    Image.effect_noise((1000, 400), 90).convert("RGB").save(path)
    _, processor = inference.load_pretrained(tiny_checkpoint)
    processor.image_processor.preprocessing = "fast"
    (lazy,) = inference.open_images([path], lazily=True)
    assert getattr(lazy, "tile", None)  # nothing was decoded
    request = inference.Request.of_question(QUESTION, [lazy], resolution=128)
    prompt = inference.prepare(request, processor, 512)
    assert prompt.original_sizes == ((400, 1000),)
    assert lazy.size == (500, 200)  # a half is enough for 128 pixels and a margin
    assert prompt.image_sizes == ((128, 320),)


def test_an_unknown_preprocessing_is_named(image: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ask", image, QUESTION, "--preprocessing", "quick"]) == 2
    error = capsys.readouterr().err
    assert "--preprocessing" in error and "'exact', 'fast'" in error


def test_half_a_character_in_a_question_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    assert main(["ask", str(tmp_path / "a.png"), "What \udcff?"]) == 2
    assert "half of a character (a lone surrogate)" in capsys.readouterr().err
