"""Data sets by name or by path."""

from pathlib import Path

from .catalog import card, find_root
from .conversations import OnBadSample
from .files import open_file
from .samples import RecordSource


def open_source(
    *,
    name: str | None = None,
    path: str | Path | None = None,
    image_folder: str | Path | None = None,
    data_root: str | Path | None = None,
    count: int | None = None,
    streaming: bool = False,
    on_bad_sample: OnBadSample = "stop",
    format: str | None = None,
) -> RecordSource:
    """Open a data set of the catalog by name, or a data file, a folder or shards by path.

    Args:
        name: A data set of the catalog.
        path: A file, folder or shards, see ``files.open_file``.
        image_folder: Folder of the images of ``path``.
        data_root: Folder of the catalog's data sets; the environment variable CONVLLAVA_DATA by default.
        count: Samples in an epoch of shards whose length is unknown.
        streaming: Whether to read shards in place instead of storing them first.
        on_bad_sample: Treatment of samples that cannot be used, see ``ConversationDataset``.
        format: Name of the format of the records of ``path``; by default it is recognized.

    Raises:
        ValueError: The source is unknown, missing or malformed.
    """
    if path is not None and name is None:
        return open_file(
            path, image_folder, streaming=streaming, on_bad_sample=on_bad_sample, count=count, format=format
        )
    if name is None or path is not None:
        raise ValueError(f"a data entry has either a name or a path, got name={name!r} and path={path!r}")
    if format is not None:
        raise ValueError(f"{name}: 'format' is for data by path, and a data set by name has its own")
    if streaming:
        raise ValueError(f"{name}: 'streaming' is for parquet and WebDataset shards by path")
    return card(name).open(find_root(name, data_root), on_bad_sample=on_bad_sample)
