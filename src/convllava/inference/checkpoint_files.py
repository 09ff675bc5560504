"""Finding the directory of a checkpoint: bundled with the package, given, or fetched from the hub."""

from pathlib import Path
from typing import Any

BUNDLED = {"nano": Path(__file__).parent.parent / "assets" / "nano"}
"""Checkpoints that come with the package."""

_SMALL_FILES = ("*.json", "*.jinja", "*.txt", "*.model")
_WEIGHTS = ("*.safetensors", "*.bin")
"""In the order of preference: where there are both, the second would only be downloaded in vain."""


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


def locate_config(source: str | Path) -> Path:
    """Return the directory of a checkpoint; of a hub id, only the configuration is fetched.

    Raises:
        ValueError: There is none.
    """
    name = hub_id(source)
    if name is None or Path(source).exists():
        return locate(source)
    return _snapshot(name, ["config.json"])


def hub_id(source: str | Path) -> str | None:
    """Return a source that is a hub id, None for any other."""
    is_one = isinstance(source, str) and _looks_like_hub_id(source) and not Path(source).is_dir()
    return str(source) if is_one else None


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


def _fetch(name: str) -> Path:
    folder = _snapshot(name, [*_SMALL_FILES, _WEIGHTS[0]])
    for part in (folder, folder / "vision_tower"):
        if part.is_dir() and not any(part.glob(_WEIGHTS[0])):
            pattern = _WEIGHTS[1] if part == folder else f"{part.name}/{_WEIGHTS[1]}"
            _snapshot(name, [pattern])
    return folder


def snapshot_download(name: str, **options: Any) -> str:
    """Fetch files of a repository from the hub; its client is imported here, since most checkpoints are local."""
    from huggingface_hub import snapshot_download as download

    return download(name, **options)


def _snapshot(name: str, patterns: list[str]) -> Path:
    try:
        return Path(snapshot_download(name, allow_patterns=patterns))
    except (OSError, ValueError) as error:  # the hub's own errors are OSErrors
        reason = str(error).strip().splitlines()[0].rstrip(".")
        raise ValueError(
            f"unknown model {name!r}: there is no such directory and it cannot be fetched from the hub "
            f"({reason}); check the name and the connection, or give a local directory"
        ) from error
