"""A checkpoint that resolution is not set its images are shown is told so by whoever uses it."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from convllava.cli.main import main
from convllava.inference import load_pretrained

pytest.importorskip("sentencepiece")
pytest.importorskip("google.protobuf")


@pytest.fixture(scope="module")
def silent(shared_dir: Path) -> Path:
    """The authors' consolidated layout, whose hub id nobody knows."""
    return shared_dir / "reference" / "official-consolidated-tiny"


@pytest.fixture
def image(tmp_path: Path) -> str:
    Image.effect_noise((90, 70), 60).convert("RGB").save(tmp_path / "image.png")
    return str(tmp_path / "image.png")


def test_ask(silent: Path, image: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["ask", image, "What?", "--model", str(silent), "--max-new-tokens", "2", "--json", "--device", "cpu"]
    assert main(arguments) == 2
    told = capsys.readouterr().err
    assert "resolution is not set" in told
    assert "(--resolution)" in told
    assert main([*arguments, "--resolution", "256"]) == 0
    answer: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert (answer["grids"], answer["num_image_tokens"]) == ([[4, 4]], 16)
    assert main([*arguments, "--resolution", "128", "--image-aspect-ratio", "native"]) == 0
    assert json.loads(capsys.readouterr().out)["num_image_tokens"] == 4


def test_chat(silent: Path, image: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("What?\n"))
    arguments = ["chat", image, "--model", str(silent), "--max-new-tokens", "2", "--device", "cpu"]
    assert main([*arguments, "--resolution", "256"]) == 0
    assert main(arguments) == 2
    assert "(--resolution)" in capsys.readouterr().err


def test_serve(silent: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("fastapi")
    pytest.importorskip("uvicorn")
    serving = pytest.importorskip("convllava.serve")
    served: list[Any] = []

    def create_app(generator: Any, settings: Any) -> str:
        served.append(generator.processor.image_processor)
        return "app"

    monkeypatch.setattr(serving, "create_app", create_app)
    monkeypatch.setattr(serving, "run", lambda app, listener, settings: listener.close())
    arguments = ["serve", str(silent), "--port", "0", "--device", "cpu"]
    assert main([*arguments, "--resolution", "256"]) == 0
    (images,) = served
    assert (images.image_aspect_ratio, images.resolution) == ("pad", 256)
    assert main(arguments) == 2
    assert "(--resolution)" in capsys.readouterr().err


def test_what_a_checkpoint_says_itself_stands(shared_dir: Path, tiny_checkpoint: Path) -> None:
    split = shared_dir / "reference" / "official-split-tiny"
    assert load_pretrained(split, device="cpu", fallback_resolution=512)[0].config.resolution == 256
    assert load_pretrained(tiny_checkpoint, device="cpu", fallback_resolution=512)[0].config.resolution is None
