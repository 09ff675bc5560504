"""Small mechanisms that every package needs: JSON, atomic writes, suggestions, optional packages, dtype names."""

import importlib
import json
import logging
import os
import shutil
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import Any


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Lend a temporary path next to ``path`` that replaces it when the block succeeds and is removed otherwise.

    The temporary name keeps the suffix of ``path``, since some writers choose a format by it. Missing parent folders
    are made.

    Raises:
        OSError: The file cannot be written; what was at ``path`` before is untouched.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.tmp-{os.getpid()}{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file atomically.

    Raises:
        OSError: The file cannot be written; what was there before is untouched.
    """
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")  # in JSON this keeps the value


def write_json(path: Path, content: Any) -> None:
    """Write an indented JSON file atomically.

    Raises:
        OSError: The file cannot be written; what was there before is untouched.
    """
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file.

    Raises:
        ValueError: The file is missing, is not valid JSON, or holds something other than an object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ValueError(f"{path} is missing: copy or download it again") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not valid JSON ({error}): copy or download it again") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold a JSON object, got {type(content).__name__}")
    return content


def explain_no_checkpoint(folder: Path) -> str:
    """Return what is wrong with a directory without the configuration of a model: it may hold an adapter."""
    if (folder / "adapter_config.json").is_file():
        base = read_json(folder / "adapter_config.json").get("base_model_name_or_path")
        named = f" ({base})" if base else ""
        return f"{folder} is an adapter, not a model: load its base{named} and give this folder as adapter (--adapter)"
    return f"{folder} is not a checkpoint: it has no config.json"


@contextmanager
def atomic_directory(destination: Path, num_bytes: int = 0) -> Iterator[Path]:
    """Lend a fresh directory next to ``destination`` that becomes it when the block succeeds and is removed otherwise.

    Args:
        destination: A path that does not exist yet, or an empty directory.
        num_bytes: Lower bound on the bytes to be written; checked against the free space first.

    Raises:
        ValueError: ``destination`` is not empty, or the disk has too little free space.
        OSError: Writing failed; nothing is left behind.
    """
    if destination.exists() and not (destination.is_dir() and not any(destination.iterdir())):
        raise ValueError(f"{destination} exists already and is not an empty directory: give another name, or remove it")
    parent = destination.absolute().parent
    parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(parent).free
    if num_bytes > free:
        raise ValueError(
            f"{destination} needs {num_bytes / 2**30:.1f} GiB and only {free / 2**30:.1f} GiB are free there; make "
            "room or write elsewhere"
        )
    temporary = parent / f".{destination.name}.tmp-{os.getpid()}"
    temporary.mkdir()
    try:
        yield temporary
        os.replace(temporary, destination)
    except OSError as error:
        raise OSError(error.errno, f"{error.strerror}; nothing was written", str(destination)) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def did_you_mean(name: object, names: Iterable[str], cutoff: float = 0.6) -> str:
    """Return ``"; did you mean 'nearest'?"`` for the end of a message, or an empty string if no name is near.

    Args:
        name: The unknown name.
        names: The known names.
        cutoff: Similarity between 0 and 1 below which a known name is not suggested.
    """
    near = get_close_matches(str(name), list(names), n=1, cutoff=cutoff)
    return f"; did you mean {near[0]!r}?" if near else ""


class MissingPackageError(ValueError):
    """An optional package is not installed; the message says how to install it."""


def require(package: str, *, extra: str, purpose: str) -> ModuleType:
    """Import an optional package.

    Args:
        package: The module to import, such as ``"matplotlib"``.
        extra: The extra of this project that installs it, such as ``"plots"``.
        purpose: Plural subject of the message, the use of the package: "plots", "parquet files".

    Raises:
        MissingPackageError: The package is not installed.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise MissingPackageError(f"{purpose} need {package}: pip install 'convllava[{extra}]'") from error


def is_encodable(text: str) -> bool:
    """Return whether a text can be written as UTF-8: it has no lone surrogate, half of a character beyond 16 bits."""
    if text.isascii():
        return True
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def encodable(text: str) -> str:
    """Return a text in which lone surrogates, which cannot be written as UTF-8, are escaped as in JSON."""
    if text.isascii():
        return text
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def dtype_name(dtype: object) -> str:
    """Return the name of a torch dtype without its module, such as ``"bfloat16"``."""
    return str(dtype).removeprefix("torch.")


def first_line(error: BaseException) -> str:
    """Return the first line of an exception's message, or the name of its type if the message is empty."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silence transformers' reports and progress bars inside the block; the errors of this package replace them."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def check_loading_report(report: Mapping[str, Collection[Any]], source: object) -> None:
    """Check that ``from_pretrained(..., output_loading_info=True)`` found every tensor and used every tensor.

    Args:
        report: The loading info that transformers returned.
        source: The checkpoint's name for the message.

    Raises:
        ValueError: Tensors are missing, unexpected or of another shape; names the first five of each.
    """
    faults = []
    for key in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        names = sorted(map(str, report.get(key, ())))
        if names:
            more = f" and {len(names) - 5} more" if len(names) > 5 else ""
            faults.append(f"{len(names)} {key.removesuffix('_keys')}: {', '.join(names[:5])}{more}")
    if faults:
        raise ValueError(f"the weights of {source} do not fit the model; {'; '.join(faults)}. Save the model again")


_SHOWN = frozenset("\n\t\u200c\u200d")
"""Characters that are shown although Python counts them as not printable: line ends, and the joiners of emoji and of
Persian and Indic letters."""


def is_shown(character: str) -> bool:
    """Return whether a character is shown as it is, not one that drives a terminal or turns the order of a line."""
    return character.isprintable() or character in _SHOWN or unicodedata.category(character) == "Zs"


def escaped(text: str) -> str:
    """Return a text with its control characters, which could drive a terminal, written as escapes such as ``\\x1b``."""
    if text.isprintable():
        return text
    return "".join(c if is_shown(c) else c.encode("unicode_escape").decode() for c in text)


class EscapedFormatter(logging.Formatter):
    """Formats log records with their control characters escaped: names of files and messages may hold any."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record."""
        return escaped(super().format(record))


def duration(seconds: float) -> str:
    """Return a time in the units that fit it."""
    if seconds < 0.1:
        return f"{1000 * seconds:.2g} ms"
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 120:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 72 else f"{hours / 24:.1f} days"
