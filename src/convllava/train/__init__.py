"""Recipes, the three training stages and the loop that runs them."""

from .callbacks import Callback, Progress
from .loop import NonFiniteLossError, train
from .pipeline import Pipeline, TimeLeft, is_pipeline, load_pipeline
from .plan import Plan, plan, share_of_full_rate
from .recipe import Recipe
from .recipe_files import load_chain, load_recipe, write_recipe

__all__ = [
    "Callback",
    "NonFiniteLossError",
    "Pipeline",
    "Plan",
    "Progress",
    "Recipe",
    "TimeLeft",
    "is_pipeline",
    "load_chain",
    "load_pipeline",
    "load_recipe",
    "plan",
    "share_of_full_rate",
    "train",
    "write_recipe",
]
