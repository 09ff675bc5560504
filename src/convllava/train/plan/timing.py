"""The time of a small run on this machine, from two micro-batches that are computed with random weights."""

import time

import torch

from ...data.batching import Collator
from ...data.packing import PackingCollator
from ...model import ConvLlavaForConditionalGeneration
from ..data_loading import encoded_dataset
from ..data_sources import open_mixture
from ..model_setup import resolve_model, trainable_module
from ..recipe import Recipe
from ..stages import set_trainable

LARGEST_MODEL = 100_000_000
"""Number of parameters up to which a model is built and timed; a larger one takes too long for a plan."""

TIMED_SAMPLES = 8
"""Maximum samples of a timed micro-batch."""


def seconds_here(recipe: Recipe, samples: int, per_device: int) -> float | None:
    """Estimate the seconds of a run on this machine by one process; None if the model is too large to try.

    Args:
        recipe: The recipe.
        samples: Number of samples that the run draws.
        per_device: Samples of a micro-batch.

    Raises:
        ValueError: The data cannot be used.
    """
    resolved = resolve_model(recipe, fetch=False)
    size = sum(parameter.numel() for parameter in resolved.outline().parameters())
    if resolved.processor is None or size > LARGEST_MODEL or recipe.engine != "ddp":
        return None
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = ConvLlavaForConditionalGeneration(resolved.config).to(device, torch.float32)  # as in training
    set_trainable(model, recipe)
    module = trainable_module(recipe, model, resolved.processor).train()
    mixture = open_mixture(recipe)
    encoded = encoded_dataset(recipe, mixture, resolved.processor)
    collator = Collator(resolved.processor.tokenizer.pad_token_id)
    collate = PackingCollator(collator) if recipe.packing else collator
    count = min(per_device, TIMED_SAMPLES, len(mixture))
    began = time.perf_counter()
    for number in range(2):  # the first round pays for what is loaded and compiled once
        began = time.perf_counter()
        chosen = [(number * count + index) % len(mixture) for index in range(count)]
        batch = collate([encoded[index] for index in chosen])
        inputs = {name: value.to(device) for name, value in batch.items() if isinstance(value, torch.Tensor)}
        with torch.autocast(device.type, torch.bfloat16, enabled=recipe.precision == "bfloat16"):
            loss = module(**inputs, use_cache=False)["loss"]
        if loss.requires_grad:
            loss.backward()
        if device.type == "cuda":
            torch.cuda.synchronize()
    return (time.perf_counter() - began) / count * samples
