"""Data sets by name or path."""

from pathlib import Path
from typing import Any

from ..synthetic import SyntheticDataset
from .catalog import card, find_root
from .conversations import OnBadSample
from .files import open_file
from .samples import SampleSource

SYNTHETIC_PREFIX = "synthetic/"
ENDLESS = 10_000_000
"""Samples of a synthetic source whose recipe names no count: never walked to its end."""


def open_source(
    *,
    name: str | None = None,
    path: str | Path | None = None,
    image_folder: str | Path | None = None,
    data_root: str | Path | None = None,
    count: int | None = None,
    seed: int = 0,
    options: dict[str, Any] | None = None,
    streaming: bool = False,
    on_bad_sample: OnBadSample = "stop",
) -> SampleSource:
    """Open ``synthetic/KIND`` or a data set of the catalog by name, or a LLaVA JSON or JSONL file or shards by path.

    Args:
        count, seed, options: Size, series and options of a synthetic source (training split).
        image_folder: Where a file's images lie.
        data_root: Where the catalog's data sets lie; by default what the environment says.
        streaming, on_bad_sample: See ``files.open_file``; there ``count`` is the samples of an epoch.

    Raises:
        ValueError: When the source is unknown, missing or malformed.
    """
    if (name is None) == (path is None):
        raise ValueError(f"a data entry has either a name or a path, got name={name!r} and path={path!r}")
    if path is not None:
        return open_file(path, image_folder, streaming=streaming, on_bad_sample=on_bad_sample, count=count)
    assert name is not None
    if streaming:
        raise ValueError(f"{name}: 'streaming' is for parquet and WebDataset shards by path")
    if not name.startswith(SYNTHETIC_PREFIX):
        return card(name).open(find_root(name, data_root), on_bad_sample=on_bad_sample)
    kind = name.removeprefix(SYNTHETIC_PREFIX)
    return SyntheticDataset(kind, count=count or ENDLESS, seed=seed, split="train", **(options or {}))
