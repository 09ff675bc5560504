"""The paper's training protocol as a table: the parameters that each training stage updates, and at which rate.

Section 3.3 of the paper: first the projector and the new fifth stage of the encoder (``projector_init``); then the
encoder from a given stage on, the projector and the language model (``pretrain``); then the projector and the language
model (``instruct``). ``encoder`` and ``foundation`` are ours: they train the encoder alone (``ctc_head``), then all
parts from scratch, in place of the pretrained CLIP-ConvNeXt and Vicuna.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR
from transformers import CLIPVisionConfig, PreTrainedConfig, PreTrainedModel, get_scheduler

from ..model import ConvLlavaForConditionalGeneration
from ..model.modeling_convllava import (
    CLIP_FEATURE_LAYER,
    LANGUAGE_MODEL_PREFIX,
    PROJECTOR_PREFIX,
    VISION_TOWER_PREFIX,
)
from ..support import first_line
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
        is_clip = isinstance(tower.config, CLIPVisionConfig)
        return _reached_clip_parts(tower.config) if is_clip else [""]
    if updates.encoder == "none":
        return []
    if updates.encoder == "appended":
        return _appended(tower.config, recipe)
    if recipe.train_from_stage is not None:
        check_is_convnext(tower.config, "train_from_stage")
        return _from_stage(tower.config, recipe.train_from_stage)
    count = recipe.train_last_layers or 0
    if isinstance(tower.config, CLIPVisionConfig):
        return _last_clip_layers(tower.config, count)
    return _last_layers(tower.config, count)


def check_is_convnext(config: PreTrainedConfig, key: str) -> None:
    """Check that the encoder has stages, which the recipe's ``key`` is about.

    Raises:
        ValueError: The encoder is not a ConvNeXt.
    """
    if config.model_type != "convllava_vision":
        hint = "; give train_last_layers" if key == "train_from_stage" else ""
        raise ValueError(f"{key} needs a ConvNeXt encoder, which has stages; this one is {config.model_type}{hint}")


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


def _reached_clip_parts(config: CLIPVisionConfig) -> list[str]:
    """Return the prefixes of all parts of CLIP's ViT that the features depend on; see `_last_clip_layers`."""
    return ["embeddings.", "pre_layrnorm.", *_last_clip_layers(config, config.num_hidden_layers)]


def parameter_groups(
    model: nn.Module, learning_rate: float, learning_rates: dict[str, float], weight_decay: float
) -> list[dict[str, Any]]:
    """Group the trainable parameters for AdamW by pattern of ``learning_rates`` and by weight decay.

    The groups do not depend on the rates, which may therefore change when a run is resumed.

    Args:
        model: Module whose parameters that require a gradient are grouped.
        learning_rate: Peak rate of parameters that match no pattern.
        learning_rates: Peak rates by regular expression; the first that matches a parameter's name counts.
        weight_decay: Decay of parameters with two and more dimensions; norms, biases and scales have none.

    Raises:
        ValueError: A pattern matches no trainable parameter, or none that an earlier pattern leaves.
    """
    groups: dict[tuple[str | None, float], dict[str, Any]] = {}
    _check_patterns([name for name, one in model.named_parameters() if one.requires_grad], learning_rates)
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        pattern = _pattern_of(name, learning_rates)
        rate = learning_rates[pattern] if pattern is not None else learning_rate
        decay = weight_decay if parameter.ndim > 1 else 0.0
        group = groups.setdefault((pattern, decay), {"params": [], "lr": rate, "weight_decay": decay})
        group["params"].append(parameter)
    return list(groups.values())


def _pattern_of(name: str, learning_rates: Iterable[str]) -> str | None:
    """Return the first pattern that matches a parameter's name."""
    return next((pattern for pattern in learning_rates if re.search(pattern, name)), None)


def _check_patterns(names: Sequence[str], learning_rates: Iterable[str]) -> None:
    patterns = list(learning_rates)
    unused = set(patterns) - {_pattern_of(name, patterns) for name in names}
    for number, pattern in enumerate(patterns):
        if pattern not in unused:
            continue
        matched = [name for name in names if re.search(pattern, name)]
        if not matched:
            raise ValueError(f"learning_rates has a pattern that matches no trainable parameter: {pattern}")
        earlier = _pattern_of(matched[0], patterns[:number])
        raise ValueError(
            f"learning_rates: an earlier pattern, {earlier}, matches the {len(matched)} trainable parameters of "
            f"{pattern} too, and the first match counts: give the narrower pattern first"
        )


def describe_trained(recipe: Recipe, model: ConvLlavaForConditionalGeneration) -> str:
    """Check that the parameters that the training stage names are trained, and no others, and say which.

    Args:
        recipe: The recipe.
        model: Model after :func:`set_trainable`, without adapters; its weights may be on the meta device.

    Raises:
        ValueError: Other parameters are trained, or none.
    """
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
    is_clip = isinstance(model.config.vision_config, CLIPVisionConfig)  # its last layer has no effect
    whole = updates.language_model and recipe.train_language_layers is None
    words = f"{recipe.training_stage}: " + ", ".join(f"{part} {_how_much(flags)}" for part, flags in trained.items())
    is_right = (
        all(flag == updates.projector for flag in trained["projector"])
        and any(trained["language model"]) <= updates.language_model
        and (not whole or all(trained["language model"]))
        and (updates.encoder != "all" or all(trained["encoder"]) or (is_clip and any(trained["encoder"])))
        and (updates.encoder != "none" or not any(trained["encoder"]))
        and any(any(flags) for flags in trained.values())
    )
    if not is_right:
        raise ValueError(f"{words}: the training stage says otherwise")
    return words + ("; adapters in place of the parts' own weights" if recipe.lora is not None else "")


def describe_optimization(
    recipe: Recipe, module: nn.Module, batch: tuple[int, int, int], num_steps: int | None = None
) -> list[str]:
    """Check the rates of the trained parameters, the batches and the schedule as training does, and describe them.

    Args:
        recipe: The recipe.
        module: The module that is trained, with its adapters or head; its weights may be on the meta device.
        batch: Number of devices, samples per micro-batch and micro-batches per step.
        num_steps: Number of optimizer steps.

    Returns:
        One sentence for each check.

    Raises:
        ValueError: A pattern of ``learning_rates`` matches nothing, or there is no such schedule.
    """
    schedule_of(recipe, torch.optim.SGD([torch.zeros(1)], lr=recipe.learning_rate), num_steps or 1)
    return [_rates(recipe, module), _batches(recipe, batch), _schedule(recipe)]


def schedule_of(recipe: Recipe, optimizer: torch.optim.Optimizer, num_steps: int) -> LambdaLR:
    """Return the learning-rate schedule of a recipe.

    Raises:
        ValueError: The name is unknown, or the schedule needs more than a number of steps.
    """
    warmup = math.ceil(num_steps * recipe.warmup_ratio)
    try:
        schedule = get_scheduler(recipe.lr_scheduler, optimizer, warmup, num_steps)
    except (ValueError, TypeError) as error:
        raise ValueError(f"lr_scheduler {recipe.lr_scheduler} cannot be used here: {first_line(error)}") from error
    if not isinstance(schedule, LambdaLR):
        raise ValueError(f"lr_scheduler {recipe.lr_scheduler} cannot be used here: it needs a loss to follow")
    return schedule


def restore_schedule(schedule: LambdaLR, saved: dict[str, Any], peaks: Sequence[float]) -> None:
    """Continue a schedule where a checkpoint left it, with peaks and length of the recipe, which may have changed.

    Args:
        schedule: The schedule of the recipe, over an optimizer whose state was restored.
        saved: State of the schedule in the checkpoint.
        peaks: Peak rate of each parameter group.
    """
    rates = [peak * factor(saved["last_epoch"]) for peak, factor in zip(peaks, schedule.lr_lambdas, strict=True)]
    schedule.load_state_dict({**saved, "base_lrs": list(peaks), "_last_lr": rates})
    if rates != list(saved["_last_lr"]):
        for group, peak, rate in zip(schedule.optimizer.param_groups, peaks, rates, strict=True):
            group["initial_lr"], group["lr"] = peak, rate


def _how_much(flags: Sequence[bool]) -> str:
    return "trained" if all(flags) else "in part" if any(flags) else "frozen"


def _rates(recipe: Recipe, module: nn.Module) -> str:
    groups = parameter_groups(module, recipe.learning_rate, recipe.learning_rates, recipe.weight_decay)
    grouped = [id(parameter) for group in groups for parameter in group["params"]]
    if sorted(grouped) != sorted(id(weight) for weight in module.parameters() if weight.requires_grad):
        raise ValueError("the parameter groups do not hold every trained parameter once")
    rates = " and ".join(f"{rate:g}" for rate in sorted({group["lr"] for group in groups}))
    by_pattern = Counter(
        _pattern_of(name, recipe.learning_rates) for name, one in module.named_parameters() if one.requires_grad
    )
    shares = [f"{rate:g} for {by_pattern[pattern]} of {pattern!r}" for pattern, rate in recipe.learning_rates.items()]
    listed = f" ({', '.join([*shares, f'{recipe.learning_rate:g} for {by_pattern[None]} others'])})" if shares else ""
    return f"AdamW, every trained parameter once, learning rate {rates}{listed}, weight decay {recipe.weight_decay:g}"


def _batches(recipe: Recipe, batch: tuple[int, int, int]) -> str:
    devices, per_device, accumulation = batch
    if devices * per_device * accumulation != recipe.global_batch_size:
        raise ValueError(f"{devices} x {per_device} x {accumulation} samples are not {recipe.global_batch_size}")
    return (
        f"global batch {recipe.global_batch_size} = {devices} devices x {per_device} samples x {accumulation} "
        "accumulation steps; loss over all its supervised tokens together"
    )


def _schedule(recipe: Recipe) -> str:
    length = f"epochs {recipe.epochs}" if recipe.epochs else f"steps {recipe.max_steps}"
    return f"{recipe.lr_scheduler}, warm-up {recipe.warmup_ratio:g}, {length}, {recipe.precision}"
