"""Help and tables on a terminal of 80 columns: nothing is cut, and every help ends with two examples."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from rich.console import Console

from convllava.cli.examples import EXAMPLES
from convllava.cli.main import COMMANDS, load_command, main
from convllava.cli.tables import Column, fitting, print_table

WIDTH = 80


def commands() -> Iterator[tuple[str, Any]]:
    """Every command and subcommand with its name."""
    yield "", None
    for name in COMMANDS:
        command = load_command(name)
        yield name, command
        yield from ((f"{name} {sub}", subcommand) for sub, subcommand in getattr(command, "commands", {}).items())


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal of 80 columns, as far as rich and click can tell."""
    monkeypatch.setenv("COLUMNS", str(WIDTH))
    monkeypatch.setenv("FORCE_COLOR", "1")


def lines_of(text: str) -> list[str]:
    return [re.sub(r"\x1b\[[0-9;]*m", "", line).rstrip() for line in text.splitlines()]


@pytest.mark.parametrize("name", [name for name, _ in commands()])
def test_a_help_fits_and_ends_with_two_examples(name: str, terminal: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*name.split(), "--help"]) == 0
    lines = lines_of(capsys.readouterr().out)
    assert max(map(len, lines)) <= WIDTH
    cut = [line for line in lines if "…" in line or line.endswith("...")]
    assert [line for line in cut if not line.endswith(("]...", "}..."))] == []  # the usage: what may be repeated
    examples = [line.strip() for line in lines[lines.index("  Examples:") + 1 :]]
    assert len(examples) == 2 and examples == list(EXAMPLES[name])
    assert all(f"convllava {name}".rstrip() in example or "convllava.cli.main" in example for example in examples)


@pytest.mark.parametrize(("name", "command"), [(name, command) for name, command in commands() if command])
def test_every_option_is_named_in_full(
    name: str, command: Any, terminal: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*name.split(), "--help"]) == 0
    text = capsys.readouterr().out
    for parameter in command.params:
        assert all(option in text for option in parameter.opts if option.startswith("--"))


@pytest.mark.parametrize("example", sorted({example for pair in EXAMPLES.values() for example in pair}))
def test_options_of_the_examples_exist(example: str) -> None:
    words = example.partition("convllava ")[2].split() or example.partition("main ")[2].split()
    options = {name: command for name, command in commands() if name}
    name = max((name for name in options if " ".join(words).startswith(name)), key=len)
    known = {option for parameter in options[name].params for option in [*parameter.opts, *parameter.secondary_opts]}
    assert {word for word in words if word.startswith("--")} <= known


@pytest.fixture
def examples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A current folder with an image and a small data set."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    Image.new("RGB", (300, 200)).save("photo.png")
    conversation = '[{"from": "human", "value": "<image>What?"}, {"from": "gpt", "value": "a photo"}]'
    records = [f'{{"id": "{n}", "image": "{name}", "conversations": {conversation}}}' for n, name in enumerate("ab")]
    good = records[0].replace('"a"', '"photo.png"')
    Path("a-data-set-with-a-rather-long-name-for-its-file.json").write_text(f"[{good}, {records[1]}]")
    Path("good.json").write_text(f"[{good}]")
    recipe = {
        "training_stage": "instruct",
        "init_from": "nano",
        "data": [{"path": "good.json"}],
        "learning_rate": 1e-4,
        "max_steps": 1,
        "global_batch_size": 1,
        "output_dir": "run",
    }
    Path("recipe.yaml").write_text(str(recipe))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["cost", "--table1"], ["ConvLLaVA", "TFLOPs"]),
        (["cost", "nano", "--height", "256"], ["language: attention", "share"]),
        (["cost", "photo.png", "photo.png"], ["native, own size", "all images"]),
        (["data", "check", "a-data-set-with-a-rather-long-name-for-its-file.json", "--jobs", "1"], ["supervised"]),
        (["data", "stats", "a-data-set-with-a-rather-long-name-for-its-file.json"], ["megapixels", "mean"]),
        (["train", "recipe.yaml", "--dry-run"], ["vision_tower", "parameters"]),
        (["inspect", "nano"], ["vision encoder"]),
    ],
)
def test_a_table_fits(
    arguments: list[str], words: list[str], examples: None, terminal: None, capsys: pytest.CaptureFixture[str]
) -> None:
    main(arguments)
    printed = capsys.readouterr()
    assert "error: " not in printed.err
    lines = lines_of(printed.out)
    tables = [line for line in lines if "   " in line]
    assert max(map(len, tables)) <= WIDTH
    assert all(any(word in line for line in lines) for word in words)
    stubs = [line for line in tables if re.fullmatch(r"\s*[^\W\d]{1,2}(\s+[^\W\d]{1,2})*", line)]
    assert stubs == [], "a column is so narrow that words break into letters"


COLUMNS = [
    Column("name", words=True),
    Column("tokens"),
    Column("FLOPs", rank=1),
    Column("a remark", words=True, rank=2),
]
ROWS = [["a system", "576", "12.31 TFLOPs", "words that may wrap, but not into single letters"]]


@pytest.mark.parametrize(
    ("width", "shown"), [(80, [0, 1, 2, 3]), (48, [0, 1, 2, 3]), (47, [0, 1, 2]), (27, [0, 1]), (5, [0, 1])]
)
def test_columns_are_left_out_by_importance(width: int, shown: list[int]) -> None:
    assert fitting(COLUMNS, ROWS, width) == shown


def test_what_is_left_out_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(Console(width=40), "Systems", COLUMNS, ROWS)
    out = capsys.readouterr().out
    assert "(too narrow for: a remark;" in out and "12.31 TFLOPs" in out and "wrap" not in out.splitlines()[2]
