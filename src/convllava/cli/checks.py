"""Checks of what a command is given, before torch is imported: mistakes are told at once, not after seconds.

They repeat none of the library's checks: a value that passes here can still be wrong for a model.
"""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..support import did_you_mean, explain_no_checkpoint

DTYPES = ("float32", "bfloat16", "float16", "auto")
_OTHER_DTYPES = ("float64", "float", "double", "half")
_DEVICE = re.compile(r"(cpu|cuda|mps|xpu|npu|hpu|xla|meta|mtia)(:\d+)?")
QUANTIZE = ("int8", "nf4")


@contextmanager
def working(what: str) -> Iterator[None]:
    """Show what the program is busy with on a terminal's standard error, until the block ends."""
    if not sys.stderr.isatty():
        yield
        return
    from .options import console

    with console(stderr=True).status(f"{what} ...", spinner="line", spinner_style="none"):
        yield


def check_model(source: str, *, encoder_alone: bool = False) -> None:
    """Check that a model is bundled, a directory with a configuration, or a hub id, which is fetched here.

    Args:
        source: "nano", a checkpoint directory or a hub id.
        encoder_alone: Whether the file or the OpenCLIP folder of a vision encoder will do too.

    Raises:
        ValueError: There is no such model.
    """
    from ..inference.checkpoint_files import hub_id, locate

    if encoder_alone and Path(source).is_file():
        return
    with working(f"fetching {source}" if hub_id(source) else f"looking for {source}"):
        folder = locate(source)
    names = ("config.json", "open_clip_config.json") if encoder_alone else ("config.json",)
    if not any((folder / name).is_file() for name in names):
        raise ValueError(explain_no_checkpoint(folder))


def check_place(dtype: str | None = None, device: str | None = None, quantize: str | None = None) -> None:
    """Check the names of a dtype, a device and a quantization, as far as they are known without torch.

    Raises:
        ValueError: A name is unknown.
    """
    if dtype is not None and dtype not in (*DTYPES, *_OTHER_DTYPES):
        near = did_you_mean(dtype, DTYPES)
        raise ValueError(f"dtype {dtype!r} is not known: take {', '.join(DTYPES[:-1])} or {DTYPES[-1]}{near}")
    if device is not None and not _DEVICE.fullmatch(device):
        raise ValueError(f"device {device!r} is not known: take cpu, cuda or mps")
    if quantize is not None and quantize not in QUANTIZE:
        raise ValueError(f"quantize is one of {', '.join(QUANTIZE)}, got {quantize!r}")


def check_adapter(folder: Path | None) -> None:
    """Check that an adapter is a directory.

    Raises:
        ValueError: It is missing.
    """
    if folder is not None and not folder.is_dir():
        raise ValueError(f"the adapter {folder} does not exist: give the directory with adapter_config.json")


def check_exists(path: str | Path, what: str = "") -> None:
    """Check that a file or a directory exists.

    Args:
        path: The path.
        what: The noun before it in the message, such as "recipe".

    Raises:
        ValueError: It is missing.
    """
    if not Path(path).exists():
        from ..image_bytes import other_spelling

        name = f"{what} {path}".lstrip()
        hint = other_spelling(path) or ("give another path" if what else "give the path or the http(s) URL of an image")
        raise ValueError(f"{name} does not exist: {hint}")


def check_new(path: Path) -> None:
    """Check that a destination is free: it does not exist, or is an empty directory.

    Raises:
        ValueError: It is taken.
    """
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise ValueError(f"{path} exists already and is not an empty directory: give another name, or remove it")
