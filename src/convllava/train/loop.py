"""The training loop: the paper's protocol on one screen.

:func:`train` runs a recipe from the starting checkpoint to a trained model. :class:`TrainingLoop` takes the steps; read
:meth:`TrainingLoop.step` first.

The loss of a step is the sum over all supervised tokens of its global batch divided by their number, however the batch
is split over processes and micro-batches. A step without images leaves encoder and projector as they are. A step whose
loss or gradient is not finite is not taken. Checkpoints are complete or absent, and a resumed run repeats the
undisturbed one: weights, optimizer, learning rate, order of the data, random numbers and log lines.
"""

import math
from collections.abc import Collection, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import set_seed
from transformers.trainer_utils import align_special_tokens

from ..data.mixture import Mixture
from ..model import ConvLlavaForConditionalGeneration, ConvLlavaProcessor
from .callbacks import (
    LOG_FILE,
    SKIPPED_FILE,
    Callback,
    LogFile,
    OnLog,
    Progress,
    SkippedSamples,
    TimeBudget,
    Trackers,
    cut_torn_line,
    installed_trackers,
)
from .checkpoints import (
    PREFIX,
    SCHEDULER_FILE,
    STAGING,
    discard_unfinished,
    explained_damage,
    explained_failure,
    load_random_state,
    publish_checkpoint,
    save_random_state,
    step_of,
    undamaged,
)
from .data_loading import MicroBatch, TrainingData, process_rank
from .data_sources import HeldOutSource, open_data
from .engine import DeepSpeedEngine, Engine
from .feature_cache import use_feature_cache
from .model_setup import ResolvedModel, resolve_model, trainable_module
from .output_folder import RECIPE_FILE, OutputLock, clear_unused, lock_of, recipe_changes, starting_point
from .recipe import Recipe
from .recipe_files import write_recipe
from .report import write_report
from .sample_answers import AnswerSamples
from .saving import save_model
from .sharding import ShardedEngine
from .source_losses import SourceLosses
from .stages import parameter_groups, restore_schedule, schedule_of
from .throughput import ThroughputMeter
from .trained_sizes import TrainedSizes
from .validation import Validator

ENGINES: dict[str, type[Engine]] = {"ddp": Engine, "fsdp2": ShardedEngine, "deepspeed": DeepSpeedEngine}


class NonFiniteLossError(ValueError):
    """The loss or the norm of its gradient became NaN or infinite; the weights are those before the step."""


class TrainingLoop:
    """Optimizer steps over the data of a recipe, with a log, checkpoints and callbacks.

    Args:
        recipe: The recipe.
        model: The model in the state in which training starts.
        processor: Its processor, saved with each checkpoint.
        data: Samples of the run.
        engine: Distribution over processes.

    Attributes:
        callbacks: Callbacks in the order in which they are called; more may be added before :meth:`run`.
        module: What is trained: the model, or a wrapper of it with adapters or a head.
        prepared: The module as it is called: the engine may have wrapped it once more.
    """

    def __init__(
        self,
        recipe: Recipe,
        model: ConvLlavaForConditionalGeneration,
        processor: ConvLlavaProcessor,
        data: TrainingData,
        engine: Engine,
    ) -> None:
        self.recipe, self.model, self.processor, self.data, self.engine = recipe, model, processor, data, engine
        self.progress = Progress(step=0, max_steps=data.num_steps)
        self.callbacks: list[Callback] = []
        if recipe.stop_after_minutes is not None:
            self.callbacks.append(TimeBudget(recipe.stop_after_minutes, engine.device))
        self.skipped = SkippedSamples(recipe.output_dir / SKIPPED_FILE)
        self.sizes = TrainedSizes(model.config)
        self.meter = ThroughputMeter([entry.label for entry in recipe.data])
        self.source_losses = SourceLosses(self.meter.source_names, engine.device)
        if recipe.trains_language_model:
            align_special_tokens(model, processor)
        self.module = trainable_module(recipe, model, processor)
        set_seed(recipe.seed)  # the same from here on, whether or not a fresh head or adapters have drawn numbers
        engine.place(self.module)

    def run(self, checkpoint: Path | None = None) -> None:
        """Train from a checkpoint, or from the start, to the last step."""
        with undamaged(checkpoint if self.engine.is_main else None):
            self._prepare(checkpoint)
        progress = self.progress
        last_step = min(progress.max_steps, self.recipe.stop_after_steps or progress.max_steps)
        for callback in self.callbacks:
            callback.on_begin(progress)
        if progress.figures:
            self._send_to_log(progress.figures)
        for micro_batches in () if progress.should_stop else self.data.steps(progress.step, last_step):
            if checkpoint is not None:  # not earlier: the start of the data loader draws a random number
                with explained_damage(checkpoint):
                    load_random_state(checkpoint, self.engine.rank)
                checkpoint = None
            self.step(micro_batches)
            progress.step += 1
            self._log_and_save(is_last=progress.step == last_step)
            if progress.should_stop:
                break
        for callback in self.callbacks:
            callback.on_end(progress)
        self._check_learned_something()

    def _check_learned_something(self) -> None:
        """Reject a run whose steps had no token to learn from: its model would be the one that it started from.

        Raises:
            ValueError: Every sample was left out.
        """
        if self.steps_without_tokens and self.steps_without_tokens == self.progress.step - self.first_step:
            raise ValueError(
                f"nothing was trained: no sample of {self.steps_without_tokens} steps could be used. Their faults are "
                f"in {self.skipped.path}, and 'convllava data check' lists all of them; no model was saved"
            )

    def step(self, micro_batches: Sequence[MicroBatch]) -> None:
        """Take one optimizer step over this process's share of a global batch.

        Raises:
            NonFiniteLossError: The loss or its gradient is not finite; the step is not taken.
        """
        tokens, images = self._count(micro_batches)  # of the global batch
        divisor = torch.full((), max(tokens, 1), dtype=torch.float32, device=self.engine.device)
        losses: list[Tensor] = []
        self.module.train()
        for number, batch in enumerate(micro_batches, start=1):
            with self.engine.gradient_sync(self.prepared, is_last=number == len(micro_batches)):
                loss = self._loss(batch, divisor)
                if loss.requires_grad:  # without images nothing is learned where only encoder and projector are trained
                    self.engine.backward(loss)
            losses.append(loss.detach())
            self.loss_since_log += losses[-1]
        if images == 0:
            self._drop_encoder_gradients()
        norm = self.engine.clip_gradients(self.prepared, self.recipe.max_grad_norm)
        self._check_finite(losses, norm, micro_batches)
        self.optimizer.step()
        self.learning_rate = self.scheduler.get_last_lr()[0]
        self.scheduler.step()
        self.prepared.zero_grad()

    def _loss(self, batch: MicroBatch, divisor: Tensor) -> Tensor:
        """Return the loss () of a micro-batch: the sum over its tokens divided by the tokens () of the global batch."""
        inputs = self.engine.to_device(batch.inputs)
        with self.engine.autocast():
            outputs = self.prepared(**inputs, num_items_in_batch=divisor, use_cache=False)
        self.source_losses.add(batch, outputs.get("logits"))
        loss: Tensor = outputs["loss"]
        return loss * self.engine.num_processes  # the engine averages the gradients of the processes

    def _drop_encoder_gradients(self) -> None:
        """Leave encoder and projector out of a step without images, as a single process does.

        A process without images encodes a blank image times zero to take part in the communication. That gradient is
        zero, not absent, and Adam would still move the weights by their momentum.
        """
        encoder: list[nn.Module] = [self.model.model.vision_tower, self.model.model.multi_modal_projector]
        for part in encoder if self.recipe.trains_language_model else [self.module]:
            for parameter in part.parameters():
                parameter.grad = None

    def _check_finite(self, losses: list[Tensor], norm: Tensor | None, micro_batches: Sequence[MicroBatch]) -> None:
        """Check the losses () of the micro-batches and the gradient norm (), with one transfer from the device."""
        values = torch.stack(losses if norm is None else [*losses, norm]).tolist()
        self.grad_norm = None if norm is None else values.pop()
        for value, batch in zip(values, micro_batches, strict=True):
            if not math.isfinite(value):
                raise self._not_finite("loss", value, batch.sample_ids)
        if self.grad_norm is not None and not math.isfinite(self.grad_norm):
            samples = [sample_id for batch in micro_batches for sample_id in batch.sample_ids]
            raise self._not_finite("gradient norm", self.grad_norm, samples)

    def _not_finite(self, what: str, value: float, sample_ids: Sequence[str]) -> NonFiniteLossError:
        return NonFiniteLossError(
            f"{what} is {value} at step {self.progress.step + 1}, samples {', '.join(sample_ids)}; the weights "
            "were not updated. Look at these samples, or lower learning_rate"
        )

    def _count(self, micro_batches: Sequence[MicroBatch]) -> tuple[int, int]:
        """Return the supervised tokens and the images of the global batch, and note what was drawn for the log."""
        for batch in micro_batches:
            self.skipped.add(batch.faults, self.progress.step + 1)
            self.meter.count(batch.num_images, batch.drawn)
            self.sizes.add(batch.inputs.get("image_sizes"))
        is_late = self.engine.is_main and self.meter.seconds() >= self.recipe.log_seconds
        tokens, images, late = self.engine.total(
            [
                sum(batch.supervised_tokens for batch in micro_batches),
                sum(batch.num_images for batch in micro_batches),
                is_late,  # the clock of one process decides for all
            ]
        )
        self.log_is_late = late > 0
        self.meter.supervised_tokens += int(tokens)
        self.steps_without_tokens += tokens == 0
        return int(tokens), int(images)

    def _prepare(self, checkpoint: Path | None) -> None:
        """Make optimizer and schedule, and load all state of a checkpoint but the random numbers."""
        recipe, engine = self.recipe, self.engine
        if checkpoint is not None:
            self.progress.step = step_of(checkpoint)
            engine.check_optimizer(checkpoint)
            with explained_damage(checkpoint):
                engine.load_weights(self.module, checkpoint)
        groups = parameter_groups(self.module, recipe.learning_rate, recipe.learning_rates, recipe.weight_decay)
        peaks = [group["lr"] for group in groups]
        self.prepared, self.optimizer = engine.prepare(self.module, torch.optim.AdamW(groups, fused=True))
        self.scheduler = schedule_of(recipe, self.optimizer, self.progress.max_steps)
        if checkpoint is not None:
            with explained_damage(checkpoint):
                engine.load_optimizer(self.prepared, self.optimizer, checkpoint)
                restore_schedule(self.scheduler, torch.load(checkpoint / SCHEDULER_FILE, weights_only=True), peaks)
                self.sizes.load(checkpoint)
        self.loss_since_log = torch.tensor(0.0, device=engine.device)
        self.first_step = self.last_logged = self.progress.step
        self.steps_without_tokens = 0
        self.meter.reset()

    def _log_and_save(self, *, is_last: bool) -> None:
        """Log and save a checkpoint if it is time, or if a callback wants it."""
        progress = self.progress
        progress.should_save = progress.step % self.recipe.save_every == 0 or progress.step == progress.max_steps
        for callback in self.callbacks:
            callback.on_step_end(progress)
        # with every checkpoint a line, so that no line of a resumed run covers steps before the checkpoint
        is_due = progress.step == 1 or progress.step % self.recipe.log_every == 0 or self.log_is_late
        if is_due or progress.should_save or is_last or progress.figures:
            self._log()
        if progress.should_save:
            self._save_checkpoint()

    def _log(self) -> None:
        """Log the mean loss since the last line, learning rates and throughput; every process takes part."""
        loss = self.engine.mean(self.loss_since_log) / (self.progress.step - self.last_logged)
        entry: dict[str, Any] = {"loss": loss}
        if self.grad_norm is not None:
            entry["grad_norm"] = self.grad_norm
        sums = self.engine.total(self.meter.local_sums(self.data.take_seconds_waited()))
        entry |= self._learning_rates() | self.meter.read(sums, self.engine.num_processes)
        entry |= self.source_losses.read(self.engine.total(self.source_losses.local_sums()))
        if (epoch := self.data.epoch_at(self.progress.step)) is not None:
            entry["epoch"] = epoch
        if self.recipe.on_bad_sample == "skip":
            entry["skipped_samples"] = self.skipped.count()
        self.loss_since_log.zero_()
        self.last_logged = self.progress.step
        self._send_to_log(entry | self.progress.figures)

    def _send_to_log(self, entry: dict[str, Any]) -> None:
        self.progress.figures = {}
        for callback in self.callbacks:
            callback.on_log(self.progress, entry)

    def _learning_rates(self) -> dict[str, float]:
        """Return the recipe's learning rate and those of other peaks, scaled as the first group's is."""
        peaks = [group["initial_lr"] for group in self.optimizer.param_groups]
        others = {f"learning_rate/peak {peak:g}": peak for peak in peaks if peak != self.recipe.learning_rate}
        rates = {"learning_rate": self.recipe.learning_rate, **others}
        return {name: self.learning_rate / peaks[0] * peak for name, peak in rates.items()}

    def _save_checkpoint(self) -> None:
        """Save everything that resuming needs; the checkpoint gets its name when all of it is on the disk."""
        engine, output_dir = self.engine, self.recipe.output_dir
        name = f"{PREFIX}{self.progress.step}"
        staged = output_dir / STAGING / name
        with explained_failure(output_dir, name):
            staged.mkdir(parents=True, exist_ok=True)
            engine.save_weights(self.module, self.prepared, staged)
            engine.save_optimizer(self.prepared, self.optimizer, staged)
            save_random_state(staged, engine.rank)
            if engine.is_main:
                self.processor.save_pretrained(staged)
                torch.save(self.scheduler.state_dict(), staged / SCHEDULER_FILE)
            self.sizes.write(staged, engine, to_resume=True)
            for callback in self.callbacks:
                callback.on_checkpoint(self.progress, staged)
            engine.wait_for_all()
            if engine.is_main:
                publish_checkpoint(output_dir, name)
        for callback in self.callbacks:
            callback.on_save(self.progress, output_dir / name)


def train(
    recipe: Recipe,
    *,
    resume: bool = False,
    allow_change: Collection[str] = (),
    on_log: OnLog | None = None,
    callbacks: Sequence[Callback] = (),
) -> Path:
    """Run a recipe and check the model that it saves.

    Args:
        recipe: The recipe.
        resume: Whether to resume from the last checkpoint in ``output_dir``; without one, training starts.
        allow_change: Keys of the recipe that may differ from the one that the checkpoint was trained by.
        on_log: Called with every log line, in the main process.
        callbacks: Further callbacks, called in every process.

    Returns:
        The folder of the trained model.

    Raises:
        ValueError: The recipe, its data or its output folder cannot be used, the loss is not finite, a checkpoint
            cannot be saved or a data worker dies.
    """
    with lock_of(recipe.output_dir) if process_rank() == 0 else nullcontext() as lock:
        checkpoint = starting_point(recipe, resume=resume, allow_change=allow_change)
        changes = recipe_changes(recipe) if checkpoint is not None else {}
        trackers = installed_trackers(recipe.trackers)
        engine = ENGINES[recipe.engine](recipe)
        resolved = resolve_model(recipe)
        loop, mixture, held_out = _assemble(recipe, resolved, engine)
        if engine.is_main:
            _prepare_folder(recipe, loop, mixture, lock, is_new=checkpoint is None and not resume)
            loop.callbacks += [
                LogFile(recipe.output_dir / LOG_FILE, on_log, changes),
                Trackers(trackers, recipe.output_dir, recipe.model_dump(mode="json")),
                *AnswerSamples.of(recipe, mixture, loop.model, loop.processor),
            ]
        if recipe.validation is not None:
            loop.callbacks.append(Validator(recipe.validation, held_out, loop))
        loop.callbacks += callbacks
        with loop.data.explained_worker_deaths():
            loop.run(checkpoint)
        save_model(loop, resolved)
        if engine.is_main:
            write_report(recipe.output_dir)
    return recipe.output_dir


def _assemble(
    recipe: Recipe, resolved: ResolvedModel, engine: Engine
) -> tuple[TrainingLoop, Mixture, list[HeldOutSource]]:
    """Load the model, open the data and return the loop over them, and what is held out."""
    processor = resolved.processor
    if processor is None:
        raise ValueError(f"{recipe.init_from} has no processor on this machine: download the checkpoint")
    model = resolved.load_on_rank(engine.rank) if recipe.engine == "fsdp2" else resolved.load()
    mixture, held_out = open_data(recipe)
    if recipe.feature_cache is not None:
        use_feature_cache(model, processor, recipe, mixture)
    data = TrainingData(recipe, mixture, processor, engine.rank, engine.num_processes)
    return TrainingLoop(recipe, model, processor, data, engine), mixture, held_out


def _prepare_folder(
    recipe: Recipe, loop: TrainingLoop, mixture: Mixture, lock: OutputLock | None, *, is_new: bool
) -> None:
    """Make the output folder, remove what an interrupted run has left, and write the recipe."""
    output_dir = recipe.output_dir
    output_dir.mkdir(parents=True, exist_ok=True)
    if lock is not None:
        lock.take()
    if is_new:
        clear_unused(output_dir)
    discard_unfinished(output_dir)
    cut_torn_line(loop.skipped.path)
    write_recipe(recipe, output_dir / RECIPE_FILE)
    loop.skipped.add(mixture.faults, step=0)
