"""The data of a recipe."""

from ..data.mixture import Mixture
from ..data.sources import open_source
from .recipe import Recipe


def open_mixture(recipe: Recipe) -> Mixture:
    """Open the recipe's data as one ordered draw."""
    sources = [
        open_source(**entry.model_dump(exclude={"weight"}, exclude_none=True), on_bad_sample=recipe.on_bad_sample)
        for entry in recipe.data
    ]
    total = recipe.max_steps * recipe.global_batch_size if recipe.max_steps else None
    return Mixture(
        sources,
        [entry.weight for entry in recipe.data],
        total=total,
        epochs=recipe.epochs or 1,
        seed=recipe.seed,
    )
