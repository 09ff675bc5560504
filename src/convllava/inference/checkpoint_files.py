"""Finding a checkpoint's files and seeing that they are whole, before anything is loaded from them."""

import json
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from safetensors import SafetensorError, safe_open

from ..model import ConvLlavaConfig

BUNDLED = {"nano": Path(__file__).parent.parent / "assets" / "nano"}
"""Checkpoints that come with the package."""

_WANTED = ("*.json", "*.safetensors", "*.jinja", "*.txt", "*.model")
_INDEX = "model.safetensors.index.json"
_SINGLE = "model.safetensors"


def locate(source: str | Path) -> Path:
    """Return the directory of a checkpoint: bundled, given, or fetched from the hub into its cache.

    Raises:
        ValueError: There is none.
    """
    name = str(source)
    if name in BUNDLED:
        return _bundled(name)
    path = Path(source)
    if path.is_dir():
        return path
    if path.exists():
        raise ValueError(f"{name} is a file: a model is a directory with config.json and model.safetensors")
    if not isinstance(source, str) or not _looks_like_hub_id(source):
        known = ", ".join(map(repr, BUNDLED))
        raise ValueError(
            f"unknown model {name!r}: there is no such directory; give {known}, a checkpoint "
            "directory or a hub id (owner/name)"
        )
    return _fetch(source)


def check_files(folder: Path) -> None:
    """Check that a folder holds a ConvLLaVA checkpoint whose weight files are complete.

    Raises:
        ValueError: Another architecture, or a file that is missing or damaged; the message names it.
    """
    _check_architecture(folder)
    for path in _weight_files(folder):
        _check_complete(path)


def _bundled(name: str) -> Path:
    folder = BUNDLED[name]
    if not (folder / "config.json").is_file():
        raise ValueError(
            f"this build of convllava carries no weights of {name!r}: install a release, or give a "
            "checkpoint directory or a hub id as the model"
        )
    return folder


def _looks_like_hub_id(source: str) -> bool:
    parts = source.split("/")
    return len(parts) == 2 and all(parts) and not source.startswith((".", "~", "-"))


def _fetch(hub_id: str) -> Path:
    try:
        return Path(snapshot_download(hub_id, allow_patterns=list(_WANTED)))
    except (OSError, ValueError) as error:  # the hub's own errors are OSErrors
        reason = str(error).strip().splitlines()[0].rstrip(".")
        raise ValueError(
            f"unknown model {hub_id!r}: there is no such directory and it cannot be fetched from the hub "
            f"({reason}); check the name and the connection, or give a local directory"
        ) from error


def _check_architecture(folder: Path) -> None:
    path = folder / "config.json"
    if not path.is_file():
        raise ValueError(f"{folder} is not a checkpoint: it has no config.json")
    model_type = _read_json(path).get("model_type")
    if model_type != ConvLlavaConfig.model_type:
        raise ValueError(
            f"{folder} holds a model of type {model_type!r} (config.json), not "
            f"{ConvLlavaConfig.model_type!r}: only ConvLLaVA checkpoints can be loaded here"
        )


def _weight_files(folder: Path) -> list[Path]:
    names = [_SINGLE]
    if (folder / _INDEX).is_file():
        names = sorted(set(_read_json(folder / _INDEX).get("weight_map", {}).values()))
    for name in names:
        # an index is not to be trusted: it could point anywhere
        if Path(name).name != name or not (folder / name).is_file():
            raise ValueError(f"{folder} has no weights: {name} is missing; copy or download it again")
    return [folder / name for name in names]


def _check_complete(path: Path) -> None:
    try:
        with safe_open(path, framework="pt"):  # reads the header and compares it with the file's size
            pass
    except SafetensorError as error:
        raise ValueError(f"{path} is not a complete safetensors file ({error}): copy or download it again") from error


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON ({error}): copy or download it again") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold a JSON object, got {type(content).__name__}")
    return content
