"""Data sets by name or path."""

from pathlib import Path
from typing import Any

from .conversations import ConversationDataset
from .samples import SampleSource
from .synthetic import SyntheticDataset

SYNTHETIC_PREFIX = "synthetic/"
ENDLESS = 10_000_000
"""Samples of a synthetic source whose recipe names no count: never walked to its end."""


def open_source(
    *,
    name: str | None = None,
    path: str | Path | None = None,
    image_folder: str | Path | None = None,
    count: int | None = None,
    seed: int = 0,
    options: dict[str, Any] | None = None,
) -> SampleSource:
    """Open ``synthetic/KIND`` by name, or a LLaVA JSON or JSONL file by path.

    Args:
        count, seed, options: Size, series and options of a synthetic source (training split).
        image_folder: Where a file's pictures lie.

    Raises:
        ValueError: When the source is unknown, missing or malformed.
    """
    if (name is None) == (path is None):
        raise ValueError(f"a data entry has either a name or a path, got name={name!r} and path={path!r}")
    if path is not None:
        return ConversationDataset(path, image_folder)
    assert name is not None
    if not name.startswith(SYNTHETIC_PREFIX):
        raise ValueError(f"no data set is called {name!r}; known names start with {SYNTHETIC_PREFIX!r}")
    kind = name.removeprefix(SYNTHETIC_PREFIX)
    return SyntheticDataset(kind, count=count or ENDLESS, seed=seed, split="train", **(options or {}))
