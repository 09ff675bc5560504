"""Recipes, the three training stages and the engine that runs them."""

from .engine import NonFiniteLossError, train
from .plan import Plan, plan
from .recipe import Recipe, load_recipe, write_recipe

__all__ = ["NonFiniteLossError", "Plan", "Recipe", "load_recipe", "plan", "train", "write_recipe"]
