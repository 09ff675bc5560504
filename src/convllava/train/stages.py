"""The paper's training protocol as a table: the parameters that each training stage updates, and at which rate.

Section 3.3 of the paper: first the projector and the new fifth stage of the encoder (``projector_init``); then the
encoder from a given stage on, the projector and the language model (``pretrain``); then the projector and the language
model (``instruct``). ``encoder`` and ``foundation`` are ours: they train the encoder alone (``ctc_head``), then all
parts from scratch, in place of the pretrained CLIP-ConvNeXt and Vicuna.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn
from transformers import CLIPVisionConfig, PreTrainedConfig, PreTrainedModel

from ..model import ConvLlavaForConditionalGeneration
from ..model.modeling_convllava import (
    CLIP_FEATURE_LAYER,
    LANGUAGE_MODEL_PREFIX,
    PROJECTOR_PREFIX,
    VISION_TOWER_PREFIX,
)
from .recipe import Recipe


@dataclass(frozen=True)
class StageUpdates:
    """The parts of the model that a training stage updates.

    Attributes:
        encoder: All of the vision encoder, only the appended stages, the stages from the recipe's
            ``train_from_stage`` (or its ``train_last_layers``), or none of it.
        language_model: Whether the language model and its head are updated.
        projector: Whether the projector is updated.
    """

    encoder: Literal["all", "appended", "from_stage", "none"]
    language_model: bool
    projector: bool = True


TRAINING_STAGES: dict[str, StageUpdates] = {
    "encoder": StageUpdates(encoder="all", projector=False, language_model=False),
    "foundation": StageUpdates(encoder="all", language_model=True),
    "projector_init": StageUpdates(encoder="appended", language_model=False),
    "pretrain": StageUpdates(encoder="from_stage", language_model=True),
    "instruct": StageUpdates(encoder="none", language_model=True),
}


def set_trainable(model: ConvLlavaForConditionalGeneration, recipe: Recipe) -> None:
    """Freeze or unfreeze every parameter as the recipe's training stage says, whatever was set before.

    Raises:
        ValueError: The recipe names a stage or layers that the model does not have.
    """
    updates = TRAINING_STAGES[recipe.training_stage]
    tower_prefixes = tuple(
        VISION_TOWER_PREFIX + prefix for prefix in _tower_prefixes(model.model.vision_tower, recipe, updates)
    )
    language_prefixes = _language_prefixes(model, recipe, updates)
    for name, parameter in model.named_parameters():
        if name.startswith(VISION_TOWER_PREFIX):
            parameter.requires_grad_(name.startswith(tower_prefixes))
        elif name.startswith(PROJECTOR_PREFIX):
            parameter.requires_grad_(updates.projector)
        else:
            parameter.requires_grad_(name.startswith(language_prefixes))


def _language_prefixes(
    model: ConvLlavaForConditionalGeneration, recipe: Recipe, updates: StageUpdates
) -> tuple[str, ...]:
    """Return the name prefixes of the language model's trained parameters."""
    count, layers = recipe.train_language_layers, len(model.model.language_model.layers)
    if not updates.language_model or count == 0:
        return ()
    if count is None:
        return ("",)
    if count > layers:
        raise ValueError(f"train_language_layers is {count} but the language model has {layers} layers")
    last = [f"{LANGUAGE_MODEL_PREFIX}layers.{index}." for index in range(layers - count, layers)]
    return (*last, f"{LANGUAGE_MODEL_PREFIX}norm.")


def _tower_prefixes(tower: PreTrainedModel, recipe: Recipe, updates: StageUpdates) -> list[str]:
    """Return the name prefixes of the encoder's trained parameters."""
    if updates.encoder == "all":
        return [""]
    if updates.encoder == "none":
        return []
    if updates.encoder == "appended":
        return _appended(tower.config, recipe)
    if recipe.train_from_stage is not None:
        check_is_convnext(tower.config, "train_from_stage")
        return _from_stage(tower.config, recipe.train_from_stage)
    assert recipe.train_last_layers is not None, "the recipe has checked it"
    if isinstance(tower.config, CLIPVisionConfig):
        return _last_clip_layers(tower.config, recipe.train_last_layers)
    return _last_layers(tower.config, recipe.train_last_layers)


def check_is_convnext(config: PreTrainedConfig, key: str) -> None:
    """Check that the encoder has stages, which the recipe's ``key`` is about.

    Raises:
        ValueError: The encoder is not a ConvNeXt.
    """
    if config.model_type != "convllava_vision":
        raise ValueError(f"{key} needs a ConvNeXt encoder, which has stages; this one is {config.model_type}")


def _appended(config: PreTrainedConfig, recipe: Recipe) -> list[str]:
    if recipe.append_stages is None:
        return []
    check_is_convnext(config, "append_stages")
    return _from_stage(config, config.num_stages - len(recipe.append_stages.depths) + 1)


def _from_stage(config: PreTrainedConfig, first: int) -> list[str]:
    """Return the prefixes of stage ``first`` (counted from 1) and all later ones; the stem belongs to stage 1."""
    if first > config.num_stages + 1:
        raise ValueError(f"train_from_stage is {first} but the encoder has {config.num_stages} stages")
    stem = ["embeddings."] if first == 1 else []
    return stem + [f"encoder.stages.{index}." for index in range(first - 1, config.num_stages)]


def _last_layers(config: PreTrainedConfig, count: int) -> list[str]:
    """Return the prefixes of the last ``count`` layers, and of the downsampling of completely trained stages.

    The paper's "last 18 blocks" of ConvNeXt-L (3, 3, 27, 3) are the last 15 layers of stage 3 and all of stage 4.
    """
    if count > sum(config.depths):
        raise ValueError(f"train_last_layers is {count} but the encoder has {sum(config.depths)} layers")
    prefixes: list[str] = []
    for index in reversed(range(config.num_stages)):
        taken = min(count, config.depths[index])
        count -= taken
        if taken == config.depths[index]:
            prefixes.append(f"encoder.stages.{index}.")
        else:
            first = config.depths[index] - taken
            prefixes += [f"encoder.stages.{index}.layers.{layer}." for layer in range(first, config.depths[index])]
    return prefixes


def _last_clip_layers(config: CLIPVisionConfig, count: int) -> list[str]:
    """Return the prefixes of the last ``count`` layers of CLIP's ViT.

    The features are those before the last layer (``CLIP_FEATURE_LAYER``), which therefore stays frozen: it would get no
    gradient, and several processes would wait for one. The authors' code unfreezes it all the same.
    """
    layers = config.num_hidden_layers
    if count > layers:
        raise ValueError(f"train_last_layers is {count} but the encoder has {layers} layers")
    reached = layers + 1 + CLIP_FEATURE_LAYER
    return [f"encoder.layers.{layer}." for layer in range(layers - count, reached)]


def parameter_groups(
    model: nn.Module, learning_rate: float, learning_rates: dict[str, float], weight_decay: float
) -> list[dict[str, Any]]:
    """Group the trainable parameters for AdamW by learning rate and weight decay.

    Args:
        model: Module whose parameters that require a gradient are grouped.
        learning_rate: Peak rate of parameters that match no pattern.
        learning_rates: Peak rates by regular expression; the first that matches a parameter's name counts.
        weight_decay: Decay of parameters with two and more dimensions; norms, biases and scales have none.

    Raises:
        ValueError: A pattern matches no trainable parameter.
    """
    groups: dict[tuple[float, float], dict[str, Any]] = {}
    unused = set(learning_rates)
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        pattern = next((pattern for pattern in learning_rates if re.search(pattern, name)), None)
        unused.discard(pattern or "")
        rate = learning_rates[pattern] if pattern is not None else learning_rate
        decay = weight_decay if parameter.ndim > 1 else 0.0
        group = groups.setdefault((rate, decay), {"params": [], "lr": rate, "weight_decay": decay})
        group["params"].append(parameter)
    if unused:
        raise ValueError(f"learning_rates has patterns that match no trainable parameter: {', '.join(sorted(unused))}")
    return list(groups.values())


def check_protocol(recipe: Recipe, model: ConvLlavaForConditionalGeneration, batch: tuple[int, int, int]) -> list[str]:
    """Check which parameters are trained, at which rates and in which batches, and describe it.

    Args:
        recipe: The recipe.
        model: Model after :func:`set_trainable`; its weights may be on the meta device.
        batch: Number of devices, samples per micro-batch and micro-batches per step.

    Returns:
        One sentence for each check.

    Raises:
        ValueError: A pattern of ``learning_rates`` matches no trainable parameter.
    """
    checks = [_check_trained(recipe, model), _check_batch(recipe, batch), _schedule(recipe)]
    if recipe.trains_language_model:  # the encoder stage trains a head that is not part of the model
        checks.insert(1, _check_rates(recipe, model))
    return checks


def _check_trained(recipe: Recipe, model: ConvLlavaForConditionalGeneration) -> str:
    updates = TRAINING_STAGES[recipe.training_stage]
    trained: dict[str, list[bool]] = {"encoder": [], "projector": [], "language model": []}
    for name, parameter in model.named_parameters():
        part = (
            "encoder"
            if name.startswith(VISION_TOWER_PREFIX)
            else "projector"
            if name.startswith(PROJECTOR_PREFIX)
            else "language model"
        )
        trained[part].append(parameter.requires_grad)
    assert all(flag == updates.projector for flag in trained["projector"])
    whole = updates.language_model and recipe.train_language_layers is None
    assert any(trained["language model"]) <= updates.language_model and (not whole or all(trained["language model"]))
    assert updates.encoder != "all" or all(trained["encoder"])
    assert updates.encoder != "none" or not any(trained["encoder"])
    assert any(any(flags) for flags in trained.values()), "nothing is trained"
    words = [f"{part} {_how_much(flags)}" for part, flags in trained.items()]
    adapters = "; adapters in place of the parts' own weights" if recipe.lora is not None else ""
    return f"{recipe.training_stage}: " + ", ".join(words) + adapters


def _how_much(flags: Sequence[bool]) -> str:
    return "trained" if all(flags) else "in part" if any(flags) else "frozen"


def _check_rates(recipe: Recipe, model: ConvLlavaForConditionalGeneration) -> str:
    groups = parameter_groups(model, recipe.learning_rate, recipe.learning_rates, recipe.weight_decay)
    grouped = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(grouped) == sorted(id(weight) for weight in model.parameters() if weight.requires_grad)
    assert {group["lr"] for group in groups} <= {recipe.learning_rate, *recipe.learning_rates.values()}
    rates = " and ".join(f"{rate:g}" for rate in sorted({group["lr"] for group in groups}))
    return f"AdamW, every trained parameter once, learning rate {rates}, weight decay {recipe.weight_decay:g}"


def _check_batch(recipe: Recipe, batch: tuple[int, int, int]) -> str:
    devices, per_device, accumulation = batch
    assert devices * per_device * accumulation == recipe.global_batch_size
    return (
        f"global batch {recipe.global_batch_size} = {devices} devices x {per_device} samples x {accumulation} "
        "accumulation steps; loss over all its supervised tokens together"
    )


def _schedule(recipe: Recipe) -> str:
    length = f"epochs {recipe.epochs}" if recipe.epochs else f"steps {recipe.max_steps}"
    return f"{recipe.lr_scheduler}, warm-up {recipe.warmup_ratio:g}, {length}, {recipe.precision}"
