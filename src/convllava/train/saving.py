"""The result of a run: the trained model, saved, read back and compared."""

import shutil
from typing import TYPE_CHECKING

from ..model import ConvLlavaForConditionalGeneration
from .checkpoints import STAGING, check_same_logits, explained_failure, logits_of, publish_model
from .lora import save_adapters
from .model_setup import ResolvedModel

if TYPE_CHECKING:
    from .loop import TrainingLoop


def save_model(loop: "TrainingLoop", resolved: ResolvedModel) -> None:
    """Save the trained model and its processor, read them back and compare the logits.

    Adapters are merged, and a head that only this training needed is left out.

    Raises:
        SavingError: The model could not be written.
        RuntimeError: The model read back computes other logits.
    """
    recipe, engine, output_dir = loop.recipe, loop.engine, loop.recipe.output_dir
    staged = output_dir / STAGING / "model"
    saved: ConvLlavaForConditionalGeneration | None = loop.model
    with explained_failure(output_dir, "the trained model"):
        if recipe.lora is None:
            if recipe.trains_language_model:
                engine.save_weights(loop.model, loop.prepared, staged)
            elif engine.is_main:
                loop.model.save_pretrained(staged)
            if engine.is_main:
                loop.processor.save_pretrained(staged)
        elif engine.is_main:
            saved = save_adapters(loop.module, recipe, loop.processor, staged, lambda: resolved.load(quantized=False))
        loop.sizes.write(staged, engine)
        engine.wait_for_all()
        if engine.is_main:
            publish_model(output_dir, staged.name)
            shutil.rmtree(output_dir / STAGING, ignore_errors=True)
    if saved is None or not engine.can_read_back:
        return
    batch = loop.data.first_samples(2)
    logits = logits_of(saved, batch)  # on every process: each may hold only a share of the model
    if engine.is_main:
        check_same_logits(logits, batch, output_dir, saved.dtype)
