"""Recipes, the three training stages and the loop that runs them."""

from .callbacks import Callback, Progress
from .loop import NonFiniteLossError, train
from .plan import Plan, plan, share_of_full_rate
from .recipe import Recipe
from .recipe_files import load_chain, load_recipe, write_recipe

__all__ = [
    "Callback",
    "NonFiniteLossError",
    "Plan",
    "Progress",
    "Recipe",
    "load_chain",
    "load_recipe",
    "plan",
    "share_of_full_rate",
    "train",
    "write_recipe",
]
