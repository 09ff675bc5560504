"""Hugging Face's ``datasets``: imported when needed, its errors in words."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


def import_datasets() -> Any:
    try:
        import datasets
    except ImportError as error:
        raise ImportError("parquet and WebDataset need datasets: pip install 'convllava[train]'") from error
    return datasets


@contextmanager
def explained(datasets: Any, files: list[str]) -> Iterator[None]:
    """Turn the errors of ``datasets``, whose causes say more than they do, into a line that names the files."""
    try:
        yield
    except datasets.exceptions.DatasetsError as error:
        cause = error.__cause__ or error
        raise ValueError(f"cannot read {files[0]}{' and others' * (len(files) > 1)}: {cause}") from error
