"""WebDataset shards as rows."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np

from .. import shard_files
from .light_rows import Row
from .rows import StoredRows, StreamedRows
from .through_datasets import explained, import_datasets


def stored_tars(files: list[str]) -> StoredRows:
    datasets = import_datasets()
    text, data = datasets.Value("string"), datasets.Value("binary")
    features = datasets.Features({"key": text, "json": text, "txt": text, "images": [{"path": text, "bytes": data}]})
    numbered = features | {"shard": datasets.Value("int32")}
    with explained(datasets, files):
        dataset = datasets.Dataset.from_generator(
            _numbered_tar_rows,
            features=datasets.Features(numbered),
            gen_kwargs={"shards": [(number, file, _stamp(file)) for number, file in enumerate(files)]},
        )
    counts = np.bincount(np.asarray(dataset.with_format("numpy")["shard"][:]), minlength=len(files))
    return StoredRows(dataset.remove_columns("shard"), counts.tolist())


def _numbered_tar_rows(shards: list[tuple[int, str, list[int]]]) -> Iterator[Row]:
    """Yield rows with their shard's number; the stamp only makes a changed file another data set for the cache.

    ``datasets`` calls this with all shards or with some of them, as it likes.
    """
    for number, file, _ in shards:
        yield from ({**row, "shard": number} for row in shard_files.tar_rows([file]))


def _stamp(file: str) -> list[int]:
    if shard_files.is_remote(file):
        return []
    status = Path(file).stat()
    return [status.st_size, status.st_mtime_ns]


def streamed_tars(files: list[str]) -> StreamedRows:
    return StreamedRows(_TarStream(files), _TarLengths(files))


class _TarStream:
    def __init__(self, files: list[str]) -> None:
        self.files = files

    def __call__(self, shard: int, start: int) -> Iterator[Row]:
        return islice(shard_files.tar_rows([self.files[shard]]), start, None)


class _TarLengths:
    def __init__(self, files: list[str]) -> None:
        self.files = files

    def __call__(self, shard: int) -> int | None:
        file = self.files[shard]
        return None if shard_files.is_remote(file) else shard_files.tar_shard_length(file)
