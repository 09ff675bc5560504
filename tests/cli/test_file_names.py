"""Names of files reach the terminal with their control characters escaped."""

from pathlib import Path

import pytest

from convllava.cli import options
from convllava.cli.main import main

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
