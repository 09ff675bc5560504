"""Training from a vision encoder and a language model that have not met yet: joined, with a fresh projector."""

from pathlib import Path

import torch

from ..convert import Checkpoint, JoinSettings, open_parts
from ..inference.checkpoint_files import locate
from ..model import ConvLlavaForConditionalGeneration, ConvLlavaProcessor
from ..support import check_loading_report, quiet_transformers
from .recipe import Parts, Recipe


def parts_are_here(parts: Parts) -> bool:
    """Tell whether both lie on this machine."""
    return Path(parts.vision_tower).exists() and Path(parts.language_model).is_dir()


def open_starting_parts(parts: Parts, recipe: Recipe) -> Checkpoint:
    """See the parts as one checkpoint; of their tensors only names and shapes are read.

    Raises:
        ValueError: One of them is missing or no such part, or nobody says how large images are shown.
    """
    tower = Path(parts.vision_tower)
    return open_parts(
        tower if tower.exists() else locate(parts.vision_tower),
        locate(parts.language_model),
        JoinSettings(
            resolution=recipe.image.resolution,
            image_aspect_ratio=recipe.image.aspect_ratio or "pad",
            prompt_format=recipe.prompt_format,
            seed=recipe.seed,
        ),
    )


def load_parts(parts: Parts, recipe: Recipe) -> tuple[ConvLlavaForConditionalGeneration, ConvLlavaProcessor]:
    """Build the model of the parts in float32.

    Raises:
        ValueError: As :func:`open_starting_parts`.
    """
    checkpoint = open_starting_parts(parts, recipe)
    tensors = {name: weight.load() for name, weight in checkpoint.weights.items()}
    with quiet_transformers():
        model, report = ConvLlavaForConditionalGeneration.from_pretrained(
            None, config=checkpoint.config, state_dict=tensors, dtype=torch.float32, output_loading_info=True
        )
    check_loading_report(report, f"{parts.vision_tower} and {parts.language_model}")
    model.generation_config = checkpoint.generation_config
    return model, checkpoint.processor
