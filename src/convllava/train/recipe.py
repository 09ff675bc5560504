"""The recipe: a training run as typed values, checked before anything starts.

``recipe_files`` reads it from YAML. Paths to files and folders are relative to the folder where the command runs.
"""

import re
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, NonNegativeFloat, field_validator, model_validator

from ..constants import PromptFormat
from .architecture import AppendStages, Architecture, ConvNextOptions, Strict
from .recipe_options import (
    MAX_COUNT,
    DataEntry,
    FeatureCache,
    ImageSettings,
    LoraOptions,
    Parts,
    ReportedCost,
    SampleAnswers,
    TrainingStage,
    Validation,
)


class Recipe(Strict):
    """Everything that determines a training run.

    Attributes:
        training_stage: Name of a row of ``stages.TRAINING_STAGES``.
        data: Sources of the mixture.
        learning_rate: Peak rate of every parameter that ``learning_rates`` does not match.
        output_dir: Folder of the trained model, its checkpoints and its log.
        model: Architecture before ``append_stages``. Without a checkpoint, a preset to train from scratch.
        init_from: Checkpoint to start from; its architecture must be ``model``, if that is set.
        init_from_parts: Separate vision encoder and language model to start from instead; needs ``model``.
        data_root: Folder of the data sets known by name; the environment variable CONVLLAVA_DATA by default.
        append_stages: Fresh encoder stages appended to those of the checkpoint.
        enlarge_kernels: Side to which the checkpoint's depthwise kernels grow, with zeros around them: one for all
            stages, or one for each (paper section 4.4).
        train_from_stage: First encoder stage that ``pretrain`` updates, counted from 1, its downsampling included.
        train_last_layers: Number of encoder layers from the end that ``pretrain`` updates instead; 0 freezes all.
        learning_rates: Peak rates by regular expression over parameter names; the first match counts.
        global_batch_size: Samples per optimizer step, over all devices.
        per_device_batch_size: Samples per micro-batch; gradients accumulate up to the global batch size.
        groups_per_step: Groups of samples of similar shape that make up a global batch. 1 pads least; more mix
            different samples in each step, and a micro-batch should not exceed one group.
        epochs: Passes over the data; exactly one of ``epochs`` and ``max_steps`` is set.
        max_steps: Optimizer steps; the sources then share the samples by weight.
        stop_after_steps: Step to stop after; the learning-rate schedule still spans the whole run.
        stop_after_minutes: Minutes to stop after, with a checkpoint to resume from.
        warmup_ratio: Share of the steps in which the learning rate rises linearly to its peak.
        lr_scheduler: Schedule, by its name in ``transformers.get_scheduler``; those that need only warm-up and length.
        weight_decay: Decay of parameters with two and more dimensions.
        max_grad_norm: Norm to which gradients are clipped.
        precision: Precision of computation; bfloat16 keeps float32 master weights.
        activation_checkpointing: Whether to recompute activations in the backward pass instead of storing them.
        prompt_format: Prompt format; the checkpoint's by default.
        image: Preprocessing of images.
        max_length: Maximum length of a sample in tokens, visual tokens included.
        on_bad_sample: "stop" ends the run at a sample that cannot be used, "skip" leaves it out and lists it.
        num_workers: Processes that load data; 0 loads in the training process.
        save_every: Steps between checkpoints; the last two are kept.
        log_every: Steps between log lines; the first and the last step have one too.
        log_seconds: Seconds after which a step has a log line in any case.
        seed: Seed of fresh weights, data order and dropout.
        train_language_layers: Number of last layers of the language model that are updated, with its final norm.
        lora: Low-rank adapters, for ``instruct``.
        engine: Distribution over several processes: replicated (``ddp``), sharded (``fsdp2``), or as
            ``deepspeed_config`` says.
        deepspeed_config: DeepSpeed's JSON file.
        packing: Whether to pack short samples into sequences as long as the longest: same loss, less padding.
        torch_compile: Whether to compile the layers: same result within rounding, slower to start.
        sample_answers: Questions to answer during training.
        validation: Held-out data, how often the loss on them is measured, and what follows from it.
        trackers: Destinations of log lines in addition to ``log.jsonl``; TensorBoard by default, if installed.
        feature_cache: Cache of a frozen encoder's features.
        reported_costs: Published costs of the protocol, which the dry run compares with its estimate.
    """

    training_stage: TrainingStage
    data: list[DataEntry] = Field(min_length=1)
    learning_rate: float = Field(gt=0)
    output_dir: Path
    model: Architecture | None = None
    init_from: str | None = None
    init_from_parts: Parts | None = None
    data_root: Path | None = None
    append_stages: AppendStages | None = None
    enlarge_kernels: int | list[int] | None = None
    train_from_stage: int | None = Field(default=None, ge=1)
    train_last_layers: int | None = Field(default=None, ge=0)
    learning_rates: dict[str, NonNegativeFloat] = {}
    global_batch_size: int = Field(default=64, gt=0, le=MAX_COUNT)
    per_device_batch_size: int | None = Field(default=None, gt=0)
    groups_per_step: int = Field(default=1, gt=0)
    epochs: int | None = Field(default=None, gt=0)
    max_steps: int | None = Field(default=None, gt=0, le=MAX_COUNT)
    stop_after_steps: int | None = Field(default=None, gt=0)
    stop_after_minutes: float | None = Field(default=None, gt=0)
    warmup_ratio: float = Field(default=0.03, ge=0, lt=1)
    lr_scheduler: str = "cosine"
    weight_decay: float = Field(default=0.0, ge=0)
    max_grad_norm: float = Field(default=1.0, gt=0)
    precision: Literal["float32", "bfloat16"] = "float32"
    activation_checkpointing: bool = False
    prompt_format: PromptFormat | None = None
    image: ImageSettings = ImageSettings()
    max_length: int = Field(default=2048, gt=0)
    on_bad_sample: Literal["stop", "skip"] = "stop"
    num_workers: int = Field(default=0, ge=0, le=1024)
    save_every: int = Field(default=500, gt=0)
    log_every: int = Field(default=10, gt=0)
    log_seconds: float = Field(default=30.0, gt=0)
    seed: int = Field(default=0, ge=0, lt=1 << 32)
    train_language_layers: int | None = Field(default=None, ge=0)
    lora: LoraOptions | None = None
    engine: Literal["ddp", "fsdp2", "deepspeed"] = "ddp"
    deepspeed_config: Path | None = None
    packing: bool = False
    torch_compile: bool = False
    sample_answers: SampleAnswers | None = None
    validation: Validation | None = None
    trackers: list[Literal["tensorboard", "wandb", "trackio"]] | None = None
    feature_cache: FeatureCache | None = None
    reported_costs: list[ReportedCost] = []

    @model_validator(mode="before")
    @classmethod
    def _share_data_root(cls, values: Any) -> Any:
        """Give the recipe's ``data_root`` to every named source that has none."""
        root, entries = values.get("data_root"), values.get("data")
        if root is None or not isinstance(entries, list):
            return values
        shared = [
            {"data_root": root} | entry if isinstance(entry, dict) and "name" in entry else entry for entry in entries
        ]
        return values | {"data": shared}

    @field_validator("learning_rates")
    @classmethod
    def _are_patterns(cls, rates: dict[str, float]) -> dict[str, float]:
        for pattern in rates:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"{pattern!r} is not a regular expression ({error})") from error
        return rates

    @model_validator(mode="after")
    def _is_consistent(self) -> "Recipe":
        _check_start(self)
        _check_exactly_one(self, "epochs", "max_steps")
        if self.global_batch_size % self.groups_per_step:
            raise ValueError(
                f"global_batch_size {self.global_batch_size} is not a multiple of groups_per_step "
                f"{self.groups_per_step}; change one of them"
            )
        if self.training_stage == "pretrain":
            _check_exactly_one(self, "train_from_stage", "train_last_layers")
        elif self.train_from_stage is not None or self.train_last_layers is not None:
            raise ValueError(
                "train_from_stage and train_last_layers belong to training_stage pretrain, "
                f"not to {self.training_stage}"
            )
        _check_options(self)
        return self

    @property
    def architecture(self) -> Architecture | None:
        """Architecture of the trained model, appended stages included; None if only the checkpoint states it."""
        if self.model is None or (self.append_stages is None and self.enlarge_kernels is None):
            return self.model
        changes: dict[str, Any] = {}
        if self.append_stages is not None:
            before = self.model.append_stages or AppendStages(depths=[], hidden_sizes=[])
            changes["append_stages"] = AppendStages(
                depths=before.depths + self.append_stages.depths,
                hidden_sizes=before.hidden_sizes + self.append_stages.hidden_sizes,
            )
        if self.enlarge_kernels is not None:
            options = self.model.encoder or ConvNextOptions()
            changes["encoder"] = options.model_copy(update={"kernel_size": self.enlarge_kernels})
        return self.model.model_copy(update=changes)

    @property
    def trains_language_model(self) -> bool:
        """Whether text is predicted; the stage ``encoder`` trains the encoder under a head of its own."""
        return self.training_stage != "encoder"


def _check_start(recipe: Recipe) -> None:
    if recipe.init_from is not None and recipe.init_from_parts is not None:
        raise ValueError("give one of init_from and init_from_parts, not both")
    if recipe.model is None and recipe.init_from is None:
        raise ValueError("give model (a preset, to train from scratch; or what init_from_parts make) or init_from")
    if recipe.enlarge_kernels is not None and recipe.init_from is None and recipe.init_from_parts is None:
        raise ValueError(
            "enlarge_kernels needs a trained encoder (init_from): from scratch, give model.encoder.kernel_size"
        )


def _check_exactly_one(recipe: Recipe, *names: str) -> None:
    given = [name for name in names if getattr(recipe, name) is not None]
    if len(given) != 1:
        raise ValueError(f"give exactly one of {' and '.join(names)}, got {', '.join(given) or 'none'}")


def _check_options(recipe: Recipe) -> None:
    """Reject options that contradict each other or the training stage."""
    if recipe.lora is not None:
        _check_lora(recipe)
    if (recipe.engine == "deepspeed") != (recipe.deepspeed_config is not None):
        raise ValueError("engine deepspeed and deepspeed_config belong together: give both or neither")
    if recipe.sample_answers is not None and recipe.engine != "ddp":
        raise ValueError(f"sample_answers needs the whole model in each process, and engine {recipe.engine} divides it")
    if recipe.feature_cache is not None and (recipe.engine != "ddp" or not _encoder_is_frozen(recipe)):
        raise ValueError("feature_cache needs a frozen encoder (instruct, or train_last_layers: 0) and engine ddp")
    if recipe.validation is not None:
        _check_validation(recipe, recipe.validation)
    if recipe.training_stage == "encoder":
        _check_encoder_stage(recipe)


def _check_validation(recipe: Recipe, validation: Validation) -> None:
    if recipe.engine == "deepspeed":
        raise ValueError("validation needs engine ddp or fsdp2: it has not been tried with deepspeed")
    if validation.answers is not None and recipe.engine != "ddp":
        raise ValueError(
            f"validation.answers needs the whole model in each process, and engine {recipe.engine} divides it: leave "
            "the answers out, or use engine ddp"
        )


def _check_lora(recipe: Recipe) -> None:
    if recipe.training_stage != "instruct" or recipe.init_from is None or recipe.append_stages is not None:
        raise ValueError("lora belongs to training_stage instruct, with init_from and without append_stages")
    if recipe.train_language_layers is not None:
        raise ValueError("give one of lora and train_language_layers: a part has adapters or is trained itself")
    if recipe.engine != "ddp":
        raise ValueError(f"lora needs engine ddp: every process holds the frozen weights, got {recipe.engine}")


def _encoder_is_frozen(recipe: Recipe) -> bool:
    has_adapters = recipe.lora is not None and recipe.lora.vision_tower is not None
    trains_no_layer = recipe.training_stage == "pretrain" and recipe.train_last_layers == 0
    return (recipe.training_stage == "instruct" or trains_no_layer) and not has_adapters


def _check_encoder_stage(recipe: Recipe) -> None:
    unfit = {
        "engine": recipe.engine != "ddp",
        "packing": recipe.packing,
        "sample_answers": recipe.sample_answers is not None,
        "validation.answers": recipe.validation is not None and recipe.validation.answers is not None,
        "train_language_layers": recipe.train_language_layers is not None,
    }
    given = [name for name, is_given in unfit.items() if is_given]
    if given:
        raise ValueError(f"training_stage encoder does without a language model, and so without {', '.join(given)}")
