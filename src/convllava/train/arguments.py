"""A recipe in the words of transformers' Trainer."""

import os

import torch
from transformers import TrainingArguments

from .recipe import Recipe
from .trackers import hosted


def training_arguments(recipe: Recipe) -> TrainingArguments:
    """Return Trainer's arguments; where several processes were started, this also lets them find each other.

    Raises:
        ValueError: As :func:`split_batch`.
    """
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    per_device, accumulation = split_batch(recipe, processes)
    return TrainingArguments(
        output_dir=str(recipe.output_dir),
        per_device_train_batch_size=per_device,
        gradient_accumulation_steps=accumulation,
        max_steps=recipe.max_steps or -1,
        num_train_epochs=1,  # the mixture itself holds the epochs
        learning_rate=recipe.learning_rate,
        lr_scheduler_type=recipe.lr_scheduler,
        warmup_steps=recipe.warmup_ratio,
        weight_decay=recipe.weight_decay,
        max_grad_norm=recipe.max_grad_norm,
        bf16=recipe.precision == "bfloat16",
        activation_checkpointing=recipe.activation_checkpointing,
        logging_steps=recipe.log_every,
        save_steps=recipe.save_every,
        save_only_model=recipe.engine == "fsdp2",  # the rest is saved by us
        deepspeed=str(recipe.deepspeed_config) if recipe.deepspeed_config else None,
        seed=recipe.seed,
        remove_unused_columns=False,
        # several processes encode a blank cell where they have no image; one alone leaves the encoder out
        ddp_find_unused_parameters=processes == 1,
        report_to=hosted(recipe.trackers) or "none",
        run_name=recipe.output_dir.name,
        project="convllava",
        disable_tqdm=True,
        use_cpu=not torch.cuda.is_available(),
        dataloader_pin_memory=torch.cuda.is_available(),
    )


def split_batch(recipe: Recipe, processes: int) -> tuple[int, int]:
    """Return the batch of one device and the accumulation steps that give the global batch size.

    Raises:
        ValueError: When the global batch cannot be divided so.
    """
    per_device = recipe.per_device_batch_size or recipe.global_batch_size // processes
    at_once = per_device * processes
    if at_once == 0 or recipe.global_batch_size % at_once:
        raise ValueError(
            f"global_batch_size {recipe.global_batch_size} is not a multiple of per_device_batch_size {per_device} x "
            f"{processes} processes; change one of them"
        )
    return per_device, recipe.global_batch_size // at_once
