"""What a recipe would do, told from configurations and a few samples, before anything is trained."""

import re
from dataclasses import dataclass

from ..constants import IGNORE_INDEX
from ..data.batching import encode_sample
from ..data.mixture import Mixture
from ..model import ConvLlavaForConditionalGeneration, ConvLlavaProcessor
from .engine import open_mixture, split_batch
from .recipe import Recipe
from .setup import build
from .stages import set_trainable

PROBED_SAMPLES = 32


@dataclass(frozen=True)
class ModuleCount:
    """Parameters of one module."""

    module: str
    total: int
    trainable: int


@dataclass(frozen=True)
class Plan:
    """Samples, steps, parameters and tokens of a training run; tokens are means over the first samples."""

    samples: int
    steps: int
    per_device_batch_size: int
    accumulation_steps: int
    modules: list[ModuleCount]
    visual_tokens: float
    text_tokens: float
    supervised_tokens: float


def plan(recipe: Recipe, processes: int = 1) -> Plan:
    """Work out a recipe without training it.

    Raises:
        ValueError: For everything that would also stop the training before its first step.
    """
    per_device, accumulation = split_batch(recipe, processes)
    mixture = open_mixture(recipe)
    model, processor = build(recipe)
    set_trainable(model, recipe)
    visual, text, supervised = _mean_tokens(mixture, processor, recipe.max_length)
    return Plan(
        samples=len(mixture),
        steps=len(mixture) // recipe.global_batch_size,
        per_device_batch_size=per_device,
        accumulation_steps=accumulation,
        modules=_count(model),
        visual_tokens=visual,
        text_tokens=text,
        supervised_tokens=supervised,
    )


def _mean_tokens(mixture: Mixture, processor: ConvLlavaProcessor, max_length: int) -> tuple[float, float, float]:
    """Return visual, text and supervised tokens of a sample, as means over the first ones."""
    rows = [encode_sample(mixture[i], processor, max_length) for i in range(min(PROBED_SAMPLES, len(mixture)))]
    total = sum(len(row["input_ids"]) for row in rows)
    visual = sum(int((row["input_ids"] == processor.image_token_id).sum()) for row in rows)
    supervised = sum(int((row["labels"] != IGNORE_INDEX).sum()) for row in rows)
    return visual / len(rows), (total - visual) / len(rows), supervised / len(rows)


def _count(model: ConvLlavaForConditionalGeneration) -> list[ModuleCount]:
    """Count parameters: the encoder stage by stage, the projector, the language model with its head."""
    counts: dict[str, list[int]] = {}
    for name, parameter in model.named_parameters():
        total_and_trainable = counts.setdefault(_module_of(name), [0, 0])
        total_and_trainable[0] += parameter.numel()
        total_and_trainable[1] += parameter.numel() if parameter.requires_grad else 0
    return [ModuleCount(module, total, trainable) for module, (total, trainable) in counts.items()]


def _module_of(parameter_name: str) -> str:
    stage = re.match(r"model\.vision_tower\.encoder\.stages\.(\d+)\.", parameter_name)
    if stage:
        return f"vision_tower stage {int(stage[1]) + 1}"
    if parameter_name.startswith("model.vision_tower."):
        return "vision_tower stem"
    if parameter_name.startswith("model.multi_modal_projector."):
        return "multi_modal_projector"
    return "language_model"
