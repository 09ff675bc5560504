"""`--resolution auto` and `--max-ttft-ms` in `ask` and `chat`."""

import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tiny import tiny_model

from convllava.analysis import save_calibration
from convllava.analysis.calibration import Calibration, calibration_key
from convllava.cli.main import main
from convllava.cli.options import SizingArguments
from convllava.cli.sizing import choose_options, size_remark
from convllava.image_options import ImageOptions
from convllava.inference import load_pretrained
from convllava.model import nano, preset

QUESTION = "What is it?"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def large(tmp_path: Path) -> str:
    """An image of 40 x 30 cells, more than the tiny model's context of 512 holds."""
    Image.new("RGB", (1920, 2560), "teal").save(tmp_path / "large.png")
    return str(tmp_path / "large.png")


@pytest.fixture
def ask(tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    def run(*arguments: str, code: int = 0) -> tuple[Any, str]:
        options = ("--model", str(tiny_checkpoint), "--device", "cpu", "--max-new-tokens", "3", "--json")
        assert main(["ask", *options, *arguments]) == code
        printed = capsys.readouterr()
        return (json.loads(printed.out) if code == 0 else None), printed.err

    return run


def calibrate(checkpoint: Path, seconds_per_megapixel: float) -> None:
    model, _ = load_pretrained(checkpoint, device="cpu")
    calibration = Calibration(
        model="tiny",
        key=calibration_key(model.config, model.device, "float32"),
        device="cpu",
        dtype="float32",
        threads=1,
        torch_version="2",
        date="2026-01-01",
        prepare=(0.0, 0.0, 0.0),
        encode=(0.0, seconds_per_megapixel),
        prefill=(0.0, 0.0, 0.0),
    )
    save_calibration(calibration)


def test_a_image_too_large_for_the_context_is_shrunk_and_told(ask: Any, large: str) -> None:
    report, err = ask(large, QUESTION)
    text = report["num_prompt_tokens"] - report["num_image_tokens"]
    assert 400 < report["num_image_tokens"] <= 512 - 3 - text
    assert "shown at" in err and "shrunk from 1200" in err and f"({report['num_image_tokens']} visual tokens)" in err
    assert report["auto"]["options"] == {"max_visual_tokens": 512 - 3 - text}


def test_a_image_that_fits_is_shown_as_trained_without_a_word(ask: Any, tmp_path: Path) -> None:
    Image.new("RGB", (200, 130)).save(tmp_path / "p.png")
    report, err = ask(str(tmp_path / "p.png"), QUESTION)
    assert report["grids"] == [[2, 3]] and report["auto"]["options"] == {}
    assert "shown at" not in err


def test_the_sizes_of_the_training_are_kept_and_told(
    ask: Any, large: str, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(tiny_checkpoint, tmp_path / "copy"))
    config = json.loads((copy / "config.json").read_text()) | {"trained_visual_tokens": [4, 35]}
    (copy / "config.json").write_text(json.dumps(config))
    report, err = ask(large, QUESTION, "--model", str(copy))
    assert report["num_image_tokens"] == 35
    assert err.splitlines()[0] == (
        "shown at 320x448 (35 visual tokens): the model was trained on any shape (native, own size); shrunk from 1200 "
        "to at most 35 tokens, the most in its training"
    )
    Image.new("RGB", (40, 60)).save(tmp_path / "small.png")
    report, err = ask(str(tmp_path / "small.png"), QUESTION, "--model", str(copy))
    assert report["num_image_tokens"] == 6 and "enlarged from 2 to about 4 tokens" in err


def test_several_images_share_the_context(ask: Any, large: str) -> None:
    report, _ = ask(large, large, large, QUESTION)
    assert report["num_prompt_tokens"] + 3 <= 512
    assert len({tuple(grid) for grid in report["grids"]}) == 1


def test_a_resolution_of_ones_own_is_not_changed(ask: Any, large: str) -> None:
    _, err = ask(large, QUESTION, "--resolution", "2560", code=2)
    assert "context holds 512" in err
    report, _ = ask(large, QUESTION, "--resolution", "128")
    assert report["grids"] == [[2, 2]] and report["auto"] is None


def test_budgets_apply_together(ask: Any, large: str, tiny_checkpoint: Path) -> None:
    calibrate(tiny_checkpoint, seconds_per_megapixel=1.0)
    report, err = ask(large, QUESTION, "--max-ttft-ms", "100")
    assert 15 < report["num_image_tokens"] <= 100_000 / 64**2
    assert "to at most 24 tokens" in err
    report, _ = ask(large, QUESTION, "--max-ttft-ms", "100", "--max-visual-tokens", "6")
    assert report["num_image_tokens"] == 6
    report, _ = ask(large, QUESTION, "--max-ttft-ms", "100", "--resolution", "640")
    assert report["num_image_tokens"] <= 24


def test_what_is_wrong_with_a_budget(ask: Any, large: str, tiny_checkpoint: Path) -> None:
    _, err = ask(large, QUESTION, "--max-ttft-ms", "100", code=2)
    assert f"'convllava cost --calibrate --model {tiny_checkpoint}'" in err
    calibrate(tiny_checkpoint, seconds_per_megapixel=1000.0)
    _, err = ask(large, QUESTION, "--max-ttft-ms", "100", code=2)
    assert "cannot be reached" in err and "100 ms" in err and "4096 ms" in err
    _, err = ask(large, QUESTION, "--resolution", "large", code=2)
    assert "'large'" in err and "auto" in err


def test_chat_leaves_room_for_what_will_be_said(
    large: str, tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("What is it?\nAnd now?\n"))
    assert main(["chat", large, "--model", str(tiny_checkpoint), "--device", "cpu", "--max-new-tokens", "3"]) == 0
    printed = capsys.readouterr()
    assert printed.out.count("\n") >= 2
    assert "shrunk from 1200 to at most 2" in printed.err  # half of 512, less the prompt's text


def test_a_released_model_keeps_its_setting_unless_asked() -> None:
    assert not SizingArguments().chooses_size(preset("convllava-7b-1536"))
    assert SizingArguments(resolution="auto").chooses_size(preset("convllava-7b-1536"))
    assert SizingArguments().chooses_size(nano())
    assert not SizingArguments(image_aspect_ratio="pad").chooses_size(nano())
    assert not SizingArguments(resolution="512").chooses_size(nano())


def test_a_model_of_padded_squares_asked_for_auto() -> None:
    model, processor = tiny_model()
    model.config.image_aspect_ratio, model.config.resolution = "pad", 256
    images = [Image.new("RGB", (200, 900))]
    loaded = (model, processor)
    auto = SizingArguments(resolution="auto")
    options, choice = choose_options(auto, loaded, images, QUESTION, reserved=9, model_name="m")
    assert options == ImageOptions("native", max_visual_tokens=16)  # those of the square
    assert choice is not None and choice.shapes == ((512, 128),)
    assert "shrunk from 72 to at most 16 tokens, the most in its training" in size_remark(choice)
    untouched = choose_options(SizingArguments(), loaded, images, QUESTION, reserved=9, model_name="m")
    assert untouched == (ImageOptions(), None)
