"""LoRA and QLoRA: adapters trained instead of the weights, saved both as an adapter and as a merged model."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..inference.adapters import LANGUAGE_MODEL_LAYERS, add_adapter, load_adapter, merge_adapter, save_adapter
from ..model import ConvLlavaForConditionalGeneration, ConvLlavaProcessor, ConvLlavaVisionConfig
from .recipe import Recipe
from .recipe_options import LoraOptions, TowerAdapter
from .stages import TRAINING_STAGES

if TYPE_CHECKING:
    from peft import LoraConfig, PeftModel

ADAPTER_FOLDER = "adapter"
"""Folder of the adapter inside ``output_dir``, as ``--adapter`` takes it."""


def add_adapters(model: ConvLlavaForConditionalGeneration, recipe: Recipe) -> "PeftModel":
    """Wrap a model so that the recipe's adapters are trained, and the projector if its training stage updates it.

    The trained parameters are float32, whatever the dtype of the frozen ones.

    Raises:
        ValueError: The recipe asks for an encoder stage that does not exist or cannot have adapters.
    """
    lora = _options(recipe)
    _check_tower(model, lora)
    adapted = add_adapter(model, _peft_config(model, lora, recipe.training_stage))
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return adapted


def load_adapter_weights(adapted: "PeftModel", folder: Path) -> None:
    """Load the adapters of a checkpoint into a model that has some of the same shapes."""
    adapted.load_adapter(str(folder), adapted.active_adapter, is_trainable=True)


def save_adapters(
    adapted: "PeftModel",
    recipe: Recipe,
    processor: ConvLlavaProcessor,
    folder: Path,
    load_unquantized: Callable[[], ConvLlavaForConditionalGeneration],
) -> ConvLlavaForConditionalGeneration | None:
    """Save the adapters and, unless the recipe's ``lora.merge`` is false, the model with the adapters merged.

    Args:
        adapted: The trained model with its adapters.
        recipe: The recipe.
        processor: Saved with both.
        folder: Folder of the merged model; the adapters are in ``adapter`` inside it.
        load_unquantized: Loads the base again, to merge the adapters into it, if the frozen weights are quantized.

    Returns:
        The merged model, or None.
    """
    lora = _options(recipe)
    if lora.quantize is not None:
        adapted.save_pretrained(str(folder / ADAPTER_FOLDER))
        adapted = load_adapter(load_unquantized(), folder / ADAPTER_FOLDER)
    save_adapter(adapted, folder / ADAPTER_FOLDER)  # with the sketch of the unquantized base
    processor.save_pretrained(folder / ADAPTER_FOLDER)
    if not lora.merge:
        return None
    merged = merge_adapter(adapted).to(torch.bfloat16 if recipe.precision == "bfloat16" else torch.float32)
    merged.save_pretrained(folder)
    processor.save_pretrained(folder)
    return merged


def _options(recipe: Recipe) -> LoraOptions:
    if recipe.lora is None:
        raise ValueError("the recipe has no lora: adapters need their ranks")
    return recipe.lora


def _peft_config(model: ConvLlavaForConditionalGeneration, lora: LoraOptions, training_stage: str) -> "LoraConfig":
    from peft import LoraConfig

    targets, ranks, alphas = [], {}, {}
    if lora.language_model is not None:
        targets.append(LANGUAGE_MODEL_LAYERS)
        ranks[LANGUAGE_MODEL_LAYERS] = lora.language_model.rank
        alphas[LANGUAGE_MODEL_LAYERS] = lora.language_model.alpha
    if lora.vision_tower is not None:
        pattern = _tower_pattern(model.config.vision_config, lora.vision_tower)
        targets.append(pattern)
        ranks[pattern], alphas[pattern] = lora.vision_tower.rank, lora.vision_tower.alpha
    trains_projector = TRAINING_STAGES[training_stage].projector
    return LoraConfig(
        r=next(iter(ranks.values())),
        lora_alpha=next(iter(alphas.values())),
        rank_pattern=ranks,
        alpha_pattern=alphas,
        lora_dropout=lora.dropout,
        target_modules="|".join(f"({target})" for target in targets),
        modules_to_save=["multi_modal_projector"] if trains_projector else None,
        task_type="CAUSAL_LM",
    )


def _tower_pattern(config: ConvLlavaVisionConfig, adapter: TowerAdapter) -> str:
    stages = "|".join(str(index) for index in range(adapter.from_stage - 1, config.num_stages))
    return rf"model\.vision_tower\.encoder\.stages\.({stages})\.layers\.\d+\.(pwconv1|pwconv2)"


def _check_tower(model: ConvLlavaForConditionalGeneration, lora: LoraOptions) -> None:
    config: Any = model.config.vision_config
    if lora.vision_tower is None:
        return
    if not isinstance(config, ConvLlavaVisionConfig):
        raise ValueError(f"lora.vision_tower adapts ConvNeXt layers, and this encoder is {config.model_type}")
    if lora.vision_tower.from_stage > config.num_stages:
        raise ValueError(
            f"lora.vision_tower.from_stage is {lora.vision_tower.from_stage} but the encoder has "
            f"{config.num_stages} stages"
        )
