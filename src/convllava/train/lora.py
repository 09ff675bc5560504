"""LoRA and QLoRA: adapters in place of a part's own weights, saved as adapters and as a whole model."""

from pathlib import Path
from typing import Any

import torch

from ..inference import load_pretrained
from ..inference.adapters import LANGUAGE_MODEL_LAYERS, add_adapter, load_adapter, merge_adapter, save_adapter
from ..model import ConvLlavaForConditionalGeneration, ConvLlavaVisionConfig
from .options import LoraOptions, TowerAdapter
from .recipe import Recipe
from .setup import set_options
from .stages import TRAINING_STAGES

ADAPTER_FOLDER = "adapter"
"""Inside ``output_dir``: what ``--adapter`` takes."""


def put_adapters(model: ConvLlavaForConditionalGeneration, recipe: Recipe) -> Any:
    """Return a ``PeftModel`` that trains the recipe's adapters, and the projector where its training stage does.

    The trained parameters are float32, whatever the frozen ones are.

    Raises:
        ValueError: When the recipe asks for what adapters cannot do, or for stages that the encoder does not have.
    """
    assert recipe.lora is not None
    _check(model, recipe)
    adapted = add_adapter(model, _peft_config(model, recipe.lora, recipe.training_stage))
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return adapted


def save_adapted(
    adapted: Any, recipe: Recipe, processor: Any, folder: Path
) -> ConvLlavaForConditionalGeneration | None:
    """Save the adapter and, unless the recipe says otherwise, the model with it merged, which is returned.

    A quantized base is read again in full: the adapter is added to the weights it stands for.
    """
    assert recipe.lora is not None and recipe.init_from is not None
    dtype = torch.bfloat16 if recipe.precision == "bfloat16" else torch.float32
    if recipe.lora.quantize is not None:
        adapted.save_pretrained(str(folder / ADAPTER_FOLDER))
        base, _ = load_pretrained(recipe.init_from, dtype=dtype, device="cpu")
        set_options(base.config, processor, recipe)
        adapted = load_adapter(base, folder / ADAPTER_FOLDER)
    save_adapter(adapted, folder / ADAPTER_FOLDER)  # with a sketch of its base, in full precision
    processor.save_pretrained(folder / ADAPTER_FOLDER)
    if not recipe.lora.merge:
        return None
    merged = merge_adapter(adapted).to(dtype)
    merged.save_pretrained(folder)
    processor.save_pretrained(folder)
    return merged


def _peft_config(model: ConvLlavaForConditionalGeneration, lora: LoraOptions, training_stage: str) -> Any:
    from peft import LoraConfig

    targets, ranks, alphas = [], {}, {}
    if lora.language_model is not None:
        targets.append(LANGUAGE_MODEL_LAYERS)
        ranks[LANGUAGE_MODEL_LAYERS], alphas[LANGUAGE_MODEL_LAYERS] = (
            lora.language_model.rank,
            lora.language_model.alpha,
        )
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


def _check(model: ConvLlavaForConditionalGeneration, recipe: Recipe) -> None:
    lora, config = recipe.lora, model.config.vision_config
    assert lora is not None
    if lora.vision_tower is None:
        return
    if not isinstance(config, ConvLlavaVisionConfig):
        raise ValueError(f"lora.vision_tower adapts ConvNeXt layers, and this encoder is {config.model_type}")
    if lora.vision_tower.from_stage > config.num_stages:
        raise ValueError(
            f"lora.vision_tower.from_stage is {lora.vision_tower.from_stage} but the encoder has "
            f"{config.num_stages} stages"
        )
