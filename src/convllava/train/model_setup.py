"""The model that a recipe means: resolved once, before any weight is loaded, then handed on."""

import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig, set_seed
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
    nano,
    preset,
)
from ..support import check_loading_report, quiet_transformers
from .ctc_head import EncoderWithCtcHead
from .lora import add_adapters
from .recipe import Recipe
from .recipe_options import AppendStages, Architecture, Parts
from .stages import check_is_convnext, set_trainable

logger = logging.getLogger(__name__)

_ENCODER_KEYS = {
    "convllava_vision": ("depths", "hidden_sizes", "kernel_size"),
    "clip_vision_model": ("hidden_size", "num_hidden_layers", "patch_size", "image_size"),
}
_LANGUAGE_MODEL_KEYS = ("model_type", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
"""Compared settings; the vocabulary may differ, since tokenizers grow and some are padded to round numbers."""


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
            machine, and there is no processor.

    Raises:
        ValueError: A preset, checkpoint or part is unknown, or the checkpoint contradicts the recipe.
    """
    checkpoint = None
    if recipe.init_from is None and recipe.init_from_parts is None:
        config, processor = _from_scratch(recipe)
    elif recipe.model is not None and not fetch and not is_local(recipe):
        config, processor = architecture_config(recipe.model), None
    else:
        checkpoint = _open_start(recipe)
        config, processor = checkpoint.config, checkpoint.processor
        if recipe.model is not None:
            check_agreement(config, recipe.model, recipe.init_from or "init_from_parts")
    if recipe.append_stages is not None:
        config = config_with_stages(config, recipe.append_stages)
    _set_config_options(config, recipe)
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


def _from_scratch(recipe: Recipe) -> tuple[ConvLlavaConfig, ConvLlavaProcessor]:
    if recipe.model is None or recipe.model.preset != "nano":
        name = None if recipe.model is None else recipe.model.preset
        raise ValueError(
            f"model {name!r} cannot be trained from scratch here: only 'nano' comes with a tokenizer; start from a "
            "checkpoint with init_from"
        )
    processor = build_nano_processor()
    config = nano(vocab_size=len(processor.tokenizer))
    if (appended := recipe.model.append_stages) is not None:
        config = config_with_stages(config, appended)
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        setattr(config.text_config, name, getattr(processor.tokenizer, name))
    return config, processor


def _append_stages(
    model: ConvLlavaForConditionalGeneration, appended: AppendStages
) -> ConvLlavaForConditionalGeneration:
    """Append fresh stages to the encoder; the projector, now of another width, starts afresh too."""
    tower: ConvLlavaVisionModel = append_stages(model.model.vision_tower, appended.depths, appended.hidden_sizes)
    values: dict[str, Any] = model.config.to_dict()
    values["vision_config"] = tower.config.to_dict()
    grown = ConvLlavaForConditionalGeneration(ConvLlavaConfig.from_dict(values))
    grown.model.vision_tower.load_state_dict(tower.state_dict())
    grown.model.language_model.load_state_dict(model.model.language_model.state_dict())
    grown.lm_head.load_state_dict(model.lm_head.state_dict())
    return grown


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


def architecture_config(architecture: Architecture) -> ConvLlavaConfig:
    """Return the configuration of an architecture.

    Raises:
        ValueError: The preset is unknown, or stages are appended to an encoder that has none.
    """
    config = preset(architecture.preset)
    appended = architecture.append_stages
    return config if appended is None else config_with_stages(config, appended)


def config_with_stages(config: ConvLlavaConfig, appended: AppendStages) -> ConvLlavaConfig:
    """Return the configuration with further stages appended to the encoder.

    Raises:
        ValueError: The encoder is not a ConvNeXt.
    """
    check_is_convnext(config.vision_config, "append_stages")
    values: dict[str, Any] = config.to_dict()
    values["vision_config"] = append_stages(config.vision_config, appended.depths, appended.hidden_sizes).to_dict()
    return ConvLlavaConfig.from_dict(values)


def check_agreement(found: ConvLlavaConfig, architecture: Architecture, source: str) -> None:
    """Check that a checkpoint has the architecture that the recipe states.

    Args:
        found: Configuration of the checkpoint.
        architecture: Architecture in the recipe.
        source: Name of the checkpoint in the error.

    Raises:
        ValueError: They differ; names the first difference and both values.
    """
    expected = architecture_config(architecture)
    vision, text = (found.vision_config, expected.vision_config), (found.text_config, expected.text_config)
    _compare("vision encoder", *vision, ("model_type",), source)
    _compare("vision encoder", *vision, _ENCODER_KEYS[expected.vision_config.model_type], source)
    _compare("language model", *text, _LANGUAGE_MODEL_KEYS, source)


def _compare(
    part: str, found: PreTrainedConfig, expected: PreTrainedConfig, names: tuple[str, ...], source: str
) -> None:
    for name in names:
        here, there = getattr(found, name), getattr(expected, name)
        if here != there:
            raise ValueError(
                f"{source}: {name} of its {part} is {here}, but the recipe's model has {there}; start from another "
                "checkpoint or correct model"
            )
