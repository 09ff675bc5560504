"""Recipes, the three training stages and the engine that runs them."""

from .engine import train
from .plan import Plan, plan, share_of_full_rate
from .recipe import Recipe, load_chain, load_recipe, write_recipe
from .trainer import NonFiniteLossError

__all__ = [
    "NonFiniteLossError",
    "Plan",
    "Recipe",
    "load_chain",
    "load_recipe",
    "plan",
    "share_of_full_rate",
    "train",
    "write_recipe",
]
