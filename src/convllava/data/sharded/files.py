"""Paths of shards: files, folders and URLs, with wildcards and ranges."""

import glob
import re
from collections.abc import Iterator
from pathlib import Path

PARQUET = ".parquet"
TARS = (".tar", ".tar.gz", ".tgz")
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
_WILDCARD = re.compile(r"[*?\[]")


def is_sharded(path: str | Path) -> bool:
    """Return whether a path names parquet files or tars rather than a JSON file."""
    return str(path).endswith((PARQUET, *TARS)) or (Path(path).is_dir() and bool(_shards_in(Path(path))))


def list_shards(path: str | Path) -> list[str]:
    """Return the shards of a path in order: a file, a folder or a URL, with ``*`` or ``{000..127}``.

    Raises:
        ValueError: There is no such file, a range has one that is missing, or the files have several formats.
    """
    text = str(path)
    found: list[str] = []
    for name in _expand_ranges(text):
        files = _expand_wildcards(name)
        if not files:
            raise ValueError(f"no data file {name}" + f", which is in the range {text}" * (name != text))
        found += files
    if len({file.endswith(PARQUET) for file in found}) > 1:
        raise ValueError(f"{text} holds shards of several formats ({found[0]}, {found[-1]}); give an entry to each")
    return found


def is_remote(text: str) -> bool:
    """Return whether a path is a URL (``https://``, ``hf://``, ``s3://``)."""
    return "://" in text


def _expand_ranges(text: str) -> Iterator[str]:
    """Yield ``part-{000..127}.tar`` as 128 names."""
    match = _RANGE.search(text)
    if match is None:
        yield text
        return
    width = len(match[1])
    for number in range(int(match[1]), int(match[2]) + 1):
        yield from _expand_ranges(f"{text[: match.start()]}{number:0{width}d}{text[match.end() :]}")


def _expand_wildcards(text: str) -> list[str]:
    if is_remote(text):
        return _expand_remote(text)
    if Path(text).is_dir():
        return [str(file) for file in _shards_in(Path(text))]
    found = [text] if Path(text).exists() else sorted(glob.glob(text, recursive=True))
    return [file for file in found if Path(file).is_file()]  # not pipes, which would be waited for


def _expand_remote(text: str) -> list[str]:
    from fsspec.core import url_to_fs

    if not _WILDCARD.search(text):
        return [text]
    files, inner = url_to_fs(text)
    return sorted(files.unstrip_protocol(found) for found in files.glob(inner))


def _shards_in(folder: Path) -> list[Path]:
    return sorted(path for ending in (PARQUET, *TARS) for path in folder.glob(f"*{ending}"))
