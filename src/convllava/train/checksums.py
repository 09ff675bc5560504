"""Checksums of a checkpoint: what is loaded is what was saved, bit for bit.

The formats do not tell: safetensors has no checksum, and torch does not compare those of its zip files. A block of
zeros in the middle of a file, as a failing disk leaves it, would be loaded as weights. XXH3 is several times as fast as
the CRC of zlib: the comparison takes a few percent of the loading.
"""

import json
import logging
import os
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import xxhash

from ..support import first_line

logger = logging.getLogger(__name__)

CHECKSUMS_FILE = "checksums.json"

_BLOCK = 1 << 26
"""Bytes of a file that one checksum is for; blocks are read in parallel."""

_PIECE = 1 << 20
_THREADS = min(8, os.cpu_count() or 1)


def write_checksums(folder: Path) -> None:
    """Write sizes and checksums of all files in a folder and its subfolders into a file in it.

    Raises:
        OSError: A file cannot be read, or the checksums cannot be written.
    """
    with ThreadPoolExecutor(_THREADS) as pool:
        found = {
            path.relative_to(folder).as_posix(): [pool.submit(_checksum, path, start) for start in _starts(path)]
            for path in sorted(folder.rglob("*"))
            if path.is_file() and path.name != CHECKSUMS_FILE
        }
        content = {
            name: {"bytes": (folder / name).stat().st_size, "xxh3": [one.result() for one in blocks]}
            for name, blocks in found.items()
        }
    (folder / CHECKSUMS_FILE).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


class ContentCheck:
    """Comparison of the files of a folder with their checksums, in other threads, while they are loaded.

    Args:
        folder: The folder.

    Raises:
        RuntimeError: A file is missing or has another size than it was saved with.
    """

    def __init__(self, folder: Path) -> None:
        self._pool = ThreadPoolExecutor(_THREADS)
        self._pending: list[tuple[str, int, int, Future[int]]] = []
        if not (folder / CHECKSUMS_FILE).is_file():
            logger.warning("%s has no %s: its files are not compared with what was saved", folder, CHECKSUMS_FILE)
            return
        files = _listed(folder)
        for name, size, checksums in files:
            path = folder / name
            if not path.is_file():
                raise RuntimeError(f"{name} is missing")
            if path.stat().st_size != size or len(_starts(path)) != len(checksums):
                raise RuntimeError(f"{name} has {path.stat().st_size} bytes, {size} were saved")
        for name, _, checksums in files:
            for start, expected in zip(_starts(folder / name), checksums, strict=True):
                self._pending.append((name, start, expected, self._pool.submit(_checksum, folder / name, start)))

    def finish(self) -> None:
        """Wait for the comparison.

        Raises:
            RuntimeError: A file differs from what was saved; nothing that was loaded may be used.
        """
        for name, start, expected, found in self._pending:
            if found.result() != expected:
                raise RuntimeError(f"{name} is not what was saved, after byte {start}")

    def cancel(self) -> None:
        """Leave out what is not compared yet."""
        self._pool.shutdown(cancel_futures=True)


def _listed(folder: Path) -> list[tuple[str, int, list[int]]]:
    """Return name, bytes and checksums of each listed file."""
    try:
        listed = json.loads((folder / CHECKSUMS_FILE).read_text(encoding="utf-8"))
        return [(str(name), int(entry["bytes"]), list(entry["xxh3"])) for name, entry in listed.items()]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RuntimeError(f"{CHECKSUMS_FILE} cannot be read: {first_line(error)}") from error


def _starts(path: Path) -> range:
    return range(0, path.stat().st_size, _BLOCK)


def _checksum(path: Path, start: int) -> int:
    value, piece = xxhash.xxh3_64(), memoryview(bytearray(_PIECE))
    with path.open("rb", buffering=0) as file:
        file.seek(start)
        for _ in range(_BLOCK // _PIECE):
            value.update(piece[: file.readinto(piece)])
    return value.intdigest()
