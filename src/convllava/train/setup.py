"""The model and processor that a recipe starts from."""

import os
from pathlib import Path
from typing import Any

import torch
from transformers import set_seed

from ..convert import open_checkpoint
from ..inference import load_pretrained
from ..inference.checkpoint_files import BUNDLED, hub_id, locate
from ..model import (
    ConvLlavaConfig,
    ConvLlavaForConditionalGeneration,
    ConvLlavaProcessor,
    ConvLlavaVisionModel,
    append_stages,
    build_nano_processor,
    nano,
)
from .architecture import architecture_config, check_agreement, check_is_convnext, grown_config
from .parts import load_parts, open_starting_parts, parts_are_here
from .recipe import AppendStages, Recipe

_IMAGE_OPTIONS = {
    "aspect_ratio": "image_aspect_ratio",
    "resolution": "resolution",
    "max_visual_tokens": "max_visual_tokens",
}
"""Keys of a recipe and what the image processor calls them."""


def build(recipe: Recipe) -> tuple[ConvLlavaForConditionalGeneration, ConvLlavaProcessor]:
    """Build what the recipe trains: from scratch, a checkpoint or parts, grown and set up as it says.

    Raises:
        ValueError: When the preset, checkpoint or part is unknown, or contradicts the recipe.
    """
    set_seed(recipe.seed)
    model, processor = _start(recipe)
    if recipe.append_stages is not None:
        model = _grow(model, recipe.append_stages)
    set_options(model.config, processor, recipe)
    return model, processor


def outline(recipe: Recipe) -> tuple[ConvLlavaForConditionalGeneration, ConvLlavaProcessor | None]:
    """Build the same model without weights (meta device).

    A starting checkpoint that is here is read, of its weights only names and shapes; for one that is not, ``model``
    stands in, and there is no processor then.

    Raises:
        ValueError: As :func:`build`; also when the checkpoint is not here and the recipe does not say what it is.
    """
    config, processor = _planned(recipe)
    with torch.device("meta"):
        return ConvLlavaForConditionalGeneration(config), processor


def build_share(recipe: Recipe, rank: int) -> tuple[ConvLlavaForConditionalGeneration, ConvLlavaProcessor]:
    """Build what one of several processes brings along when the model is divided among them.

    The first holds the weights. The others know names and shapes alone (parameters on the meta device, buffers filled),
    or a machine with eight devices would hold the model eight times over.
    """
    if rank == 0 or recipe.feature_cache is not None:  # all processes encode images for the cache
        return build(recipe)
    config, processor = _planned(recipe)
    if processor is None:  # what it starts from has still to be fetched
        return build(recipe)
    from accelerate import init_empty_weights

    with init_empty_weights(include_buffers=False):
        model = ConvLlavaForConditionalGeneration(config)
    model.to(_loading_options(recipe)["dtype"])  # a checkpoint's own may be another, and processes must agree on it
    model.tie_weights()  # moving them to the meta device one by one has undone it
    return model, processor


def is_here(recipe: Recipe) -> bool:
    """Tell whether what the recipe starts from lies on this machine."""
    if recipe.init_from_parts is not None:
        return parts_are_here(recipe.init_from_parts)
    return recipe.init_from is None or recipe.init_from in BUNDLED or Path(recipe.init_from).is_dir()


def _start(recipe: Recipe) -> tuple[ConvLlavaForConditionalGeneration, ConvLlavaProcessor]:
    if recipe.init_from is None and recipe.init_from_parts is None:
        return _from_scratch(recipe)
    if recipe.init_from_parts is not None:
        found = load_parts(recipe.init_from_parts, recipe)
    else:
        found = load_pretrained(str(recipe.init_from), **_loading_options(recipe))
    if recipe.model is not None:
        check_agreement(found[0].config, recipe.model, recipe.init_from or "init_from_parts")
    return found


def _loading_options(recipe: Recipe) -> dict[str, Any]:
    """Return how the starting weights are held: float32, unless they stay frozen beside adapters."""
    if recipe.lora is None:
        return {"dtype": torch.float32, "device": "cpu"}
    dtype = torch.bfloat16 if recipe.precision == "bfloat16" else torch.float32
    if recipe.lora.quantize is None:
        return {"dtype": dtype, "device": "cpu"}
    # quantized weights are made where they stay
    device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if torch.cuda.is_available() else "cpu"
    return {"dtype": dtype, "device": device, "quantize": recipe.lora.quantize}


def _planned(recipe: Recipe) -> tuple[ConvLlavaConfig, ConvLlavaProcessor | None]:
    """Return configuration and processor as training starts with them; the latter only if the checkpoint is here."""
    config, processor = _start_outlined(recipe)
    if recipe.append_stages is not None:
        config = grown_config(config, recipe.append_stages.depths, recipe.append_stages.hidden_sizes)
    set_options(config, processor, recipe)
    return config, processor


def _start_outlined(recipe: Recipe) -> tuple[ConvLlavaConfig, ConvLlavaProcessor | None]:
    if recipe.init_from is None and recipe.init_from_parts is None:
        return _nano_parts(recipe)
    if recipe.model is not None and not is_here(recipe):
        return architecture_config(recipe.model), None
    if recipe.init_from_parts is not None:
        checkpoint = open_starting_parts(recipe.init_from_parts, recipe)
    else:
        checkpoint = open_checkpoint(locate(str(recipe.init_from)), hub_id=hub_id(str(recipe.init_from)))
    if recipe.model is not None:
        check_agreement(checkpoint.config, recipe.model, recipe.init_from or "init_from_parts")
    return checkpoint.config, checkpoint.processor


def _from_scratch(recipe: Recipe) -> tuple[ConvLlavaForConditionalGeneration, ConvLlavaProcessor]:
    config, processor = _nano_parts(recipe)
    return ConvLlavaForConditionalGeneration(config), processor


def _nano_parts(recipe: Recipe) -> tuple[ConvLlavaConfig, ConvLlavaProcessor]:
    assert recipe.model is not None
    if recipe.model.preset != "nano":
        raise ValueError(
            f"model {recipe.model.preset!r} cannot be trained from scratch here: only 'nano' comes with a tokenizer; "
            "start from a checkpoint with init_from"
        )
    processor = build_nano_processor()
    config = nano(vocab_size=len(processor.tokenizer))
    if (appended := recipe.model.append_stages) is not None:
        config = grown_config(config, appended.depths, appended.hidden_sizes)
    processor.image_processor.output_stride = config.output_stride
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        setattr(config.text_config, name, getattr(processor.tokenizer, name))
    return config, processor


def _grow(model: ConvLlavaForConditionalGeneration, appended: AppendStages) -> ConvLlavaForConditionalGeneration:
    """Put fresh stages behind the encoder; the projector, now of another width, starts afresh too."""
    check_is_convnext(model.config.vision_config, "append_stages")
    tower: ConvLlavaVisionModel = append_stages(model.model.vision_tower, appended.depths, appended.hidden_sizes)
    values: dict[str, Any] = model.config.to_dict()
    values["vision_config"] = tower.config.to_dict()
    grown = ConvLlavaForConditionalGeneration(ConvLlavaConfig.from_dict(values))
    grown.model.vision_tower.load_state_dict(tower.state_dict())
    grown.model.language_model.load_state_dict(model.model.language_model.state_dict())
    grown.lm_head.load_state_dict(model.lm_head.state_dict())
    return grown


def set_options(config: ConvLlavaConfig, processor: ConvLlavaProcessor | None, recipe: Recipe) -> None:
    """Write the recipe's image and prompt options into everything that is saved with the checkpoint."""
    image, told = recipe.image, recipe.image.model_dump(exclude_none=True)
    if image.aspect_ratio is not None:
        config.image_aspect_ratio = image.aspect_ratio
    if image.resolution is not None:
        config.resolution = image.resolution
    if recipe.prompt_format is not None:
        config.prompt_format = recipe.prompt_format
    if processor is None:
        return
    if recipe.prompt_format is not None:
        processor.set_prompt_format(recipe.prompt_format)
    processor.image_processor.output_stride = config.output_stride
    for key, attribute in _IMAGE_OPTIONS.items():
        if key in told:
            setattr(processor.image_processor, attribute, told[key])
