"""The commands of README and docs are run, and what they print is compared with what the page shows.

The convention for a page:

* A ``console`` block has commands, each after ``$ `` (a line that ends in a backslash continues in the next line). The
  lines below a command are its output on both streams, and are compared with what it prints. A command without output
  below it only has to succeed. ``...`` in a line stands for any text, ``...`` alone for any number of lines; runs of
  spaces are equal, and empty lines at the end do not count. A command with a line ``error: ...`` in its output has to
  fail. Lines after ``> `` are its standard input.
* A ``bash`` block is run as a script; a ``python`` block is run in one namespace with the earlier ones of the page.
* Comments before a block, invisible on the rendered page:

  - ``<!-- not run: REASON -->``: it needs weights, a GPU, the network or hours, or runs until it is stopped.
  - ``<!-- slow: REASON -->``: run by ``make test-slow`` only; blocks that are not slow must not depend on it.
  - ``<!-- file: NAME -->``: the block is the content of a file, which is written at this place of the page.
  - ``<!-- prepare: COMMANDS -->``: shell commands that are run before the block, to make files that it needs.

The blocks of a page run in order in one temporary folder with links to ``recipes``, ``examples`` and ``benchmarks``;
the hub is offline. A plain ``convllava`` command runs in the process of the test, all others in bash.
"""

import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from convllava.cli.main import main

ROOT = Path(__file__).resolve().parents[1]
LINKED = ("recipes", "examples", "benchmarks")
PAGES = [
    "README.md",
    *sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").glob("*.md")),
    *sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "examples").rglob("README.md")),
]
RUNNABLE = ("console", "bash", "python")
LANGUAGES = (*RUNNABLE, "text", "yaml", "json", "html")
MARKER = re.compile(r"<!-- (not run|slow|file|prepare):\s+(.+?)\s+-->", re.DOTALL)
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
QUOTED = re.compile(r"""'[^']*'|"[^"$`\\\\]*"|(?:^|\s)\#.*$""", re.MULTILINE)
"""Strings without expansions, and comments."""

SHELL = re.compile(r"[|&;<>`$*?(){}!~\n]")
"""Characters that only a shell understands."""


@dataclass(frozen=True)
class Command:
    """A command, the lines typed into it, and the lines that the page shows below it."""

    text: str
    typed: list[str] = field(default_factory=list)
    shown: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Block:
    """A fenced block of a page with its markers."""

    language: str
    content: str
    line: int
    markers: dict[str, str]

    @property
    def commands(self) -> list[Command]:
        """Commands of a ``console`` block."""
        found: list[Command] = []
        lines = iter(self.content.splitlines())
        for line in lines:
            if line.startswith("$ "):
                text = line[2:]
                while text.endswith("\\"):
                    text += "\n" + next(lines)
                found.append(Command(text))
            elif not found:
                raise ValueError(f"line {self.line}: a console block begins with `$ `, not {line!r}")
            elif line.startswith("> "):
                found[-1].typed.append(line[2:])
            else:
                found[-1].shown.append(line)
        return found


def blocks_of(page: str) -> list[Block]:
    """Return the fenced blocks of a page; a marker belongs to the block after it."""
    found, end = [], 0
    for match in FENCE.finditer(page):
        markers = dict(MARKER.findall(page[end : match.start()]))
        found.append(Block(match[1], match[2], page.count("\n", 0, match.start()) + 1, markers))
        end = match.end()
    return found


def read(page: str) -> list[Block]:
    return blocks_of((ROOT / page).read_text(encoding="utf-8"))


def agree(shown: list[str], printed: list[str]) -> bool:
    """Return whether printed lines agree with those of a page, in which ``...`` stands for anything."""
    lines = [" ".join(line.split()) for line in "\n".join(shown).rstrip().splitlines()]
    pattern = "".join(
        r"(?:.*\n)*?" if line == "..." else re.escape(line).replace(r"\.\.\.", ".*") + r"\n" for line in lines
    )
    text = "".join(" ".join(line.split()) + "\n" for line in "\n".join(printed).rstrip().splitlines())
    return re.fullmatch(pattern, text) is not None


class Session:
    """The blocks of a page, run in order in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.namespace: dict[str, Any] = {"__name__": "__page__"}
        programs = folder / ".bin"
        programs.mkdir()
        for name, arguments in {"convllava": "-m convllava.cli.main", "python": ""}.items():
            (programs / name).write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {arguments} "$@"\n')
            (programs / name).chmod(0o755)
        self.environment = os.environ | {"PATH": f"{programs}:{os.environ['PATH']}"}
        for name in LINKED:
            if (ROOT / name).is_dir():
                (folder / name).symlink_to(ROOT / name)

    def run(self, block: Block) -> None:
        """Run a block and check what it prints; a failure names the line of the page."""
        if "prepare" in block.markers:
            self.check(Command(block.markers["prepare"]), block.line)
        if "file" in block.markers:
            path = self.folder / block.markers["file"]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.content, encoding="utf-8")
        elif block.language == "python":
            with contextlib.redirect_stdout(io.StringIO()):
                exec(compile(block.content, f"block at line {block.line}", "exec"), self.namespace)
        elif block.language == "bash":
            self.check(Command(block.content), block.line)
        elif block.language == "console":
            for command in block.commands:
                self.check(command, block.line)

    def check(self, command: Command, line: int) -> None:
        code, printed = self.execute(command)
        fails = any(shown.startswith("error:") for shown in command.shown)
        assert (code != 0) == fails, f"line {line}: exit code {code} of {command.text}\n{printed}"
        if command.shown:
            shown = "\n".join(command.shown)
            assert agree(command.shown, printed.splitlines()), (
                f"line {line}: {command.text}\nthe page shows:\n{shown}\nit prints:\n{printed}"
            )

    def execute(self, command: Command) -> tuple[int, str]:
        text = command.text.replace("\\\n", " ")
        words = [] if SHELL.search(QUOTED.sub("", text)) else shlex.split(text, comments=True)
        typed = "".join(line + "\n" for line in command.typed)
        if words[:1] == ["convllava"]:
            return run_here(words[1:], typed)
        result = subprocess.run(
            ["bash", "-e", "-o", "pipefail", "-c", command.text],
            cwd=self.folder,
            env=self.environment,
            input=typed,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=900,
        )
        return result.returncode, result.stdout


def run_here(words: list[str], typed: str) -> tuple[int, str]:
    """Run ``convllava`` in this process; return its exit code and what it prints on both streams."""
    stream, stdin = io.StringIO(), sys.stdin
    sys.stdin = io.StringIO(typed)
    try:
        with contextlib.redirect_stdout(stream), contextlib.redirect_stderr(stream):
            code = main(words)
    finally:
        sys.stdin = stdin
    return code, stream.getvalue()


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Session]:
    """A folder to run a page in, without the user's caches and settings."""
    values = {"HF_HUB_OFFLINE": "1", "XDG_CACHE_HOME": str(tmp_path / ".cache"), "COLUMNS": "80", "NO_COLOR": "1"}
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    for name in ("LMUData", "CONVLLAVA_DATA", "CONVLLAVA_DEBUG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    yield Session(tmp_path)


def is_run(block: Block, *, slow: bool) -> bool:
    wanted = block.language in RUNNABLE or "file" in block.markers
    return wanted and "not run" not in block.markers and (slow or "slow" not in block.markers)


@pytest.mark.parametrize("page", PAGES)
def test_a_page_shows_what_its_commands_print(page: str, session: Session) -> None:
    for block in read(page):
        if is_run(block, slow=False):
            session.run(block)


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if any("slow" in block.markers for block in read(page))])
def test_a_page_shows_what_its_slow_commands_print(page: str, session: Session) -> None:
    for block in read(page):
        if is_run(block, slow=True):
            session.run(block)


@pytest.mark.parametrize("page", PAGES)
def test_every_block_is_run_or_says_why_not(page: str) -> None:
    """A block is in a language that is known here, console blocks can be read, and a reason is a few words at least."""
    text = (ROOT / page).read_text(encoding="utf-8")
    found = read(page)
    assert text.count("\n```") + text.startswith("```") == 2 * len(found)  # none is nested, indented or left open
    for block in found:
        assert block.language in LANGUAGES, f"line {block.line}: a block in {block.language!r}"
        assert all(len(block.markers[name]) > 5 for name in ("not run", "slow") if name in block.markers)
        if block.language == "console" and "not run" not in block.markers:
            assert block.commands, f"line {block.line}: a console block without `$ `"


PAGE = """\
<!-- prepare: printf 'one\\ntwo\\n' > lines.txt -->

```console
$ cat lines.txt      # a comment
one
two
$ cat \\
    lines.txt
...
two
```

<!-- not run: it needs a GPU -->

```console
$ false
```

<!-- file: sub/settings.yaml -->

```yaml
a: 1
```

<!-- slow: it takes a minute -->

```bash
grep -q a sub/settings.yaml
cat
```

```python
x = 2
```

```python
assert x == 2
```
"""


def test_tests_that_promises_name_exist(repository: Path) -> None:
    """The tables of promises say which test holds each line, by its name or its file."""
    code = "".join(path.read_text(encoding="utf-8") for path in (repository / "tests").rglob("test_*.py"))
    defined = set(re.findall(r"def (test_\w+)", code))
    for page in sorted((repository / "docs").glob("*.md")):
        text = page.read_text(encoding="utf-8")
        named = re.findall(r"(?<=[`:])(test_\w+)(?=`)", text)
        assert set(named) <= defined, f"{page.name}: {sorted(set(named) - defined)}"
        files = re.findall(r"`(tests/[\w/]+\.py)", text)
        assert [file for file in files if not (repository / file).is_file()] == [], page.name


def test_blocks_are_run_in_order(session: Session) -> None:
    blocks = blocks_of(PAGE)
    assert [block.language for block in blocks] == ["console", "console", "yaml", "bash", "python", "python"]
    assert [is_run(block, slow=False) for block in blocks] == [True, False, True, False, True, True]
    assert blocks[1].markers == {"not run": "it needs a GPU"} and blocks[0].line == 3
    for block in blocks:
        if is_run(block, slow=True):
            session.run(block)
    assert (session.folder / "sub" / "settings.yaml").read_text() == "a: 1\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("$ echo one\ntwo\n", "the page shows"),
        ("$ false\n", "exit code 1"),
        ("$ echo error: none\nerror: none\n", "exit code 0"),
        ("$ convllava ask nothing.png 'What?'\nerror: something else\n", "nothing.png"),
    ],
)
def test_differences_are_found(content: str, message: str, session: Session) -> None:
    with pytest.raises(AssertionError, match=message):
        session.run(Block("console", content, 1, {}))


def test_typed_lines_and_errors(session: Session) -> None:
    session.run(Block("console", "$ cat\n> one\n> two\none\ntwo\n", 1, {}))
    session.run(Block("console", "$ convllava ask nothing.png 'What?'\nerror: nothing.png does not exist...\n", 1, {}))
    session.run(Block("console", "$ convllava --version | tr a-z A-Z\nCONVLLAVA ...\n", 1, {}))


@pytest.mark.parametrize(
    ("shown", "printed", "same"),
    [
        ("a  b", "a b ", True),
        ("a ... c", "a b c", True),
        ("...\nc", "a\nb\nc", True),
        ("a\n...", "a", True),
        ("a", "a\nb", False),
        ("a...\nc", "ab\nb\nc", False),
    ],
)
def test_dots_stand_for_anything(shown: str, printed: str, same: bool) -> None:
    assert agree(shown.splitlines(), printed.splitlines()) == same


@pytest.mark.parametrize("text", ["```console\nconvllava\n```\n"])
def test_a_command_has_a_prompt(text: str) -> None:
    with pytest.raises(ValueError, match="begins with"):
        assert blocks_of(text)[0].commands
