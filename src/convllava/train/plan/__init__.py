"""The dry run: what a recipe will train and cost, worked out without weights."""

from .plan import Plan, plan, share_of_full_rate

__all__ = ["Plan", "plan", "share_of_full_rate"]
