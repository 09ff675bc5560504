"""The ``convllava`` program.

A command is a module of this package, imported only when it is used, so that ``convllava --help`` is instant.
The module has either a function of the command's own name (``ask.ask``) or, for a group of subcommands, an
``app`` (``data.app``, a ``typer.Typer``).

What a user can cause (``ValueError``, ``OSError``, a missing optional package) ends as one line on standard
error and exit code 2; ``CONVLLAVA_DEBUG=1`` adds the traceback.
"""

import importlib
import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

COMMANDS = {
    "ask": "Ask a question about images.",
    "chat": "Talk about images, in several turns.",
    "demo": "Ask the bundled model about one image of each kind.",
    "serve": "Serve a model: OpenAI's API and a page.",
    "train": "Train a model as a recipe says.",
    "data": "Make, check and measure data.",
    "eval": "Run a benchmark, score predictions and tabulate scores.",
    "convert": "Rewrite a checkpoint in another layout.",
    "join": "Join an encoder and a language model by an untrained projector.",
    "inspect": "Say what a checkpoint is and what is odd about it.",
    "verify": "Compare two checkpoints, tensor by tensor and in what they answer.",
    "export": "Write a model or its encoder for other programs.",
    "cost": "Count what images cost: tokens, FLOPs, memory, time.",
}

USER_ERROR = 2
INTERRUPTED = 130


class LazyGroup(TyperGroup):
    """A group that lists commands by name and help alone and imports the one that is used."""

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        name, command, rest = super().resolve_command(ctx, args)
        return name, load_command(name) if name and command else command, rest


def load_command(name: str) -> Any:
    """Import a command's module and return the click command made of it."""
    module = importlib.import_module(f"convllava.cli.{name}")
    app = getattr(module, "app", None)
    if isinstance(app, typer.Typer):
        group = typer.main.get_group(app)
        group.name, group.help = name, group.help or COMMANDS[name]
        return group
    single = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    single.command(name)(getattr(module, name))
    return typer.main.get_command(single)


def print_version(wanted: bool) -> None:
    if wanted:
        from convllava import __version__

        print(f"convllava {__version__}")
        raise typer.Exit


def root(
    version: Annotated[
        bool, typer.Option("--version", callback=print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """ConvLLaVA: high-resolution images for a language model."""


def stub() -> None:
    """Stands in for a command in the list of commands; never run."""


def build_app() -> typer.Typer:
    app = typer.Typer(name="convllava", cls=LazyGroup, pretty_exceptions_enable=False)
    app.callback()(root)
    for name, description in COMMANDS.items():
        app.command(name, help=description)(stub)
    return app


app = build_app()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program and return its exit code."""
    prepare_environment()
    words = list(sys.argv[1:] if arguments is None else arguments)
    command = typer.main.get_command(app)
    try:
        return command.main(args=words or ["--help"], prog_name="convllava", standalone_mode=False) or 0
    except typer.TyperException as error:
        return report_usage(error)
    except (ValueError, OSError, ImportError) as error:
        return report(error)
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED


def prepare_environment() -> None:
    """Set what must be set before torch and transformers are loaded, and quieten them."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if not sys.warnoptions and not debugging():
        warnings.simplefilter("ignore")


def debugging() -> bool:
    return os.environ.get("CONVLLAVA_DEBUG", "0") not in ("", "0")


def report_usage(error: Any) -> int:
    """Report a command line that cannot be parsed, with the command whose help to read."""
    if type(error).__name__ == "NoArgsIsHelpError":  # a group's own wish; the help has been shown
        return USER_ERROR
    context = getattr(error, "ctx", None)
    hint = f" (see '{context.command_path} --help')" if context else ""
    return fail(error.format_message() + hint)


def report(error: Exception) -> int:
    if debugging():
        traceback.print_exception(error)
    return fail(describe(error))


def describe(error: Exception) -> str:
    """Say in a few words what went wrong: ``photo.png: No such file or directory``."""
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{os.fspath(error.filename)}: {error.strerror}"
    return str(error) or type(error).__name__


def fail(message: str) -> int:
    print("error:", " ".join(message.split()), file=sys.stderr)
    return USER_ERROR


if __name__ == "__main__":
    sys.exit(main())
