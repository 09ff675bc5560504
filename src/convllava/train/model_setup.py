"""The model that a recipe means: resolved once, before any weight is loaded, then handed on."""

import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import CLIPVisionConfig, set_seed
from transformers.modeling_layers import GradientCheckpointingLayer

from ..convert import Checkpoint, JoinSettings, end_token_fault, open_checkpoint, open_parts
from ..inference import load_pretrained
from ..inference.checkpoint_files import BUNDLED, hub_id, locate
from ..model import (
    ConvLlavaConfig,
    ConvLlavaForConditionalGeneration,
    ConvLlavaProcessor,
    ConvLlavaVisionModel,
    append_stages,
    build_nano_processor,
    enlarge_kernels,
    nano,
)
from ..support import check_loading_report, quiet_transformers
from .architecture import AppendStages, Architecture
from .architecture_config import (
    architecture_config,
    check_agreement,
    config_with_kernels,
    config_with_stages,
    with_architecture,
)
from .ctc_head import EncoderWithCtcHead
from .lora import add_adapters
from .recipe import Recipe
from .recipe_options import Parts
from .stages import set_trainable

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ResolvedModel:
    """The model of a recipe, without weights.

    Attributes:
        recipe: The recipe.
        config: Configuration with the appended stages and the recipe's image and prompt options.
        processor: Processor with the same options; None if the starting checkpoint is not on this machine.
        checkpoint: Opened starting checkpoint; None if training starts from scratch, or it is not on this machine.
    """

    recipe: Recipe
    config: ConvLlavaConfig
    processor: ConvLlavaProcessor | None
    checkpoint: Checkpoint | None

    def outline(self) -> ConvLlavaForConditionalGeneration:
        """Build the model without weights (meta device), its parameters frozen or not as in training."""
        with torch.device("meta"):
            model = ConvLlavaForConditionalGeneration(self.config)
        set_trainable(model, self.recipe)
        return model

    def load(self, *, quantized: bool = True) -> ConvLlavaForConditionalGeneration:
        """Load the starting weights and add the appended stages, in the state in which training starts.

        Args:
            quantized: Whether to quantize the frozen weights next to adapters as the recipe says.

        Raises:
            ValueError: The checkpoint is damaged.
        """
        recipe = self.recipe
        set_seed(recipe.seed)
        if self.checkpoint is None:
            model = ConvLlavaForConditionalGeneration(self.config)
        elif recipe.init_from_parts is not None:
            model = _load_parts(self.checkpoint)
        else:
            options = _loading_options(recipe, quantized)
            model, _ = load_pretrained(str(recipe.init_from), **options)
        if recipe.append_stages is not None and self.checkpoint is not None:
            model = _append_stages(model, recipe.append_stages)
        if recipe.enlarge_kernels is not None:
            model = _enlarge_kernels(model, recipe.enlarge_kernels)
        _set_config_options(model.config, recipe)
        if recipe.lora is None:  # adapters choose their parameters themselves, and quantized weights cannot be asked
            set_trainable(model, recipe)
        return model

    def load_on_rank(self, rank: int) -> ConvLlavaForConditionalGeneration:
        """Load the model on process 0, and its outline on the others, before it is sharded.

        The parameters of an outline are on the meta device, its buffers are filled. A machine with eight devices
        would hold the model eight times otherwise.
        """
        if rank == 0:
            return self.load()
        from accelerate import init_empty_weights

        with init_empty_weights(include_buffers=False):
            model = ConvLlavaForConditionalGeneration(self.config)
        model.to(torch.float32)  # the checkpoint's dtype may differ, and processes must agree on it
        model.tie_weights()  # moving parameters to the meta device one by one has untied them
        set_trainable(model, self.recipe)
        return model


def resolve_model(recipe: Recipe, *, fetch: bool = True) -> ResolvedModel:
    """Resolve the model that a recipe means; of the weights only names and shapes are read.

    Args:
        recipe: The recipe.
        fetch: Whether to download a starting checkpoint. Otherwise ``model`` stands in for one that is not on this
            machine, and there is no processor, unless the model can be trained from scratch.

    Raises:
        ValueError: A preset, checkpoint or part is unknown, or the checkpoint contradicts the recipe.
    """
    checkpoint = None
    processor: ConvLlavaProcessor | None
    if recipe.init_from is None and recipe.init_from_parts is None:
        config, processor = _from_scratch(recipe.model)
    elif recipe.model is not None and not fetch and not is_local(recipe):
        config, processor = _outline_of_missing(recipe.model)
    else:
        checkpoint = _open_start(recipe)
        config, processor = checkpoint.config, checkpoint.processor
        if recipe.model is not None:
            check_agreement(config, recipe.model, recipe.init_from or "init_from_parts")
    if recipe.append_stages is not None:
        config = config_with_stages(config, recipe.append_stages)
    if recipe.enlarge_kernels is not None:
        config = config_with_kernels(config, recipe.enlarge_kernels, "enlarge_kernels")
    _set_config_options(config, recipe)
    _check_images(config, recipe)
    if processor is not None:
        _set_processor_options(processor, config, recipe)
        if checkpoint is not None and (fault := end_token_fault(processor, checkpoint.generation_config)):
            logger.warning("%s: %s", recipe.init_from or "init_from_parts", fault)
    return ResolvedModel(recipe, config, processor, checkpoint)


def trainable_module(
    recipe: Recipe, model: ConvLlavaForConditionalGeneration, processor: ConvLlavaProcessor
) -> nn.Module:
    """Return the module that is trained: the model, the model with adapters, or its encoder under a CTC head.

    Args:
        recipe: The recipe.
        model: The loaded model; its layers are compiled and recomputed in place, as the recipe says.
        processor: Its processor.

    Raises:
        ValueError: The recipe asks for adapters or a head that the model cannot have.
    """
    if recipe.torch_compile:
        for module in model.modules():
            if isinstance(module, GradientCheckpointingLayer):  # a layer: compiled for each shape of its input
                module.compile(dynamic=False)
    trained: nn.Module = model
    if not recipe.trains_language_model:
        trained = EncoderWithCtcHead.from_model(model, processor)
    elif recipe.lora is not None:
        trained = add_adapters(model, recipe)
    if recipe.activation_checkpointing:
        model.activation_checkpointing_enable()  # after the adapters: PEFT would make the embeddings require gradients
    return trained


def is_local(recipe: Recipe) -> bool:
    """Return whether the starting checkpoint of a recipe is on this machine."""
    if (parts := recipe.init_from_parts) is not None:
        return Path(parts.vision_tower).exists() and Path(parts.language_model).is_dir()
    return recipe.init_from is None or recipe.init_from in BUNDLED or Path(recipe.init_from).is_dir()


def _open_start(recipe: Recipe) -> Checkpoint:
    if recipe.init_from_parts is not None:
        return _open_parts(recipe.init_from_parts, recipe)
    return open_checkpoint(locate(str(recipe.init_from)), hub_id=hub_id(str(recipe.init_from)))


def _open_parts(parts: Parts, recipe: Recipe) -> Checkpoint:
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


def _load_parts(checkpoint: Checkpoint) -> ConvLlavaForConditionalGeneration:
    tensors = {name: weight.load() for name, weight in checkpoint.weights.items()}
    with quiet_transformers():
        model, report = ConvLlavaForConditionalGeneration.from_pretrained(
            None, config=checkpoint.config, state_dict=tensors, dtype=torch.float32, output_loading_info=True
        )
    check_loading_report(report, "init_from_parts")
    model.generation_config = checkpoint.generation_config
    return model


def _loading_options(recipe: Recipe, quantized: bool) -> dict[str, Any]:
    """Return how the starting weights are held: in float32, unless they stay frozen next to adapters."""
    if recipe.lora is None:
        return {"dtype": torch.float32, "device": "cpu"}
    dtype = torch.bfloat16 if recipe.precision == "bfloat16" else torch.float32
    if recipe.lora.quantize is None or not quantized:
        return {"dtype": dtype, "device": "cpu"}
    # quantized weights are made on the device where they stay
    device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if torch.cuda.is_available() else "cpu"
    return {"dtype": dtype, "device": device, "quantize": recipe.lora.quantize}


def _from_scratch(architecture: Architecture | None) -> tuple[ConvLlavaConfig, ConvLlavaProcessor]:
    if architecture is None or architecture.preset != "nano":
        name = None if architecture is None else architecture.preset
        raise ValueError(
            f"model {name!r} cannot be trained from scratch here: only 'nano' comes with a tokenizer; start from a "
            "checkpoint with init_from"
        )
    tokenizer_only = build_nano_processor()
    config = with_architecture(nano(vocab_size=len(tokenizer_only.tokenizer)), architecture)
    processor = build_nano_processor(config.output_stride, config.image_aspect_ratio, config.resolution)
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        setattr(config.text_config, name, getattr(processor.tokenizer, name))
    return config, processor


def _outline_of_missing(architecture: Architecture) -> tuple[ConvLlavaConfig, ConvLlavaProcessor | None]:
    if architecture.preset == "nano":
        return _from_scratch(architecture)
    return architecture_config(architecture), None


def _append_stages(
    model: ConvLlavaForConditionalGeneration, appended: AppendStages
) -> ConvLlavaForConditionalGeneration:
    """Append fresh stages to the encoder; the projector, now of another width, starts afresh too."""
    tower: ConvLlavaVisionModel = append_stages(model.model.vision_tower, appended.depths, appended.hidden_sizes)
    values: dict[str, Any] = model.config.to_dict()
    values["vision_config"] = tower.config.to_dict()
    values["trained_visual_tokens"] = None  # they had another size
    grown = ConvLlavaForConditionalGeneration(ConvLlavaConfig.from_dict(values))
    grown.model.vision_tower.load_state_dict(tower.state_dict())
    grown.model.language_model.load_state_dict(model.model.language_model.state_dict())
    grown.lm_head.load_state_dict(model.lm_head.state_dict())
    return grown


def _enlarge_kernels(
    model: ConvLlavaForConditionalGeneration, kernel_size: int | list[int]
) -> ConvLlavaForConditionalGeneration:
    """Enlarge the encoder's kernels in place; the features stay the same."""
    tower = enlarge_kernels(model.model.vision_tower, kernel_size)
    model.model.vision_tower = tower
    model.config.vision_config = tower.config
    return model


def _check_images(config: ConvLlavaConfig, recipe: Recipe) -> None:
    """Check that images have the one shape that a ViT with learned positions can encode."""
    if not isinstance(config.vision_config, CLIPVisionConfig):
        return
    side = config.vision_config.image_size
    found = (config.image_aspect_ratio, config.resolution, recipe.image.max_visual_tokens)
    if found != ("pad", side, None):
        raise ValueError(
            f"image: this ViT encodes squares of {side} pixels only, got aspect_ratio {found[0]}, resolution "
            f"{found[1]}, max_visual_tokens {found[2]}; leave image out or change the ViT's image_size"
        )


def _set_config_options(config: ConvLlavaConfig, recipe: Recipe) -> None:
    """Write the recipe's image and prompt options into the configuration that checkpoints carry."""
    given = recipe.image.options.given()
    for name in ("image_aspect_ratio", "resolution"):
        if name in given:
            setattr(config, name, given[name])
    if recipe.prompt_format is not None:
        config.prompt_format = recipe.prompt_format


def _set_processor_options(processor: ConvLlavaProcessor, config: ConvLlavaConfig, recipe: Recipe) -> None:
    """Write the recipe's image and prompt options into the processor that checkpoints carry."""
    if recipe.prompt_format is not None:
        processor.set_prompt_format(recipe.prompt_format)
    processor.image_processor.output_stride = config.output_stride
    for name, value in recipe.image.options.given().items():
        setattr(processor.image_processor, name, value)
