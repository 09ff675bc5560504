"""A recipe chosen from data: what to train, how long, at which rates, and the reason of each choice.

A small model (``SMALL`` parameters) is trained itself, from the encoder's third stage on. A larger one gets low-rank
adapters, over a base in 4 bits where the memory asks for it. The choices for small models were made with the bundled
model on price tags of other seeds than those of the published figures (``benchmarks/price_tags.py``).
"""

import json
import math
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from ..constants import IGNORE_INDEX
from ..data.batching import EncodedDataset
from ..data.splitting import split_sources
from ..inference.memory import available_memory
from .data_sources import open_sources
from .model_setup import ResolvedModel, resolve_model
from .output_folder import RECIPE_FILE
from .plan import plan
from .recipe import Recipe
from .recipe_files import validated_recipe
from .recipe_options import SYNTHETIC_PREFIX

SMALL = 300_000_000
"""Number of parameters up to which a model is trained itself: its optimizer state fits any machine."""

PROBED = 64
"""Number of samples, spread over the data, whose lengths are measured."""

HELD_OUT = 0.1
"""Share of the images that is held out."""

VALIDATIONS = 6
"""Number of validations during a run."""

OWN_SHARE = 0.5
"""Share of the base model's own data among the samples, where it is known."""

BATCH = 8
"""Samples of a step."""

FEW, MOST_PASSES = 60, 8.0
"""Number of samples up to which a run makes the most passes, and this number."""

FIRST_SEED = 7000
"""Seed of the first of the base model's own sources: a series that no other recipe draws."""

_GENERIC_NAMES = ("data", "train", "dataset", "annotations")
"""Names of files that say nothing; the folder's name is taken instead."""

DEFAULT_MAX_LENGTH: int = Recipe.model_fields["max_length"].default

MEMORY_SHARE = 0.9
"""Share of a device's free memory that a plan may take: it counts neither fragmentation nor padding."""

_SCENE_TASKS = "caption count color shape existence relation neighbor size".split()
_SCENE_SIZES = [[128, 128], [128, 192], [192, 128]]

_OWN_DATA: dict[str, list[dict[str, Any]]] = {
    "nano": [
        {
            "name": "synthetic/line",
            "weight": 3,
            "options": {"sizes": [[64, 64], [64, 128], [64, 192], [64, 256]], "cap": [0.4, 0.75], "noise": 0.3},
        },
        {
            "name": "synthetic/scene",
            "weight": 2,
            "options": {"sizes": _SCENE_SIZES, "tasks": _SCENE_TASKS, "questions": 8},
        },
        {"name": "synthetic/grounding", "weight": 1.5, "options": {"sizes": _SCENE_SIZES, "questions": 8}},
        {
            "name": "synthetic/document",
            "weight": 3.5,
            "options": {
                "sizes": [[256, 256], [256, 320], [320, 256]],
                "font_size": [28, 42],
                "tasks": ["field"],
                "noise": 0.3,
                "questions": 8,
            },
        },
    ],
}
"""Data of a base model by its name, about in the proportions of its last training."""


@dataclass(frozen=True)
class Choice:
    """One key of a recipe with its value and the reason for it."""

    key: str
    value: Any
    reason: str

    def __str__(self) -> str:
        shown = ", ".join(map(_source, self.value)) if self.key == "data" else _inline(self.value)
        return f"{self.key}: {shown}\n    {self.reason}"


@dataclass(frozen=True)
class ChosenRecipe:
    """A recipe and its choices, in the order in which a recipe is read."""

    choices: list[Choice]

    @property
    def values(self) -> dict[str, Any]:
        """The recipe as the content of a YAML file."""
        return {choice.key: choice.value for choice in self.choices}

    def recipe(self, overrides: Sequence[str] = ()) -> Recipe:
        """Return the recipe, with ``key=value`` overrides.

        Raises:
            ValueError: An override is unknown or invalid.
        """
        return validated_recipe(deepcopy(self.values), "chosen for the data", overrides)

    def text(self) -> str:
        """Return the recipe as YAML, each choice behind a comment with its reason."""
        entries = (
            f"# {choice.reason}\n{yaml.safe_dump({choice.key: choice.value}, sort_keys=False, width=110)}"
            for choice in self.choices
        )
        return "".join(entries)


@dataclass(frozen=True)
class Measured:
    """Properties of the data that choices depend on.

    Attributes:
        samples: Number of samples for training.
        held_out: Number of held-out samples; 0 where the data cannot be divided.
        lengths: Tokens of some samples, in ascending order.
        longest_answer: Supervised tokens of the sample of these that has most.
    """

    samples: int
    held_out: int
    lengths: list[int]
    longest_answer: int

    @property
    def is_uneven(self) -> bool:
        """Whether padding every sample to the longest would waste a fifth of the computation or more."""
        return sum(self.lengths) < 0.8 * len(self.lengths) * self.lengths[-1]


def choose_recipe(
    data: Path, *, model: str = "nano", output_dir: Path | None = None, device_memory: float | None = None
) -> ChosenRecipe:
    """Choose a recipe for a file of data.

    Args:
        data: The data, in any format that a recipe reads.
        model: The base model.
        output_dir: Folder of the run; by default named after the data.
        device_memory: Memory of the device in bytes; by default what is free on this machine.

    Raises:
        ValueError: The data cannot be used, or the model does not fit the memory in any way.
    """
    name = data.resolve().parent.name if data.stem in _GENERIC_NAMES else data.stem
    folder = output_dir or Path("runs") / name
    draft = _Draft(data, model, folder)
    resolved = resolve_model(draft.recipe())
    size = sum(parameter.numel() for parameter in resolved.outline().parameters())
    measured = _measure(draft, resolved)
    own = [] if size > SMALL else _own_data(model)
    draft.add("init_from", model, f"the base model, {size / 1e6:,.0f} M parameters")
    draft.add("output_dir", str(folder), "named after the data")
    _choose_data(draft, data, own)
    _choose_length(draft, measured, bool(own))
    _choose_validation(draft, measured)
    if (needed := _round_up(1.25 * measured.lengths[-1], 64)) > DEFAULT_MAX_LENGTH:
        draft.add("max_length", needed, f"the longest of {len(measured.lengths)} samples has {measured.lengths[-1]}")
    if measured.is_uneven:
        draft.add("packing", True, "samples differ in length: packed, they need less padding")
    if size <= SMALL:
        _choose_small(draft)
    else:
        _choose_adapters(draft, device_memory)
    return ChosenRecipe(draft.choices)


class _Draft:
    """Choices so far, on top of values that make a recipe of them."""

    def __init__(self, data: Path, model: str, folder: Path) -> None:
        self.choices: list[Choice] = []
        self._base: dict[str, Any] = {
            "init_from": model,
            "output_dir": str(folder),
            "data": [{"path": str(data)}],
            "training_stage": "instruct",
            "learning_rate": 1e-4,
            "max_steps": 1,
            "global_batch_size": 1,
        }

    def add(self, key: str, value: Any, reason: str) -> None:
        """Choose the value of a key."""
        self.choices.append(Choice(key, value, reason))

    def recipe(self, **values: Any) -> Recipe:
        """Return the recipe of the choices so far, with further values."""
        chosen = {choice.key: choice.value for choice in self.choices}
        return validated_recipe(deepcopy({**self._base, **chosen, **values}), "chosen for the data")


def _measure(draft: _Draft, resolved: ResolvedModel) -> Measured:
    """Count and encode samples of the data.

    Raises:
        ValueError: No sample can be used.
    """
    processor = resolved.processor
    if processor is None:
        raise ValueError("the base model has no processor on this machine: download the checkpoint")
    (source,) = open_sources(draft.recipe())
    try:
        ((training, held_out),) = split_sources([source], fraction=HELD_OUT)
        counts = len(training), len(held_out)
    except ValueError:  # one image
        counts = len(source), 0
    encoded = EncodedDataset(source, processor, max_length=1 << 30, on_bad_sample="skip")
    taken = min(PROBED, len(source))
    probed = [encoded[number * len(source) // taken] for number in range(taken)]
    usable = [sample for sample in probed if "fault" not in sample]
    if not usable:
        raise ValueError(f"none of {taken} samples can be used: {probed[0]['fault']}")
    return Measured(
        samples=counts[0],
        held_out=counts[1],
        lengths=sorted(len(sample["input_ids"]) for sample in usable),
        longest_answer=max(int((sample["labels"] != IGNORE_INDEX).sum()) for sample in usable),
    )


def _own_data(model: str) -> list[dict[str, Any]]:
    """Return the generated data that a base model was trained on, as far as they are known."""
    if model in _OWN_DATA:
        known: list[dict[str, Any]] = json.loads(json.dumps(_OWN_DATA[model]))  # no list is shared: YAML would name it
        return known
    stored = Path(model) / RECIPE_FILE
    if not stored.is_file():
        return []
    values = yaml.safe_load(stored.read_text(encoding="utf-8"))
    return [entry for entry in values.get("data", []) if str(entry.get("name")).startswith(SYNTHETIC_PREFIX)]


def _choose_data(draft: _Draft, data: Path, own: list[dict[str, Any]]) -> None:
    mine = {"path": str(data)}
    if not own:
        draft.add("data", [mine], "the base model's own data are unknown: none of them is mixed in")
        return
    total = sum(entry.get("weight", 1.0) for entry in own)
    weighted = [
        {**entry, "weight": round(entry.get("weight", 1.0) / total * OWN_SHARE, 4), "seed": FIRST_SEED + number}
        for number, entry in enumerate(own)
    ]
    reason = f"{OWN_SHARE:.0%} of the samples are of the base model's own kinds, so that it keeps what it knows"
    draft.add("data", [{**mine, "weight": round(1 - OWN_SHARE, 4)}, *weighted], reason)


def _choose_length(draft: _Draft, measured: Measured, has_own: bool) -> None:
    samples = measured.samples
    passes = passes_over(samples)
    batch = min(BATCH, max(1, samples))
    drawn = passes * samples / ((1 - OWN_SHARE) if has_own else 1)
    draft.add("global_batch_size", batch, "few samples a step, so that little data give some hundred steps")
    draft.add("max_steps", max(1, math.ceil(drawn / batch)), f"{passes:.3g} passes over {samples:,} samples")


def passes_over(samples: int) -> float:
    """Return the passes over so many samples: many over few, one over very many."""
    return min(MOST_PASSES, max(1.0, MOST_PASSES * (FEW / samples) ** (1 / 3)))


def _choose_validation(draft: _Draft, measured: Measured) -> None:
    if not measured.held_out:
        draft.add("validation", None, "the data have a single image: nothing can be held out")
        return
    steps = draft.recipe().max_steps or 1
    value = {
        "fraction": HELD_OUT,
        "eval_every": max(1, steps // VALIDATIONS),
        "keep_best": "loss",
        "answers": {"count": 64, "max_new_tokens": _round_up(1.5 * measured.longest_answer, 16)},
    }
    draft.add(
        "validation",
        value,
        f"{measured.held_out:,} samples of a tenth of the images are held out; the best model is kept",
    )


def _choose_small(draft: _Draft) -> None:
    draft.add("training_stage", "pretrain", "a small model learns with most of its weights")
    draft.add("train_from_stage", 3, "the first two stages of the encoder see edges and strokes, which are known")
    draft.add("learning_rate", 2e-4, "the encoder's: it has to change least")
    draft.add(
        "learning_rates", {"language_model|multi_modal_projector": 4e-4}, "new questions and notations are learned here"
    )
    draft.add("weight_decay", 0.02, "as the base model was trained")


def _choose_adapters(draft: _Draft, device_memory: float | None) -> None:
    """Choose LoRA, or QLoRA where only that fits the memory.

    Raises:
        ValueError: Not even QLoRA fits.
    """
    memory = device_memory if device_memory is not None else free_memory()
    common = {"precision": "bfloat16", "activation_checkpointing": True, "training_stage": "instruct"}
    needed = 0.0
    for quantize in (None, "nf4"):
        lora = {"language_model": {"rank": 64, "alpha": 128}} | ({"quantize": quantize} if quantize else {})
        planned = plan(draft.recipe(lora=lora, per_device_batch_size=1, **common), 1, MEMORY_SHARE * memory)
        largest, needed = planned.largest_batches["replicated"], planned.replicated.total
        if largest:
            break
    else:
        raise ValueError(
            f"the model needs about {needed / 1e9:.1f} GB with adapters over a base in 4 bits, and "
            f"{memory / 1e9:.1f} GB are free: take a smaller model, image.resolution or image.max_visual_tokens"
        )
    what = "over a base in 4 bits (QLoRA)" if quantize else "over a base in bfloat16 (LoRA)"
    draft.add("training_stage", "instruct", "the encoder of a large model is kept")
    draft.add("lora", lora, f"adapters {what}: about {needed / 1e9:.1f} GB of {memory / 1e9:.1f} GB that are free")
    draft.add("precision", "bfloat16", "half the memory of float32")
    draft.add("activation_checkpointing", True, "a third more time for a fraction of the memory")
    draft.add("per_device_batch_size", largest, "the largest that fits the memory")
    draft.add("learning_rate", 2e-4, "the usual of adapters")


def free_memory() -> float:
    """Return the free memory of the GPU in bytes, or of the machine if there is none."""
    if torch.cuda.is_available():
        return float(torch.cuda.mem_get_info()[0])
    return float(available_memory() or 0)


def _round_up(value: float, multiple: int) -> int:
    return max(multiple, math.ceil(value / multiple) * multiple)


def _source(entry: dict[str, Any]) -> str:
    share = f" {entry['weight']:.0%}" if "weight" in entry else ""
    return f"{entry.get('name') or entry.get('path')}{share}"


def _inline(value: Any) -> str:
    """Return a value as YAML in one line."""
    written = yaml.safe_dump(value, default_flow_style=True, width=10_000, sort_keys=False)
    return written.removesuffix("\n").removesuffix("\n...")
