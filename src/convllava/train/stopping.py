"""Ends of training before the last step, which leave the learning-rate schedule as it is."""

import time
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from .recipe import Recipe


def early_ends(recipe: Recipe) -> list[TrainerCallback]:
    """Return what ends the run early, as the recipe wants it."""
    ends: list[TrainerCallback] = []
    if recipe.stop_after_steps is not None:
        ends.append(_StopAfterSteps(recipe.stop_after_steps))
    if recipe.stop_after_minutes is not None:
        ends.append(_StopAfterMinutes(recipe.stop_after_minutes))
    return ends


def is_at_early_end(recipe: Recipe, step: int) -> bool:
    """Tell whether no step is left after this one; transformers would do another before it asks.

    Weights that DeepSpeed owns can only be loaded where it goes on training.
    """
    return recipe.stop_after_steps is not None and step >= recipe.stop_after_steps and recipe.engine != "deepspeed"


class _StopAfterSteps(TrainerCallback):
    """Stops with a log line, which the report of a run shorter than ``log_every`` needs."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if state.global_step >= self.steps:
            control.should_training_stop = control.should_log = True


class _StopAfterMinutes(TrainerCallback):
    """Saves a checkpoint to go on from, and stops all processes at the same step."""

    def __init__(self, minutes: float) -> None:
        self.seconds = minutes * 60
        self.started = time.monotonic()

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.started = time.monotonic()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        spent = torch.tensor(time.monotonic() - self.started, device=args.device)
        if torch.distributed.is_initialized():
            torch.distributed.broadcast(spent, src=0)
        if spent.item() >= self.seconds and state.global_step < state.max_steps:
            control.should_training_stop = control.should_save = True
