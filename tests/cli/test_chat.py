"""`convllava chat`: several turns, each with all that was said before."""

import io
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from convllava import inference
from convllava.cli.chat import questions
from convllava.cli.main import main
from convllava.cli.options import printable


class Terminal(io.StringIO):
    """Somebody types."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def picture(tmp_path: Path) -> str:
    Image.new("RGB", (192, 64), "teal").save(tmp_path / "p.png")
    return str(tmp_path / "p.png")


@pytest.fixture
def chat(tiny_checkpoint: Path, picture: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    def run(typed: str, *options: str) -> int:
        monkeypatch.setattr("sys.stdin", io.StringIO(typed))
        return main(["chat", picture, "--model", str(tiny_checkpoint), "--device", "cpu", *options])

    return run


def test_history_is_kept(chat: Any, picture: str, tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert chat("What is it?\n\n And then? \n/quit\nnever asked\n", "--max-new-tokens", "6") == 0
    generator = inference.Generator(*inference.load_pretrained(tiny_checkpoint))
    first = inference.Request.of_question("What is it?", [picture], max_new_tokens=6)
    answers = [generator.generate([first])[0].text]
    messages = [
        *first.messages,
        {"role": "assistant", "content": answers[0]},
        {"role": "user", "content": "And then?"},
    ]
    second = inference.Request(messages=messages, images=[picture], max_new_tokens=6)
    answers.append(generator.generate([second])[0].text)
    assert capsys.readouterr().out == "".join(printable(answer) + "\n" for answer in answers)


def test_end_of_input_ends_it(chat: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert chat("") == 0
    assert capsys.readouterr() == ("", "")


def test_a_prompt_is_shown_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    prompts: list[str] = []
    monkeypatch.setattr("sys.stdin", Terminal())
    monkeypatch.setattr("builtins.input", lambda prompt: prompts.append(prompt) or "/quit")
    assert list(questions()) == [] and prompts == ["> "]


def test_a_full_context_ends_it(chat: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert chat(f"Hello?\n{'x' * 600}\n", "--max-new-tokens", "2") == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and "context holds 512" in error and error.count("\n") == 1
