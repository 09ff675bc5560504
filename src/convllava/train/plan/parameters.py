"""Parameters of a planned run, module by module, and the bytes that hold them."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from ...model import ConvLlavaForConditionalGeneration, ConvLlavaProcessor
from ...model.modeling_convllava import LANGUAGE_MODEL_PREFIX, PROJECTOR_PREFIX, VISION_TOWER_PREFIX
from ..ctc_head import EncoderWithCtcHead
from ..lora import add_adapters
from ..recipe import Recipe

NF4_BYTES = 4.127 / 8
"""Bytes per weight: 4 bits, 8 bits of scale for 64 weights, a second scale for 256 scales (QLoRA, section 3)."""


@dataclass(frozen=True)
class ModuleCount:
    """Parameters of one module, in total and trainable."""

    module: str
    total: int
    trainable: int


@dataclass(frozen=True)
class PlannedParameter:
    """A parameter by its name in the model, its number of elements and the bytes that hold them."""

    name: str
    size: int
    is_trained: bool
    bytes: float


def outlined_module(
    recipe: Recipe, model: ConvLlavaForConditionalGeneration, processor: ConvLlavaProcessor | None
) -> nn.Module | None:
    """Return what training trains, without weights: the model, with adapters if the recipe has them, or its encoder.

    Args:
        recipe: The recipe.
        model: Outline of the model, frozen or not as in training; adapters are put into it.
        processor: Its processor; without it there is no outline of the encoder's head, which depends on the tokenizer.
    """
    with torch.device("meta"):
        if recipe.lora is not None:
            return add_adapters(model, recipe)
        if recipe.trains_language_model:
            return model
        return None if processor is None else EncoderWithCtcHead.from_model(model, processor)


def planned_parameters(
    model: ConvLlavaForConditionalGeneration, module: nn.Module | None, recipe: Recipe
) -> list[PlannedParameter]:
    """List the parameters in training, with the adapters that the recipe asks for.

    Args:
        model: Outline of the model, frozen or not as in training.
        module: The result of :func:`outlined_module`.
        recipe: The recipe.
    """
    if recipe.lora is None or module is None:
        return [
            PlannedParameter(name, one.numel(), one.requires_grad, 4.0 * one.numel())
            for name, one in model.named_parameters()
        ]
    quantized = recipe.lora.quantize is not None
    frozen_bytes = 2.0 if recipe.precision == "bfloat16" else 4.0
    found = []
    for name, parameter in module.named_parameters():
        inner = name.removeprefix("base_model.model.").replace(".base_layer.", ".").replace(".original_module.", ".")
        is_matrix = inner.startswith(f"{LANGUAGE_MODEL_PREFIX}layers.") and parameter.ndim > 1
        frozen = NF4_BYTES if quantized and is_matrix else frozen_bytes
        each = 4.0 if parameter.requires_grad else frozen  # trained parameters are float32
        found.append(PlannedParameter(inner, parameter.numel(), parameter.requires_grad, each * parameter.numel()))
    return found


def count_modules(parameters: Sequence[PlannedParameter], *, is_clip: bool) -> list[ModuleCount]:
    """Count parameters, adapters included: each stage of the encoder, the projector, the language model with its head.

    Args:
        parameters: The parameters.
        is_clip: Whether the encoder is CLIP's ViT, whose first part is its patch embedding.
    """
    counts: dict[str, list[int]] = {}
    for parameter in parameters:
        total_and_trainable = counts.setdefault(_module_of(parameter.name, is_clip), [0, 0])
        total_and_trainable[0] += parameter.size
        total_and_trainable[1] += parameter.size if parameter.is_trained else 0
    return [ModuleCount(module, total, trainable) for module, (total, trainable) in counts.items()]


def largest_unit(model: ConvLlavaForConditionalGeneration) -> int:
    """Return the parameters of the largest sharded unit: the encoder, a language layer, the embeddings or the head."""
    language = model.model.language_model
    units = [model.model.vision_tower, *language.layers, language.get_input_embeddings(), model.lm_head]
    return max(sum(parameter.numel() for parameter in unit.parameters()) for unit in units)


def _module_of(parameter_name: str, is_clip: bool) -> str:
    stage = re.match(rf"{re.escape(VISION_TOWER_PREFIX)}encoder\.stages\.(\d+)\.", parameter_name)
    if stage:
        return f"vision_tower stage {int(stage[1]) + 1}"
    if parameter_name.startswith(f"{VISION_TOWER_PREFIX}encoder.layers."):
        return "vision_tower layers"
    if parameter_name.startswith(VISION_TOWER_PREFIX):
        return "vision_tower patches" if is_clip else "vision_tower stem"
    return "multi_modal_projector" if parameter_name.startswith(PROJECTOR_PREFIX) else "language_model"
