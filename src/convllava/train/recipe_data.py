"""The data of a recipe."""

from ..data.conversations import OnBadSample
from ..data.mixture import Mixture
from ..data.samples import RecordSource
from ..data.sources import open_source
from .recipe import DataEntry, Recipe

SYNTHETIC_PREFIX = "synthetic/"


def open_mixture(recipe: Recipe) -> Mixture:
    """Open the recipe's data as one ordered draw."""
    sources = [open_entry(entry, on_bad_sample=recipe.on_bad_sample) for entry in recipe.data]
    total = recipe.max_steps * recipe.global_batch_size if recipe.max_steps else None
    return Mixture(
        sources,
        [entry.weight for entry in recipe.data],
        total=total,
        epochs=recipe.epochs or 1,
        seed=recipe.seed,
    )


def open_entry(entry: DataEntry, *, on_bad_sample: OnBadSample, streaming: bool | None = None) -> RecordSource:
    """Open one source of a recipe: ``synthetic/KIND``, a data set of the catalog, a file or shards.

    Args:
        entry: The source as the recipe describes it.
        on_bad_sample: Treatment of samples that cannot be used.
        streaming: Overrides the entry's value.

    Raises:
        ValueError: The source is unknown, missing or malformed.
    """
    streaming = entry.streaming if streaming is None else streaming
    if entry.path is None and entry.name is not None and entry.name.startswith(SYNTHETIC_PREFIX):
        if streaming:
            raise ValueError(f"{entry.name}: 'streaming' is for parquet and WebDataset shards by path")
        from ..synthetic import ENDLESS, SyntheticDataset

        kind = entry.name.removeprefix(SYNTHETIC_PREFIX)
        return SyntheticDataset(kind, count=entry.count or ENDLESS, seed=entry.seed, split="train", **entry.options)
    return open_source(
        name=entry.name,
        path=entry.path,
        image_folder=entry.image_folder,
        data_root=entry.data_root,
        count=entry.count,
        streaming=bool(streaming),
        on_bad_sample=on_bad_sample,
    )
