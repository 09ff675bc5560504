"""Number and length of a recipe's samples: measured if data and processor are on this machine, else estimated."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

from ...constants import IGNORE_INDEX
from ...data.catalog import Card, card, find_root, names
from ...data.mixture import Mixture, shares
from ...data.samples import Sample, SampleSource
from ...model import ConvLlavaConfig, ConvLlavaProcessor
from ..data_loading import encoded_dataset
from ..data_sources import open_data, open_entry, open_mixture
from ..feature_cache import check_cache_size
from ..recipe import Recipe
from ..recipe_options import DataEntry
from ..sample_answers import questions_of

PROBED_SAMPLES = 32
"""Number of samples that are encoded to measure their length."""

CHARACTERS_PER_TOKEN = 4.0
"""Approximate length of a token of English with Llama's tokenizer."""

FRAME_TOKENS = 45
"""Tokens of the system message and the role names of the vicuna_v1 format around one exchange."""


@dataclass(frozen=True)
class PlannedData:
    """One source of a recipe's mixture, or all of them together.

    Attributes:
        name: Name of the source.
        samples: Number of samples that the run draws.
        visual_tokens: Mean number of visual tokens of a sample.
        text_tokens: Mean number of text tokens of a sample.
        supervised_tokens: Mean number of supervised tokens of a sample.
        is_measured: Whether lengths were measured on samples, not estimated from the data set's card or its texts.
    """

    name: str
    samples: int
    visual_tokens: float
    text_tokens: float
    supervised_tokens: float
    is_measured: bool

    @property
    def tokens(self) -> float:
        """Mean number of tokens of a sample."""
        return self.visual_tokens + self.text_tokens


def plan_data(recipe: Recipe, config: ConvLlavaConfig, processor: ConvLlavaProcessor | None) -> list[PlannedData]:
    """Work out number and length of the samples.

    Args:
        recipe: The recipe.
        config: Configuration of the model.
        processor: Its processor; None if the starting checkpoint is not on this machine.

    Raises:
        ValueError: Data cannot be used, or is neither on this machine nor known by name.
    """
    if processor is not None and all(_is_local(entry) for entry in recipe.data):
        mixture = open_mixture(recipe)
        check_cache_size(config, processor, recipe, mixture)
        if recipe.sample_answers is not None:
            questions_of(recipe.sample_answers, mixture)
        return [_measured(mixture, processor, recipe)]
    lengths = [_lengths(entry, recipe, config, processor) for entry in recipe.data]
    counts = _draws(recipe, [found.samples for found in lengths])
    return [
        PlannedData(
            found.name, count, found.visual_tokens, found.text_tokens, found.supervised_tokens, found.is_measured
        )
        for found, count in zip(lengths, counts, strict=True)
    ]


def describe_validation(recipe: Recipe, steps: int, samples: int) -> list[str]:
    """Return a sentence about the validations of a run, or none if it has none or their data are missing.

    Args:
        recipe: The recipe.
        steps: Optimizer steps of the run.
        samples: Samples that the run draws.
    """
    validation = recipe.validation
    if validation is None or not all(_is_local(entry) for entry in [*recipe.data, *validation.data]):
        return []
    held_out = sum(len(one.source) for one in open_data(recipe)[1])
    passes = 1 + math.ceil(steps / validation.eval_every)
    return [
        f"validation: {held_out:,} held-out samples, {passes:,} passes over them; "
        f"{held_out * passes / samples:.2g} forward passes for each trained sample"
    ]


def _is_local(entry: DataEntry) -> bool:
    known = _card_of(entry)
    if known is None:
        return True  # by path, or generated: problems are errors
    try:
        root = find_root(known.name, entry.data_root)
    except ValueError:
        return False
    return (root / known.annotations).is_file()  # if it is there, other missing files are errors


def _card_of(entry: DataEntry) -> Card | None:
    return card(entry.name) if entry.name in names() else None


def _draws(recipe: Recipe, samples: Sequence[int]) -> list[int]:
    if recipe.max_steps is None:
        return [count * (recipe.epochs or 1) for count in samples]
    total = recipe.max_steps * recipe.global_batch_size
    return shares([entry.weight for entry in recipe.data], total)


def _measured(mixture: Mixture, processor: ConvLlavaProcessor, recipe: Recipe) -> PlannedData:
    name = " + ".join(str(entry.name or entry.path) for entry in recipe.data)
    return _probe(name, mixture, processor, recipe)


def _lengths(
    entry: DataEntry, recipe: Recipe, config: ConvLlavaConfig, processor: ConvLlavaProcessor | None
) -> PlannedData:
    """Return one source with the number of its samples."""
    known, name = _card_of(entry), str(entry.name or entry.path)
    if known is not None and not _is_local(entry):
        return _known(known, config)
    source = open_entry(entry, on_bad_sample=recipe.on_bad_sample)
    if processor is not None:
        return _probe(name, source, processor, recipe)
    samples = [source[index] for index in range(min(PROBED_SAMPLES, len(source)))]
    return _by_characters(name, source, samples, config)


def _probe(name: str, source: SampleSource, processor: ConvLlavaProcessor, recipe: Recipe) -> PlannedData:
    encoded = encoded_dataset(recipe, source, processor)
    usable = (row for row in map(encoded.__getitem__, range(len(source))) if "fault" not in row)
    rows = list(islice(usable, PROBED_SAMPLES))
    if not rows:
        raise ValueError(f"none of the {len(source)} samples of {name} can be used: {encoded[0]['fault']}")
    visual = sum(int((row["input_ids"] == processor.image_token_id).sum()) for row in rows) / len(rows)
    total = sum(len(row["input_ids"]) for row in rows) / len(rows)
    supervised = sum(int((row["labels"] != IGNORE_INDEX).sum()) for row in rows) / len(rows)
    return PlannedData(name, len(source), visual, total - visual, supervised, is_measured=True)


def _by_characters(name: str, source: SampleSource, samples: Sequence[Sample], config: ConvLlavaConfig) -> PlannedData:
    """Estimate from the length of the texts without a tokenizer; half of them are taken to be answers."""
    characters = sum(source.text_length(index) for index in range(len(samples))) / len(samples)
    images = sum(len(sample.images) for sample in samples) / len(samples)
    text = characters / CHARACTERS_PER_TOKEN
    return PlannedData(
        name, len(source), images * _square_tokens(config), FRAME_TOKENS + text, text / 2, is_measured=False
    )


def _known(known: Card, config: ConvLlavaConfig) -> PlannedData:
    """Estimate a data set that is not on this machine from its card."""
    answered = known.answered / CHARACTERS_PER_TOKEN
    return PlannedData(
        known.name,
        known.samples,
        _square_tokens(config) * (1 - known.text_only / known.samples),
        FRAME_TOKENS + known.asked / CHARACTERS_PER_TOKEN + answered,
        answered + 1,  # and the end token
        is_measured=False,
    )


def _square_tokens(config: ConvLlavaConfig) -> int:
    """Return the visual tokens of a square image at the recipe's resolution."""
    if config.resolution is None:
        raise ValueError(
            "images in their own sizes are counted only with data and checkpoint on this machine: set image.resolution"
        )
    return (config.resolution // config.output_stride) ** 2
