"""A recipe run from its start, or from a checkpoint, to a trained model that was read back."""

import os
from pathlib import Path

from transformers import PrinterCallback

from .answers import ANSWERS_FILE, AnswersWhileLearning, questions_of
from .checkpoints import discard_unfinished, last_checkpoint, step_of
from .feature_cache import use_feature_cache
from .log_file import LOG_FILE, LogFile, LogWithCheckpoint, OnLog
from .recipe import Recipe, write_recipe
from .recipe_data import open_mixture
from .report import write_report
from .setup import build, build_share
from .stages import set_trainable
from .stopping import early_ends, is_at_early_end
from .trackers import TensorBoardLog, check_trackers, uses_tensorboard
from .trainer import ConvLlavaTrainer

RECIPE_FILE = "recipe.yaml"


def train(recipe: Recipe, *, resume: bool = False, on_log: OnLog | None = None) -> Path:
    """Run a recipe to its end and check what was saved.

    Args:
        recipe: What to do.
        resume: Go on from the last complete checkpoint in ``output_dir``; without one, start.
        on_log: Called with every log line, on the main process.

    Returns:
        The directory of the trained model.

    Raises:
        ValueError: When the recipe, its data or its output directory cannot be used, the loss is not finite, a
            checkpoint cannot be saved or a data worker dies.
    """
    checkpoint = last_checkpoint(recipe.output_dir) if resume else None
    if not resume:
        _check_fresh(recipe.output_dir)
    check_trackers(recipe.trackers)
    rank = int(os.environ.get("RANK", "0"))
    model, processor = build_share(recipe, rank) if recipe.engine == "fsdp2" else build(recipe)
    if recipe.lora is None:  # adapters see to it themselves, and quantized weights cannot be asked
        set_trainable(model, recipe)
    mixture = open_mixture(recipe)
    if recipe.feature_cache is not None:
        use_feature_cache(model, processor, recipe, mixture)
    trainer = ConvLlavaTrainer(recipe, model, processor, mixture)
    trainer.remove_callback(PrinterCallback)
    for callback in (*early_ends(recipe), LogWithCheckpoint()):
        trainer.add_callback(callback)
    if trainer.is_world_process_zero():
        recipe.output_dir.mkdir(parents=True, exist_ok=True)
        discard_unfinished(recipe.output_dir)
        write_recipe(recipe, recipe.output_dir / RECIPE_FILE)
        trainer.skipped.add(mixture.faults, step=0)
        _watch(trainer, on_log)
    if checkpoint is not None and is_at_early_end(recipe, step_of(checkpoint)):
        trainer.take_weights(checkpoint)
    else:
        with trainer.explained_worker_deaths():
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    trainer.save_whole()
    trainer.check_saved()
    if trainer.is_world_process_zero():
        write_report(recipe.output_dir)
    return recipe.output_dir


def _watch(trainer: ConvLlavaTrainer, on_log: OnLog | None) -> None:
    """Add what the main process does to show how the run goes."""
    recipe, output_dir = trainer.recipe, trainer.recipe.output_dir
    trainer.add_callback(LogFile(output_dir / LOG_FILE, on_log))
    if uses_tensorboard(recipe.trackers):
        trainer.add_callback(TensorBoardLog(output_dir))
    if recipe.sample_answers is not None:
        questions = questions_of(recipe.sample_answers, trainer.mixture)
        path = output_dir / ANSWERS_FILE
        trainer.add_callback(AnswersWhileLearning(recipe, questions, trainer.whole, trainer.processing_class, path))


def _check_fresh(output_dir: Path) -> None:
    if output_dir.exists() and (not output_dir.is_dir() or any(output_dir.iterdir())):
        raise ValueError(f"output_dir {output_dir} is not empty; resume it with --resume or choose another")
