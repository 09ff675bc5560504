"""Settings dataclasses as options of the command line."""

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import pytest
import typer

from convllava.cli.options import expand_settings


@dataclass(frozen=True)
class Decoding:
    """Options without a default, with one, a flag, a choice and a list."""

    temperature: Annotated[float, typer.Option(min=0.0, help="Randomness of the answer.")]
    seed: Annotated[int, typer.Option(help="Seed of the sampler.")] = 7
    greedy: Annotated[bool, typer.Option("--greedy", help="Take the most likely token.")] = False
    cache: Annotated[Literal["slab", "paged"], typer.Option(help="Layout of the cache.")] = "slab"
    stop: Annotated[list[str], typer.Option(help="Text that ends an answer; repeatable.")] = field(default_factory=list)


@dataclass(frozen=True)
class Everything:
    """A group inside a group."""

    decoding: Decoding
    prompt_format: Annotated[str | None, typer.Option(help="Prompt format.")] = None


@pytest.fixture
def command() -> tuple[Any, list[Any]]:
    """A typer app of one command, and the list of the arguments that the command was called with."""
    calls: list[Any] = []
    app = typer.Typer(add_completion=False)

    @app.command()
    @expand_settings
    def generate(
        prompt: Annotated[str, typer.Argument(help="Text to continue.")],
        length: Annotated[int, typer.Option(help="Tokens to generate.")] = 16,
        *,
        everything: Everything,
    ) -> None:
        """Continue a text."""
        calls.append((prompt, length, everything))

    return typer.main.get_command(app), calls


def run(command: Any, *words: str) -> None:
    command.main(args=list(words), prog_name="generate", standalone_mode=False)


def test_a_command_is_called_with_its_settings(command: tuple[Any, list[Any]]) -> None:
    app, calls = command
    run(app, "Once", "--temperature", "0.5", "--stop", "a", "--stop", "b", "--greedy", "--prompt-format", "plain")
    decoding = Decoding(temperature=0.5, seed=7, greedy=True, cache="slab", stop=["a", "b"])
    assert calls == [("Once", 16, Everything(decoding, "plain"))]


def test_defaults_of_fields_are_those_of_options(command: tuple[Any, list[Any]]) -> None:
    app, calls = command
    run(app, "Once", "--temperature", "0", "--length", "3")
    assert calls == [("Once", 3, Everything(Decoding(0.0)))]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["Once"], "--temperature"),
        (["Once", "--temperature", "-1"], "greater than or equal to 0"),
        (["Once", "--temperature", "warm"], "valid number"),
        (["Once", "--temperature", "1", "--cache", "none"], "'slab', 'paged'"),
        (["--temperature", "1"], "prompt"),
    ],
)
def test_options_are_checked_as_those_of_parameters(
    words: list[str], message: str, command: tuple[Any, list[Any]]
) -> None:
    app, calls = command
    with pytest.raises(typer.TyperException) as error:
        run(app, *words)
    assert message in error.value.format_message() and calls == []


def test_the_help_lists_fields_in_order(command: tuple[Any, list[Any]], capsys: pytest.CaptureFixture[str]) -> None:
    app, _ = command
    run(app, "--help")
    text = capsys.readouterr().out
    names = ["--length", "--temperature", "--seed", "--greedy", "--cache", "--stop", "--prompt-format"]
    places = [text.index(name) for name in names]
    assert places == sorted(places)
    assert "Continue a text." in text and "Randomness of the answer." in text and "--no-greedy" not in text


def test_two_options_of_one_name_are_refused() -> None:
    @dataclass(frozen=True)
    class Other:
        seed: Annotated[int, typer.Option()] = 1

    def generate(*, decoding: Decoding, other: Other) -> None: ...

    with pytest.raises(ValueError, match="duplicate parameter name: 'seed'"):
        expand_settings(generate)


def test_a_command_without_settings_keeps_its_parameters() -> None:
    calls: list[tuple[str, int]] = []

    @expand_settings
    def generate(prompt: str, length: int = 16) -> None:
        calls.append((prompt, length))

    app = typer.Typer(add_completion=False)
    app.command()(generate)
    run(typer.main.get_command(app), "Once", "--length", "2")
    assert calls == [("Once", 2)]
