"""`convllava chat`: several turns, each with the dialogue before it."""

import io
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from convllava import inference
from convllava.cli.chat import Dialogue, questions
from convllava.cli.main import main
from convllava.cli.options import printable
from convllava.image_options import ImageOptions


class Terminal(io.StringIO):
    """A terminal with typed input."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def image(tmp_path: Path) -> str:
    Image.new("RGB", (192, 64), "teal").save(tmp_path / "p.png")
    return str(tmp_path / "p.png")


@pytest.fixture
def chat(tiny_checkpoint: Path, image: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    def run(typed: str | io.TextIOWrapper, *options: str) -> int:
        monkeypatch.setattr("sys.stdin", io.StringIO(typed) if isinstance(typed, str) else typed)
        return main(["chat", image, "--model", str(tiny_checkpoint), "--device", "cpu", *options])

    return run


def test_history_is_kept(chat: Any, image: str, tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert chat("What is it?\n\n And then? \n/quit\nnever asked\n", "--max-new-tokens", "6") == 0
    generator = inference.Generator(*inference.load_pretrained(tiny_checkpoint))
    first = inference.Request.of_question("What is it?", [image], max_new_tokens=6)
    answers = [generator.generate([first])[0].text]
    messages = [
        *first.messages,
        {"role": "assistant", "content": answers[0]},
        {"role": "user", "content": "And then?"},
    ]
    second = inference.Request(messages=messages, images=[image], max_new_tokens=6)
    answers.append(generator.generate([second])[0].text)
    assert capsys.readouterr().out == "".join(printable(answer) + "\n" for answer in answers)


def test_end_of_input_ends_it(chat: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert chat("") == 0
    assert capsys.readouterr() == ("", "")


def test_a_question_that_is_no_text_does_not_end_it(
    chat: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Bytes of another encoding, from a pipe or a terminal; an image's name may have them."""
    name = tmp_path / "caf\udce9.png"
    Image.new("RGB", (64, 64)).save(name)
    typed = b"What \xff?\n" + os.fsencode(f"/image {name}\n") + b"And?\n"
    assert chat(io.TextIOWrapper(io.BytesIO(typed), encoding="utf-8"), "--max-new-tokens", "2") == 0
    out, err = capsys.readouterr()
    assert err == "error: What \\udcff? is not utf-8 text: type the question again\n"
    assert out.splitlines()[0].startswith("image 2, 64x64 pixels") and len(out.splitlines()) == 2


def test_a_checkpoint_without_instruction_tuning_is_told(
    tiny_checkpoint: Path,
    tmp_path: Path,
    image: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    copy = shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint")
    (copy / "recipe.yaml").write_text("training_stage: pretrain\n")
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    assert main(["chat", image, "--model", str(copy), "--device", "cpu"]) == 0
    assert "warning: this checkpoint results from training stage 'pretrain'" in capsys.readouterr().err


def test_a_prompt_is_shown_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    prompts: list[str] = []
    monkeypatch.setattr("sys.stdin", Terminal())
    monkeypatch.setattr("builtins.input", lambda prompt: prompts.append(prompt) or "/quit")
    assert list(questions()) == [] and prompts == ["> "]


def test_a_full_context_ends_it(chat: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert chat(f"Hello?\n{'x' * 600}\n", "--max-new-tokens", "2") == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and "context holds 512" in error and error.count("\n") == 1


def said(chat: Any, capsys: pytest.CaptureFixture[str], typed: str) -> tuple[list[str], str]:
    assert chat(typed, "--max-new-tokens", "4") == 0
    captured = capsys.readouterr()
    return captured.out.splitlines(), captured.err


def test_an_image_is_added(chat: Any, image: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    another = tmp_path / "another one.png"
    Image.new("RGB", (64, 64), "red").save(another)
    saved = tmp_path / "dialogue.json"
    lines, error = said(chat, capsys, f"What?\n/image {another}\nAnd this?\n/save {saved}\n/save {saved}\n")
    assert lines[1] == "image 2, 64x64 pixels, is sent with the next question" and lines[-1] == f"wrote {saved}"
    assert error == f"error: {saved} exists already: give another name\n"
    content = json.loads(saved.read_text())
    assert content["images"] == [image, str(another)]
    kinds = [[part["type"] for part in m["content"]] for m in content["messages"] if m["role"] == "user"]
    assert kinds == [["image", "text"], ["image", "text"]]
    assert [m["role"] for m in content["messages"]] == ["user", "assistant"] * 2
    assert list(tmp_path.glob(".*")) == []


def test_a_dialogue_begins_anew(chat: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved = tmp_path / "dialogue.json"
    lines, error = said(chat, capsys, f"What?\n/reset\nWhat?\n/save {saved}\n")
    assert lines[0] == lines[2] and error == ""
    assert len(json.loads(saved.read_text())["messages"]) == 2


def test_a_budget(chat: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved = tmp_path / "dialogue.json"
    lines, error = said(chat, capsys, f"/budget 2\nWhat?\n/budget many\n/save {saved}\n/budget off\n")
    assert lines[0] == "at most 2 visual tokens per image from now on"
    assert "got 'many'" in error
    assert json.loads(saved.read_text())["options"]["max_visual_tokens"] == 2


def test_mistakes_do_not_end_it(chat: Any, capsys: pytest.CaptureFixture[str]) -> None:
    lines, error = said(chat, capsys, "/image nowhere.png\n/imagine\n/image\n/save\n/help\nWhat?\n")
    assert error.count("error: ") == 4 and "nowhere.png does not exist" in error
    assert "unknown command /imagine: one of /image, /budget" in error
    assert lines[0].startswith("/image PATH")


def test_lines_are_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    readline = pytest.importorskip("readline")
    from convllava.cli.chat import input_history

    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setattr("sys.stdin", Terminal())
    readline.clear_history()
    with input_history():
        readline.add_history("What is it?")
    assert "What is it?" in (tmp_path / "convllava" / "chat_history").read_text().replace("\\040", " ")
    readline.clear_history()
    with input_history():
        assert readline.get_history_item(1) == "What is it?"
    readline.clear_history()


def test_new_images_go_with_the_next_question_only() -> None:
    dialogue = Dialogue(["a"], ["image a"], ImageOptions(), {})
    first = dialogue.with_question("What?")
    assert [part["type"] for part in first[0]["content"]] == ["image", "text"]
    dialogue.answered(first, "This.")
    assert [part["type"] for part in dialogue.with_question("And?")[-1]["content"]] == ["text"]
