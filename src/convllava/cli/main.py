"""The ``convllava`` program.

A command is a module of this package, imported only when it is used, so that ``convllava --help`` is instant. The
module has either a function of the command's name (``ask.ask``) or, for a group of subcommands, an ``app``
(``data.app``, a ``typer.Typer``).

Errors that a user can cause (``ValueError``, ``OSError``, a missing optional package) are printed as one line on
standard error, with exit code 2; any other error is one of the program, named as such, with exit code 70.
``CONVLLAVA_DEBUG=1`` adds the traceback to both.
"""

import importlib
import logging
import os
import re
import sys
import traceback
import warnings
from collections.abc import Sequence
from io import TextIOWrapper
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from .examples import EXAMPLES, epilog

COMMANDS = {
    "ask": "Ask a question about one image or several.",
    "chat": "Chat about images, with the dialogue as context.",
    "demo": "Ask the bundled model about one image of each kind.",
    "serve": "Serve a model: the OpenAI API and a chat page.",
    "train": "Train a model by a recipe, or on data alone.",
    "data": "Make, check and measure data.",
    "eval": "Run benchmarks, score predictions and tabulate scores.",
    "findings": "Train and measure the paper's comparisons in miniature.",
    "convert": "Rewrite a checkpoint in another layout.",
    "join": "Join an encoder and a language model by a new projector.",
    "inspect": "Describe a checkpoint and list what is suspicious about it.",
    "verify": "Compare two checkpoints: tensors and logits.",
    "export": "Write a model or its encoder for other programs.",
    "push": "Publish a checkpoint on the hub.",
    "cost": "Count the cost of images: visual tokens, FLOPs, memory, time.",
}

USER_ERROR = 2
INTERNAL_ERROR = 70
INTERRUPTED = 130


class LazyGroup(TyperGroup):
    """A group that lists commands without importing them and imports the one that is used."""

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        name, command, rest = super().resolve_command(ctx, args)
        return name, load_command(name) if name and command else command, rest


def load_command(name: str) -> Any:
    """Import the module of a command and return its click command."""
    module = importlib.import_module(f"convllava.cli.{name}")
    app = getattr(module, "app", None)
    if isinstance(app, typer.Typer):
        group = typer.main.get_group(app)
        group.name, group.help = name, group.help or COMMANDS[name]
        return with_plain_help(group, name)
    single = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    single.command(name)(getattr(module, name))
    return with_plain_help(typer.main.get_command(single), name)


def with_plain_help(command: Any, name: str) -> Any:
    """Have a command and its subcommands show their help as plain text, which needs no wide terminal, with examples."""
    command.rich_markup_mode = None
    if command.help:
        command.short_help = re.split(r"[;:(]", command.help.strip().splitlines()[0])[0].strip(" .") + "."
    if name in EXAMPLES:
        command.epilog = epilog(name)
    for subname, subcommand in getattr(command, "commands", {}).items():
        with_plain_help(subcommand, f"{name} {subname}")
    return command


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
    """Represent a command in the list of commands; it is never called."""


def build_app() -> typer.Typer:
    app = typer.Typer(
        name="convllava",
        cls=LazyGroup,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        epilog=epilog(""),
    )
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
    except MemoryError as error:
        return report(ValueError(f"the memory does not suffice ({error or 'no more can be allocated'})"))
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
    except Exception as error:  # the last resort: errors that users can cause are ValueErrors where they arise
        return report_internal(error)


def prepare_environment() -> None:
    """Set the variables that torch and transformers read when they are imported, and prepare standard output.

    Characters that standard output cannot encode are escaped there.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from convllava.support import EscapedFormatter

    if logging.lastResort is not None:  # the handler of warnings where a command sets up no other
        logging.lastResort.setFormatter(EscapedFormatter())
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a console that is not UTF-8 must not cost an answer
    if not sys.warnoptions and not debugging():
        warnings.simplefilter("ignore")


def debugging() -> bool:
    return os.environ.get("CONVLLAVA_DEBUG", "0") not in ("", "0")


def report_usage(error: Any) -> int:
    """Print the error of a command line that cannot be parsed, with the command whose help to read."""
    if (
        type(error).__name__ == "NoArgsIsHelpError"
    ):  # raised by a group without a subcommand, after its help was printed
        return USER_ERROR
    context = getattr(error, "ctx", None)
    hint = f" (see '{context.command_path} --help')" if context else ""
    return fail(error.format_message() + hint)


def report(error: Exception) -> int:
    if debugging():
        traceback.print_exception(error)
    return fail(describe(error))


def report_internal(error: Exception) -> int:
    if debugging():
        traceback.print_exception(error)
    text = " ".join(str(error).split())
    hint = "" if debugging() else "; run it again with CONVLLAVA_DEBUG=1 to see where, and please report it"
    fail(f"internal error: {type(error).__name__}: {text[:500]}{hint}")
    return INTERNAL_ERROR


def describe(error: Exception) -> str:
    """Return the message of an error, such as ``photo.png: No such file or directory``."""
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{os.fspath(error.filename)}: {error.strerror}"
    return str(error) or type(error).__name__


def fail(message: str) -> int:
    from convllava.support import escaped

    print("error:", escaped(" ".join(message.split())), file=sys.stderr)
    return USER_ERROR


if __name__ == "__main__":
    sys.exit(main())
