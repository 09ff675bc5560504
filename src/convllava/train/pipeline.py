"""Pipelines: several training runs in one YAML file, each starting from the model of the one before.

A pipeline has three keys. ``steps`` maps names to recipes, in the order of training. ``common`` holds keys that all
steps share; its ``output_dir`` contains one folder for each step. ``mixes`` names lists of data sources, and a step's
``data`` maps these names to weights::

    common: {output_dir: runs/small, model: nano, global_batch_size: 32}
    mixes:
      lines: [{name: synthetic/line}]
      scenes: [{name: synthetic/scene, weight: 2}, {name: synthetic/grounding}]
    steps:
      encoder: {training_stage: encoder, data: {lines: 1}, learning_rate: 2e-3, max_steps: 1000}
      instruct: {training_stage: instruct, data: {lines: 1, scenes: 3}, learning_rate: 1e-3, max_steps: 500}

``extends`` inherits from another pipeline as it does between recipes, so that a file of a few lines adapts a pipeline
to another machine.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ..support import did_you_mean
from .model_setup import is_local
from .recipe import Recipe
from .recipe_files import apply_override, explain, merge, read_recipe_file, validated_recipe
from .recipe_options import DataEntry

_KEYS = ("steps", "common", "mixes")


@dataclass
class Pipeline:
    """Recipes in the order of training.

    Attributes:
        recipes: Recipes by the name of their step.
    """

    recipes: dict[str, Recipe] = field(default_factory=dict)

    def plannable(self) -> dict[str, Recipe]:
        """Return the recipes for a plan: a start that an earlier step will make is replaced by the pipeline's own.

        Raises:
            ValueError: An earlier step appends stages, and the architecture is not stated.
        """
        first, appended, found = next(iter(self.recipes.values())), False, {}
        for name, recipe in self.recipes.items():
            if recipe.model is None and not is_local(recipe):
                if appended:
                    raise ValueError(
                        f"pipeline step {name} follows one with append_stages: state the architecture before it with "
                        "model, in common, so that the step can be planned"
                    )
                recipe = recipe.model_copy(update={"init_from": first.init_from})
            appended |= recipe.append_stages is not None
            found[name] = recipe
        return found

    @property
    def output_dir(self) -> Path:
        """Folder of the last step, whose model is the result."""
        return list(self.recipes.values())[-1].output_dir


def is_pipeline(path: str | Path) -> bool:
    """Return whether a file is a pipeline rather than a recipe.

    Raises:
        ValueError: It is missing or not a YAML mapping.
    """
    return "steps" in read_recipe_file(Path(path))


def load_pipeline(path: str | Path, overrides: Sequence[str] = ()) -> Pipeline:
    """Load a pipeline file, those that it extends, and ``key=value`` overrides.

    Args:
        path: The YAML file.
        overrides: Changed values, such as ``common.num_workers=4`` or ``steps.encoder.max_steps=100``.

    Raises:
        ValueError: The file is missing, a key is unknown or a value is invalid.
    """
    values = read_recipe_file(Path(path))
    for override in overrides:
        apply_override(values, override)
    steps, common, mixes = (_mapping(values, key, path) for key in _KEYS)
    if unknown := sorted(set(values) - set(_KEYS)):
        raise ValueError(f"pipeline {path}: unknown key {unknown[0]!r}" + did_you_mean(unknown[0], _KEYS))
    if not steps:
        raise ValueError(f"pipeline {path} has no steps")
    folder = Path(common.pop("output_dir", "runs"))
    pipeline = Pipeline()
    previous: Recipe | None = None
    for number, (name, content) in enumerate(steps.items(), start=1):
        place = f"{path}, step {name}"
        if not isinstance(content, dict):
            raise ValueError(f"pipeline {place}: must be a mapping of keys to values, got {content!r}")
        recipe = {"output_dir": str(folder / f"{number}_{name}"), **merge(common, content)}
        recipe["data"] = _mixed(recipe.get("data"), mixes, place)
        if previous is not None:
            recipe["init_from"] = str(previous.output_dir)
            recipe["model"] = previous.architecture.model_dump() if previous.architecture else None
        previous = pipeline.recipes[str(name)] = validated_recipe(recipe, place)
    return pipeline


def _mapping(values: Mapping[str, Any], key: str, path: str | Path) -> dict[str, Any]:
    value = values.get(key) or {}
    if not isinstance(value, dict):
        raise ValueError(f"pipeline {path}: {key} must be a mapping, got {value!r}")
    return dict(value)


def _mixed(data: Any, mixes: Mapping[str, Any], place: str) -> Any:
    """Return the sources of a step: those of each mix share the weight that the step gives to it."""
    if not isinstance(data, dict):
        return data
    sources = []
    for name, weight in data.items():
        if name not in mixes:
            raise ValueError(f"pipeline {place}: no mix {name!r}" + did_you_mean(name, list(mixes)))
        if not isinstance(weight, int | float) or isinstance(weight, bool) or not weight > 0:
            raise ValueError(f"pipeline {place}: the weight of {name} must be a positive number, got {weight!r}")
        shares = _shares(mixes[name], f"pipeline {place}: mix {name}")
        sources += [entry | {"weight": weight * share} for entry, share in zip(mixes[name], shares, strict=True)]
    return sources


def _shares(entries: Any, place: str) -> list[float]:
    """Return the share of each source in a mix."""
    if not isinstance(entries, list) or not entries:
        raise ValueError(f"{place} must be a list of data sources, got {entries!r}")
    try:
        weights = [DataEntry.model_validate(entry).weight for entry in entries]
    except ValidationError as error:
        raise ValueError(f"{place}: " + "; ".join(map(explain, error.errors()))) from error
    return [weight / sum(weights) for weight in weights]


class TimeLeft:
    """Estimate of the time that the rest of a pipeline takes, from the FLOPs of its steps and the rate so far.

    Args:
        flops: FLOPs of each step, in order.
        clock: Returns the time in seconds.
    """

    def __init__(self, flops: Sequence[float], clock: Callable[[], float] = time.monotonic) -> None:
        self._flops = list(flops)
        self._clock = clock
        self._start: tuple[float, float] | None = None

    def seconds(self, step: int, done: float) -> float | None:
        """Return the estimate in seconds, or None until a second call gives a rate.

        Args:
            step: Index of the current step.
            done: Share of it that is done, between 0 and 1.
        """
        finished = sum(self._flops[:step]) + done * self._flops[step]
        if self._start is None:
            self._start = (self._clock(), finished)
        elapsed, computed = self._clock() - self._start[0], finished - self._start[1]
        return elapsed / computed * (sum(self._flops) - finished) if computed > 0 else None
