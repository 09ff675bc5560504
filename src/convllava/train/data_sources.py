"""The sources of a recipe: opened, divided into training and held-out samples, and drawn as one."""

from collections.abc import Sequence
from dataclasses import dataclass

from ..data.conversations import OnBadSample
from ..data.mixture import Mixture
from ..data.samples import RecordSource, SampleSource
from ..data.sources import open_source
from ..data.splitting import split_sources
from .recipe import Recipe
from .recipe_options import SYNTHETIC_PREFIX, DataEntry, Validation
from .throughput import distinct


@dataclass(frozen=True)
class HeldOutSource:
    """Held-out samples.

    Attributes:
        name: Name of their source.
        source: The samples.
    """

    name: str
    source: SampleSource


def open_mixture(recipe: Recipe) -> Mixture:
    """Open the recipe's data as one ordered draw, without what is held out."""
    return open_data(recipe)[0]


def open_sources(recipe: Recipe) -> list[RecordSource]:
    """Open each source of the recipe's data, undivided."""
    return [open_entry(entry, on_bad_sample=recipe.on_bad_sample) for entry in recipe.data]


def open_data(recipe: Recipe) -> tuple[Mixture, list[HeldOutSource]]:
    """Open the recipe's data as one ordered draw, and what is held out for validation.

    Raises:
        ValueError: A source is unknown, missing or malformed, or cannot be divided.
    """
    sources: list[SampleSource] = [*open_sources(recipe)]
    names = distinct([entry.label for entry in recipe.data])
    held_out: list[HeldOutSource] = []
    if recipe.validation is not None:
        entries = recipe.validation.data
        opened = [open_entry(entry, on_bad_sample=recipe.on_bad_sample) for entry in entries]
        labels = distinct([entry.label for entry in entries])
        held_out = [HeldOutSource(*pair) for pair in zip(labels, opened, strict=True)]
        if not entries:
            sources, held_out = _divide(recipe, recipe.validation, sources, names)
    mixture = Mixture(
        sources,
        [entry.weight for entry in recipe.data],
        total=recipe.max_steps * recipe.global_batch_size if recipe.max_steps else None,
        epochs=recipe.epochs or 1,
        seed=recipe.seed,
    )
    return mixture, held_out


def _divide(
    recipe: Recipe, validation: Validation, sources: Sequence[SampleSource], names: Sequence[str]
) -> tuple[list[SampleSource], list[HeldOutSource]]:
    """Divide the sources that are files into training and held-out samples; generated ones are left as they are."""
    if (stream := next((entry for entry in recipe.data if entry.streaming), None)) is not None:
        raise ValueError(
            f"validation cannot hold out a part of {stream.label}, which is streamed: give validation.data, or read "
            "it without streaming"
        )
    divided = [number for number, entry in enumerate(recipe.data) if not entry.is_generated]
    if not divided:
        raise ValueError(
            "validation.fraction and validation.images divide files, and all data are generated: give validation.data, "
            "a generator with another seed and a count"
        )
    parts = split_sources(
        [sources[number] for number in divided],
        fraction=validation.fraction,
        images=validation.images,
        by=validation.by,
        seed=validation.seed,
    )
    training = list(sources)
    for number, (part, _) in zip(divided, parts, strict=True):
        training[number] = part
    held_out = [HeldOutSource(names[number], part) for number, (_, part) in zip(divided, parts, strict=True)]
    return training, held_out


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
    if entry.is_generated and entry.name is not None:
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
        format=entry.format,
    )
