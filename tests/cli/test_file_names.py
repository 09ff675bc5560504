"""Names of files reach the terminal with their control characters escaped, and are not taken for markup."""

import json
import logging
import shutil
from pathlib import Path

import pytest
from PIL import Image

from convllava.cli import options
from convllava.cli.main import main
from convllava.support import EscapedFormatter, escaped

ESCAPES = "bad \x1b[31mred\x1b[2J \x9b1m.png"


@pytest.mark.parametrize("content", [None, b"no image", b""])
@pytest.mark.parametrize("command", ["ask", "cost"])
def test_errors(command: str, content: bytes | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / ESCAPES
    if content is not None:
        path.write_bytes(content)
    assert main([command, str(path), *(["What?"] if command == "ask" else [])]) == 2
    out, err = capsys.readouterr()
    assert "\x1b" not in out + err and "\x9b" not in out + err
    assert r"bad \x1b[31mred\x1b[2J \x9b1m.png" in err


def test_remarks(capsys: pytest.CaptureFixture[str]) -> None:
    options.remark("p\x1b[2J.png is shown smaller\n\tas said \udcff")
    assert capsys.readouterr().err == "p\\x1b[2J.png is shown smaller\n\tas said \\udcff\n"


def test_a_data_url_is_not_taken_for_the_question(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ask", "data:image/png;base64," + "A" * 5000]) == 2
    err = capsys.readouterr().err
    assert "is an image" in err and len(err) < 400


NAMED = "[red]:cat: \x1b[31m\x9b2J\u202e"
SHOWN = r"[red]:cat: \x1b[31m\x9b2J\u202e"


def _shows(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> str:
    """Run a command and return what it prints, in which a table may have broken the name."""
    assert main(list(arguments)) == code
    out, err = capsys.readouterr()
    assert not {"\x1b", "\x9b", "\u202e", "\r"} & set(out + err), (out, err)
    return out + err


@pytest.fixture
def named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data file and its image with such a name."""
    monkeypatch.setattr("rich.console.Console.width", 200)
    folder = tmp_path / "data"
    folder.mkdir()
    turns = [{"from": "human", "value": f"<image>\n{NAMED}?"}, {"from": "gpt", "value": f"[/a] {NAMED}"}]
    Image.new("RGB", (64, 64)).save(folder / f"{NAMED}.png")
    records = [{"id": f"[/b] {NAMED}", "image": f"{NAMED}.png", "conversations": turns}, {"id": "[/c]"}]
    (folder / f"{NAMED}.json").write_text(json.dumps(records))
    return folder / f"{NAMED}.json"


def test_data(named: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = (
        "data",
        "check",
        str(named),
        "--jobs",
        "1",
        "--preview",
        "1",
        "--clean",
        str(named.with_name("c.json")),
    )
    shown = _shows(capsys, *arguments, code=1)
    assert f"data/{SHOWN}.json, record 0 (id [/b] {SHOWN})" in shown and "[/a] [red]:cat:" in shown
    assert json.loads(_shows(capsys, "data", "check", str(named), "--jobs", "1", "--json", code=1))["faults"]
    _shows(capsys, "data", "stats", str(named))


def test_models(tiny_checkpoint: Path, named: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = shutil.copytree(tiny_checkpoint, tmp_path / NAMED)
    image = str(named.with_suffix(".png"))
    _shows(capsys, "inspect", str(copy))
    assert SHOWN in _shows(capsys, "convert", str(copy), str(tmp_path / f"{NAMED} 2"))
    assert SHOWN in _shows(capsys, "cost", image, "--model", str(copy))
    _shows(capsys, "train", str(named.with_suffix(".yaml")), "--dry-run", code=2)


def test_logged_names(capsys: pytest.CaptureFixture[str]) -> None:
    """Warnings of the library, and the lines of the server's log."""
    main(["--version"])
    assert logging.lastResort is not None and isinstance(logging.lastResort.formatter, EscapedFormatter)
    record = logging.LogRecord("x", logging.WARNING, "x.py", 1, "%s is damaged", (NAMED,), None)
    assert logging.lastResort.format(record) == f"{SHOWN} is damaged"


def test_letters_of_all_languages_are_shown() -> None:
    text = "12\u202f000\u00a0€ \u3000 👨\u200d👩\u200d👧 می\u200cخواهم é"
    assert escaped(text) == options.printable(text) == text
    assert escaped("a\rb\u2028c\x7f\ufeff") == r"a\rb\u2028c\x7f\ufeff"
