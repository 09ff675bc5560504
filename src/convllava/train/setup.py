"""The model and processor that a recipe starts from."""

from typing import Any

import torch
from transformers import set_seed

from ..inference import load_pretrained
from ..model import (
    ConvLlavaConfig,
    ConvLlavaForConditionalGeneration,
    ConvLlavaProcessor,
    ConvLlavaVisionModel,
    append_stages,
    build_nano_processor,
    nano,
)
from .recipe import AppendStages, ImageOptions, Recipe


def build(recipe: Recipe) -> tuple[ConvLlavaForConditionalGeneration, ConvLlavaProcessor]:
    """Build what the recipe trains: a preset from scratch or a checkpoint, grown and set up as it says.

    Raises:
        ValueError: When the preset or checkpoint is unknown, or contradicts the recipe.
    """
    set_seed(recipe.seed)
    model, processor = _from_scratch(recipe) if recipe.model else _from_checkpoint(recipe)
    if recipe.append_stages is not None:
        model = _grow(model, recipe.append_stages)
    _set_options(model.config, processor, recipe)
    return model, processor


def _from_scratch(recipe: Recipe) -> tuple[ConvLlavaForConditionalGeneration, ConvLlavaProcessor]:
    if recipe.model != "nano":
        raise ValueError(
            f"model {recipe.model!r} cannot be trained from scratch here: only 'nano' comes with a tokenizer; start "
            "from a checkpoint with init_from"
        )
    processor = build_nano_processor()
    config = nano(vocab_size=len(processor.tokenizer))
    processor.image_processor.output_stride = config.output_stride
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        setattr(config.text_config, name, getattr(processor.tokenizer, name))
    return ConvLlavaForConditionalGeneration(config), processor


def _from_checkpoint(recipe: Recipe) -> tuple[ConvLlavaForConditionalGeneration, ConvLlavaProcessor]:
    assert recipe.init_from is not None
    return load_pretrained(recipe.init_from, dtype=torch.float32, device="cpu")


def _grow(model: ConvLlavaForConditionalGeneration, appended: AppendStages) -> ConvLlavaForConditionalGeneration:
    """Put fresh stages behind the encoder; the projector, now of another width, starts afresh too."""
    tower: ConvLlavaVisionModel = append_stages(model.model.vision_tower, appended.depths, appended.hidden_sizes)
    values: dict[str, Any] = model.config.to_dict()
    values["vision_config"] = tower.config.to_dict()
    grown = ConvLlavaForConditionalGeneration(ConvLlavaConfig.from_dict(values))
    grown.model.vision_tower.load_state_dict(tower.state_dict())
    grown.model.language_model.load_state_dict(model.model.language_model.state_dict())
    grown.lm_head.load_state_dict(model.lm_head.state_dict())
    return grown


def _set_options(config: ConvLlavaConfig, processor: ConvLlavaProcessor, recipe: Recipe) -> None:
    """Write the recipe's picture and prompt options into everything that is saved with the checkpoint."""
    image_processor = processor.image_processor
    image_processor.output_stride = config.output_stride
    _set_image_options(config, image_processor, recipe.image)
    if recipe.prompt_format is not None:
        config.prompt_format = recipe.prompt_format
        processor.set_prompt_format(recipe.prompt_format)


def _set_image_options(config: ConvLlavaConfig, image_processor: Any, image: ImageOptions) -> None:
    if image.aspect_ratio is not None:
        config.image_aspect_ratio = image_processor.image_aspect_ratio = image.aspect_ratio
    if image.resolution is not None:
        config.resolution = image_processor.resolution = image.resolution
    if image.max_visual_tokens is not None:
        image_processor.max_visual_tokens = image.max_visual_tokens
