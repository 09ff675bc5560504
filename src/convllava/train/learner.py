"""What the optimizer sees of a model, as a recipe wants it."""

from typing import Any

import torch
from transformers.modeling_layers import GradientCheckpointingLayer

from ..model import ConvLlavaForConditionalGeneration, ConvLlavaProcessor
from ..synthetic import POSITION_END
from . import sharding
from .lora import put_adapters
from .reading import EncoderReader
from .recipe import Recipe


def learner_of(recipe: Recipe, model: ConvLlavaForConditionalGeneration, processor: ConvLlavaProcessor) -> Any:
    """Return what is trained: the model, its encoder under a head, the model with adapters, or a share of it."""
    if recipe.torch_compile:
        for module in model.modules():
            if isinstance(module, GradientCheckpointingLayer):  # a layer: compiled for each shape of its input
                module.compile(dynamic=False)
    if recipe.training_stage == "encoder":
        return _encoder_reader(model, processor)
    if recipe.lora is not None:
        return put_adapters(model, recipe)
    if recipe.engine == "fsdp2":
        if not torch.distributed.is_initialized() or torch.distributed.get_world_size() == 1:
            raise ValueError("engine fsdp2 divides the model among several processes: start them with torchrun")
        sharding.shard(model, recipe.precision)
    return model


def _encoder_reader(model: ConvLlavaForConditionalGeneration, processor: ConvLlavaProcessor) -> EncoderReader:
    cell_end = processor.tokenizer.encode(POSITION_END, add_special_tokens=False)
    if len(cell_end) != 1:
        raise ValueError(
            f"training_stage encoder needs a tokenizer with one token for a tab, this one has {len(cell_end)}"
        )
    return EncoderReader(model, cell_end[0])
