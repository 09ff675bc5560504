"""A data set by path, in any format."""

from pathlib import Path

from .conversations import ConversationDataset, OnBadSample
from .sharded import ShardedDataset, is_sharded

FileDataset = ConversationDataset | ShardedDataset


def open_file(
    path: str | Path,
    image_folder: str | Path | None = None,
    *,
    streaming: bool = False,
    on_bad_sample: OnBadSample = "stop",
    count: int | None = None,
    format: str | None = None,
) -> FileDataset:
    """Open a data file, a folder of images, or parquet or WebDataset shards.

    Args:
        path: A file, a folder of images or of shards, or shards by ``*`` or ``{000..127}``; shards may be URLs.
        image_folder: Folder of images that are separate files.
        streaming: Whether to read shards in place instead of storing them first.
        on_bad_sample: Treatment of samples that cannot be used, see the two classes.
        count: Samples in an epoch, for streams of unknown length.
        format: Name of the format of the records (``formats.NAMES``); by default it is recognized.

    Raises:
        ValueError: The file is missing or cannot be used.
    """
    if is_sharded(path):
        return ShardedDataset(
            path, image_folder, streaming=streaming, on_bad_sample=on_bad_sample, count=count, format=format
        )
    if streaming or count is not None:
        raise ValueError(f"{path}: 'streaming' and 'count' are for parquet and WebDataset shards")
    return ConversationDataset(path, image_folder, on_bad_sample=on_bad_sample, format=format)
