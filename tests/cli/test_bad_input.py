"""Bad input ends as one line on standard error, exit code 2 and no half-written file."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from convllava.cli.main import main
from convllava.inference import checkpoint_files

QUESTION = "What is it?"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory, with a good image in it."""
    monkeypatch.chdir(tmp_path)
    Image.effect_noise((96, 64), 80).convert("RGB").save("good.jpg")
    return tmp_path


@pytest.fixture
def fails(folder: Path, tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., None]:
    """Run the program; check that it ends as it should, with all these parts in its one line."""

    def run(*arguments: str, words: tuple[str, ...], model: Path = tiny_checkpoint) -> None:
        before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        own = () if "--model" in arguments else ("--model", str(model))
        assert main([*arguments, *own]) == 2
        printed = capsys.readouterr()
        assert printed.out == ""
        assert printed.err.startswith("error: ") and printed.err.count("\n") == 1
        assert [word for word in words if word not in printed.err] == [], printed.err
        assert "Traceback" not in printed.err
        assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before

    return run


def test_missing_file(fails: Callable[..., None]) -> None:
    fails("ask", "nope.png", QUESTION, words=("nope.png", "does not exist", "URL"))
    fails("chat", "nope.png", words=("nope.png", "does not exist"))


def test_directory(fails: Callable[..., None], folder: Path) -> None:
    (folder / "album").mkdir()
    fails("ask", "album", QUESTION, words=("album is a directory",))


def test_not_an_image(fails: Callable[..., None], folder: Path) -> None:
    (folder / "notes.png").write_text("no image")
    fails("ask", "notes.png", QUESTION, words=("notes.png is not an image", "PNG, JPEG"))


def test_truncated_jpeg(fails: Callable[..., None], folder: Path) -> None:
    (folder / "half.jpg").write_bytes((folder / "good.jpg").read_bytes()[:1500])
    fails("ask", "half.jpg", QUESTION, words=("half.jpg is damaged", "truncated"))


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [12_000, 60_000])
def test_decompression_bomb(fails: Callable[..., None], folder: Path, side: int) -> None:
    (folder / "bomb.ppm").write_text(f"P6 {side} {side} 255\n")
    fails("ask", "bomb.ppm", QUESTION, words=("bomb.ppm is too large", f"at most {Image.MAX_IMAGE_PIXELS}"))


def test_empty_file(fails: Callable[..., None], folder: Path) -> None:
    (folder / "empty.png").touch()
    fails("ask", "empty.png", QUESTION, words=("empty.png is empty (0 bytes",))


def test_one_pixel_high_is_fine(folder: Path, tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.new("RGB", (200, 1)).save("thin.png")
    arguments = [
        "ask",
        "thin.png",
        QUESTION,
        "--model",
        str(tiny_checkpoint),
        "--json",
        "--max-new-tokens",
        "2",
    ]
    assert main(arguments) == 0
    assert json.loads(capsys.readouterr().out)["num_image_tokens"] >= 1


def test_no_question(fails: Callable[..., None]) -> None:
    fails("ask", "good.jpg", words=("question is missing", "good.jpg", "convllava ask IMAGE"))
    fails("ask", "good.jpg", "good.jpg", words=("question is missing",))
    fails("ask", "good.jpg", "http://example.org/p.png", words=("question is missing",))
    fails("ask", "good.jpg", " ", words=("question is empty",))
    fails("ask", QUESTION, words=("an image or the question is missing", QUESTION))


def test_missing_page(fails: Callable[..., None], folder: Path) -> None:
    Image.new("RGB", (64, 64)).save(folder / "file.pdf")
    fails("ask", "file.pdf", QUESTION, "--page", "2", words=("file.pdf has no page 2", "1 to 1"))
    fails("ask", "good.jpg", QUESTION, "--page", "2", words=("page 2", "no PDF", "good.jpg"))


def test_unknown_model(fails: Callable[..., None], monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    fails("ask", "good.jpg", QUESTION, "--model", "nanoo", words=("unknown model 'nanoo'", "'nano'", "hub id"))
    fails("ask", "good.jpg", QUESTION, "--model", "no/where", words=("unknown model 'no/where'", "hub"))
    fails("ask", "good.jpg", QUESTION, "--model", "good.jpg", words=("good.jpg is a file",))
    monkeypatch.setitem(checkpoint_files.BUNDLED, "nano", folder / "absent")
    fails("ask", "good.jpg", QUESTION, "--model", "nano", words=("carries no weights of 'nano'",))


def test_missing_and_surplus_tensors(
    fails: Callable[..., None], tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    copy = Path(shutil.copytree(tiny_checkpoint, tmp_path_factory.mktemp("copy") / "checkpoint"))
    state = load_file(copy / "model.safetensors")
    state["left_over"] = torch.ones(1)
    del state["model.multi_modal_projector.linear_2.bias"]
    save_file(state, copy / "model.safetensors", metadata={"format": "pt"})
    words = ("1 missing: model.multi_modal_projector.linear_2.bias", "1 surplus: left_over", str(copy))
    fails("ask", "good.jpg", QUESTION, words=words, model=copy)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--image-aspect-ratio", "square"), ("image_aspect_ratio is one of 'pad', 'native'", "'square'")),
        (("--image-aspect-ratio", "pad"), ("needs a resolution",)),
        (("--resolution", "10"), ("resolution", "64", "10")),
        (("--max-visual-tokens", "0"), ("max_visual_tokens", "at least 1", "0")),
        (("--resolution", "2000"), ("tokens and the context holds 512", "max_visual_tokens")),
        (("--max-new-tokens", "0"), ("--max-new-tokens", "greater than or equal to 1")),
        (("--max-new-tokens", "2000"), ("max_new_tokens is 2000", "holds 512")),
        (("--dtype", "float31"), ("dtype 'float31' is not known", "bfloat16")),
        (("--device", "toaster"), ("device 'toaster'", "cpu")),
        (("--resolutoin", "64"), ("--resolutoin", "--help")),
    ],
)
def test_wrong_options(options: tuple[str, str], words: tuple[str, ...], fails: Callable[..., None]) -> None:
    fails("ask", "good.jpg", QUESTION, *options, words=words)


def test_drawing_that_cannot_be_written(fails: Callable[..., None], folder: Path) -> None:
    (folder / "folder.png").mkdir()
    (folder / "link.png").symlink_to("good.jpg")
    for name, word in {
        "good.jpg": "would overwrite the input image",
        "link.png": "would overwrite the input image",
        "out.txt": "must end in .png",
        "no/out.png": "no must be a directory",
        "folder.png": "cannot be written",
    }.items():
        fails("ask", "good.jpg", QUESTION, "--draw", name, words=(f"--draw {name}", word))


def test_chat_needs_standard_input_for_itself(fails: Callable[..., None]) -> None:
    fails("chat", "-", words=("standard input",))
