"""The input of ``convllava data check`` and ``data stats``: a file, shards or a recipe, and the model it is for."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .checks import check_exists, check_model

if TYPE_CHECKING:
    from ..data.samples import NamedSource, RecordSource
    from ..model import ConvLlavaConfig, ConvLlavaProcessor
    from ..train import Recipe
    from ..train.recipe_options import DataEntry

RECIPE_ENDINGS = (".yaml", ".yml")


@dataclass(frozen=True)
class Opened:
    """Opened sources and the model that they are for.

    Attributes:
        sources: The sources, with their names.
        config: The model's configuration.
        processor: The model's processor.
        max_length: Maximum tokens of a sample.
        one_image: Whether each sample must have exactly one image.
    """

    sources: "list[NamedSource]"
    config: "ConvLlavaConfig"
    processor: "ConvLlavaProcessor"
    max_length: int
    one_image: bool = False


def check_input(what: str, model: str | None) -> None:
    """Check that the input and the model exist, before torch is imported.

    Raises:
        ValueError: One is missing.
    """
    if not any(sign in what for sign in ("://", "*", "?", "[", "{")):  # a URL or a pattern of shards
        check_exists(what, "recipe" if what.endswith(RECIPE_ENDINGS) else "data file")
    if model is not None:
        check_model(model)


def open_for_reading(
    what: str,
    overrides: Sequence[str],
    *,
    image_folder: Path | None,
    model: str | None,
    max_length: int | None,
    format: str | None = None,
) -> Opened:
    """Open all sources of a recipe, or one data set by path; unusable records are kept to be listed.

    Raises:
        ValueError: A source cannot be opened, or an option does not apply.
    """
    if not what.endswith(RECIPE_ENDINGS):
        if overrides:
            raise ValueError(f"{overrides[0]}: KEY=VALUE changes a recipe (.yaml), and {what} is not one")
        config, processor = _model_parts(model or "nano")
        return Opened([_file(what, image_folder, format)], config, processor, max_length or 2048)
    if image_folder is not None:
        raise ValueError("--image-folder applies to a data file; a recipe has its own image_folder")
    if format is not None:
        raise ValueError("--format applies to a data file; a recipe has its own 'format' for each data entry")
    from ..train import load_recipe

    recipe = load_recipe(what, list(overrides))
    config, processor = _model_parts(model) if model else _recipe_parts(recipe, what)
    one_image = not recipe.trains_language_model
    return Opened(_recipe_sources(recipe), config, processor, max_length or recipe.max_length, one_image)


def _model_parts(model: str) -> "tuple[ConvLlavaConfig, ConvLlavaProcessor]":
    from ..convert import open_checkpoint
    from ..inference.checkpoint_files import hub_id, locate

    checkpoint = open_checkpoint(locate(model), hub_id=hub_id(model))
    return checkpoint.config, checkpoint.processor


def _recipe_parts(recipe: "Recipe", what: str) -> "tuple[ConvLlavaConfig, ConvLlavaProcessor]":
    from ..train.model_setup import resolve_model

    resolved = resolve_model(recipe, fetch=False)
    if resolved.processor is None:
        raise ValueError(f"{what} starts from {recipe.init_from}, which is missing; name a model with --model")
    return resolved.config, resolved.processor


def _file(path: str, image_folder: Path | None, format: str | None) -> "NamedSource":
    from ..data.files import open_file
    from ..data.samples import NamedSource
    from ..data.sharded import is_sharded

    source = open_file(path, image_folder, streaming=is_sharded(path), on_bad_sample="list", format=format)
    return NamedSource(path, source)


def _recipe_sources(recipe: "Recipe") -> "list[NamedSource]":
    from ..data.samples import NamedSource

    opened = [_entry_source(entry) for entry in recipe.data]
    names = [entry.name or str(entry.path) for entry in recipe.data]
    draws = _draws(recipe, opened)
    return [NamedSource(name, source, drawn) for name, source, drawn in zip(names, opened, draws, strict=True)]


def _entry_source(entry: "DataEntry") -> "RecordSource":
    from ..data.sharded import is_sharded
    from ..train.data_sources import open_entry

    # Shards are read in place: storing them only to look at them would take their size again on the disk.
    streaming = True if entry.path is not None and is_sharded(entry.path) else None
    return open_entry(entry, on_bad_sample="list", streaming=streaming)


def _draws(recipe: "Recipe", sources: "Sequence[RecordSource]") -> list[int]:
    from ..data.mixture import shares

    if recipe.max_steps is not None:
        return shares([entry.weight for entry in recipe.data], recipe.max_steps * recipe.global_batch_size)
    return [len(source) * (recipe.epochs or 1) for source in sources]
