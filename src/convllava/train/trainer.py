"""transformers' Trainer with our batches, parameter groups, log and safeguards."""

import math
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from accelerate.optimizer import AcceleratedOptimizer
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import Trainer

from ..data.batching import Collator, EncodedDataset, ShapeGroupedBatches
from ..data.mixture import Mixture
from ..data.packing import PackingCollator
from ..model import ConvLlavaForConditionalGeneration, ConvLlavaProcessor
from . import sharding
from .arguments import training_arguments
from .checkpoints import STAGING, explained_failure, publish_checkpoint, publish_model
from .learner import learner_of
from .lora import save_adapted
from .meter import Meter
from .parameter_groups import parameter_groups
from .read_back import check_same_logits, logits_of
from .recipe import Recipe
from .skipped import SKIPPED_FILE, SkippedSamples
from .watched_data import Batch, Waiting, WatchedCollator, WatchedDataset

SCHEDULER_FILE = "scheduler.pt"


class NonFiniteLossError(ValueError):
    """The loss or its gradient became NaN or infinite; the weights are those before the update."""


class WorkerDiedError(ValueError):
    """A data worker was killed; the message names the sample it was making."""


class ConvLlavaTrainer(Trainer):
    """Trainer with batches of like shapes, a rate for each parameter group and a stop at a non-finite loss.

    The loss is the sum over all supervised tokens of the global batch divided by their number, whatever the number
    of devices and accumulation steps.
    """

    optimizer: torch.optim.Optimizer | None

    def __init__(
        self,
        recipe: Recipe,
        model: ConvLlavaForConditionalGeneration,
        processor: ConvLlavaProcessor,
        mixture: Mixture,
    ) -> None:
        self.recipe = recipe
        self.mixture = mixture
        self.whole = model
        self.saved: ConvLlavaForConditionalGeneration | None = model
        self.meter = Meter(len(mixture.sources))
        self.waiting = Waiting()
        self.update_samples: list[str] = []
        self.update_has_images = True
        self.skipped = SkippedSamples(recipe.output_dir / SKIPPED_FILE)
        self.rows = EncodedDataset(mixture, processor, recipe.max_length, on_bad_sample=recipe.on_bad_sample)
        collator = Collator(processor.tokenizer.pad_token_id)
        arguments = training_arguments(recipe)  # also lets the processes find each other
        super().__init__(
            model=learner_of(recipe, model, processor),
            args=arguments,
            train_dataset=WatchedDataset(self.rows, recipe.num_workers),
            data_collator=WatchedCollator(PackingCollator(collator) if recipe.packing else collator),
            processing_class=processor,
        )

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Return batches grouped by shape, split among the processes."""
        batches = ShapeGroupedBatches(
            self.mixture,
            self.args.per_device_train_batch_size,
            global_batch_size=self.recipe.global_batch_size,
            groups=self.recipe.groups_per_update,
            seed=self.recipe.seed,
        )
        loader: DataLoader[Any] = DataLoader(
            self.train_dataset,
            batch_sampler=batches,
            collate_fn=self.data_collator,
            num_workers=self.recipe.num_workers,
            persistent_workers=self.recipe.num_workers > 0,
        )
        return self.accelerator.prepare(loader)

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """Build AdamW over the recipe's parameter groups."""
        if self.optimizer is None:
            recipe = self.recipe
            groups = parameter_groups(self.model, recipe.learning_rate, recipe.learning_rates, recipe.weight_decay)
            self.optimizer = torch.optim.AdamW(groups, fused=True)
        return self.optimizer

    def get_batch_samples(self, epoch_iterator: Iterator[Batch], num_batches: int, device: torch.device) -> Any:
        """Return the batches of an update and its supervised tokens, and count both."""
        before = self.waiting.seconds
        batches, tokens = super().get_batch_samples(self.waiting.timed(epoch_iterator), num_batches, device)
        self.meter.waited += self.waiting.seconds - before
        self.meter.supervised_tokens += int(tokens) if tokens is not None else 0
        for batch in batches:
            self.skipped.add(batch.pop("faults", []), self.state.global_step + 1)
            self.meter.count(batch, [self.mixture.source_of(index) for index in batch["indices"]])
        self._note_images(batches)
        self.update_samples = [sample_id for batch in batches for sample_id in batch["sample_ids"]]
        return batches, tokens if tokens is None else tokens.clamp(min=1)  # none where all samples were left out

    def _note_images(self, batches: list[Batch]) -> None:
        """Note whether any process has an image in this update."""
        seen = torch.tensor(sum(len(batch.get("image_sizes", ())) for batch in batches), device=self.args.device)
        self.update_has_images = bool(self.accelerator.reduce(seen, reduction="sum"))

    def _forget_unused_encoder(self) -> None:
        """Leave encoder and projector out of an update without images, as a process alone would.

        Among several processes those without images encode a blank cell times zero. Its gradient is 0, not absent,
        and Adam would still move the weights by their momentum.
        """
        if self.update_has_images:
            return
        for name, parameter in self.model.named_parameters():
            if "vision_tower." in name or "multi_modal_projector." in name:
                parameter.grad = None

    def log(self, logs: dict[str, Any], start_time: float | None = None) -> None:
        """Add throughput, memory and what was drawn to a line about the loss; every process takes part."""
        if "loss" in logs:
            sums = self.accelerator.reduce(self.meter.local_sums().to(self.args.device), reduction="sum")
            names = [entry.name or str(entry.path) for entry in self.recipe.data]
            logs |= self.meter.read(sums, self.accelerator.num_processes, names) | self._rates(logs["learning_rate"])
            if self.recipe.on_bad_sample == "skip":
                logs["skipped_samples"] = self.skipped.count()
        super().log(logs, start_time)

    def _rates(self, first: float) -> dict[str, float]:
        """Return the recipe's own learning rate and those of other peaks; ``first`` is that of the first group."""
        assert self.optimizer is not None
        peaks = [group["initial_lr"] for group in self.optimizer.param_groups]
        others = {f"learning_rate/peak {peak:g}": peak for peak in peaks if peak != self.recipe.learning_rate}
        return {
            name: first / peaks[0] * peak
            for name, peak in {"learning_rate": self.recipe.learning_rate, **others}.items()
        }

    def compute_loss(self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, **kwargs: Any) -> Any:
        """Return the loss; stop before the update when it is not finite."""
        sample_ids = inputs["sample_ids"]
        tensors = {key: value for key, value in inputs.items() if isinstance(value, Tensor)}
        loss, outputs = super().compute_loss(model, {**tensors, "use_cache": False}, return_outputs=True, **kwargs)
        if not bool(torch.isfinite(loss.detach())):
            raise self._not_finite("loss", loss.item(), sample_ids)
        return (loss, outputs) if return_outputs else loss

    def _clip_grad_norm(self, model: Any) -> Any:
        """Clip the gradients; stop before the update when they are not finite."""
        self._forget_unused_encoder()
        norm = super()._clip_grad_norm(model)
        if self.is_sharded:
            norm = sharding.whole(norm)
        if norm is not None and not math.isfinite(norm):  # DeepSpeed may keep it to itself
            raise self._not_finite("gradient norm", float(norm), self.update_samples)
        return norm

    def _not_finite(self, what: str, value: float, sample_ids: list[str]) -> NonFiniteLossError:
        return NonFiniteLossError(
            f"{what} is {value} at step {self.state.global_step + 1}, samples {', '.join(sample_ids)}; the weights "
            "were not updated. Look at these samples, or lower learning_rate"
        )

    @contextmanager
    def explained_worker_deaths(self) -> Iterator[None]:
        """Turn the errors that follow a lost data worker into one that names the sample it was making.

        Torch may notice it, or the pipe through which the batch before that sample came may break.
        """
        try:
            yield
        except (RuntimeError, OSError, EOFError) as error:
            with suppress(RuntimeError):  # torch's, which may come now
                time.sleep(0.5)  # a broken pipe is seen before the end of the process behind it
            held = [self.mixture[index].sample_id for index in self.train_dataset.held_by_dead_workers()]
            if not held:
                raise
            raise WorkerDiedError(
                f"a data worker died while it made sample {', '.join(held)}: out of memory, or the image crashes its "
                "decoder. Look at the sample, or lower num_workers"
            ) from error

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Save a checkpoint beside the others; it gets its name when all of it is on the disk."""
        output_dir, name = self.recipe.output_dir, f"checkpoint-{self.state.global_step}"
        with explained_failure(output_dir, name):
            self.args.output_dir = str(output_dir / STAGING)  # where Trainer writes
            try:
                super()._save_checkpoint(model, trial)
            finally:
                self.args.output_dir = str(output_dir)
            if self.is_sharded:
                self._save_sharded_state(output_dir / STAGING / name)
            self.accelerator.wait_for_everyone()
            if self.is_world_process_zero():
                publish_checkpoint(output_dir, name)

    @property
    def is_sharded(self) -> bool:
        """Whether each process holds a share of the model."""
        return self.recipe.engine == "fsdp2"

    def _wrapped_optimizer(self) -> torch.optim.Optimizer:
        """Return torch's optimizer inside accelerate's."""
        assert isinstance(self.optimizer, AcceleratedOptimizer)
        return self.optimizer.optimizer

    def _save_sharded_state(self, checkpoint: Path) -> None:
        """Save what Trainer does not save of a sharded model: optimizer, schedule, random numbers."""
        sharding.save_optimizer(self.model, self._wrapped_optimizer(), checkpoint)
        self._save_rng_state(str(checkpoint))
        if self.is_world_process_zero():
            torch.save(self.lr_scheduler.state_dict(), checkpoint / SCHEDULER_FILE)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        if self.is_sharded:
            sharding.load_weights(self.model, Path(resume_from_checkpoint))
        else:
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            _check_has_optimizer(Path(checkpoint), self.recipe.engine)
        if checkpoint is None or not self.is_sharded:
            super()._load_optimizer_and_scheduler(checkpoint)
            return
        sharding.load_optimizer(self.model, self._wrapped_optimizer(), Path(checkpoint))
        self.lr_scheduler.load_state_dict(torch.load(Path(checkpoint) / SCHEDULER_FILE, weights_only=True))

    def take_weights(self, checkpoint: Path) -> None:
        """Load a checkpoint's weights without going on to train."""
        self._load_from_checkpoint(str(checkpoint))

    def save_whole(self) -> None:
        """Save model and processor, without a head that only this training needed, adapters merged."""
        output_dir = self.recipe.output_dir
        staged = output_dir / STAGING / "model"
        with explained_failure(output_dir, "the trained model"):
            self._save_model_in(staged)
            self.accelerator.wait_for_everyone()
            if self.is_world_process_zero():
                publish_model(output_dir, staged.name)
                shutil.rmtree(output_dir / STAGING, ignore_errors=True)

    def _save_model_in(self, folder: Path) -> None:
        if self.recipe.training_stage != "encoder" and self.recipe.lora is None:
            self.save_model(str(folder))
        elif self.is_world_process_zero():
            if self.recipe.lora is not None:
                self.saved = save_adapted(self.model, self.recipe, self.processing_class, folder)
            else:
                self.whole.save_pretrained(folder)
                self.processing_class.save_pretrained(folder)

    def check_saved(self) -> None:
        """Read the saved model back and compare its logits with those of the model in memory.

        Every process computes the latter, since each may hold only a share.
        """
        if self.saved is None or self.recipe.engine == "deepspeed":  # unmerged adapters; weights that DeepSpeed owns
            return
        if self.is_sharded and self.recipe.precision == "bfloat16":  # computes in bfloat16 what is saved in float32
            return
        batch = self.probe_batch()
        # without autocast, which the model read back does not have either
        logits = logits_of(self.accelerator.unwrap_model(self.saved, keep_fp32_wrapper=False), batch)
        if self.is_world_process_zero():
            check_same_logits(logits, batch, self.recipe.output_dir, self.saved.dtype)

    def probe_batch(self) -> dict[str, Any]:
        """Return the first two samples as a batch."""
        batch = self.data_collator.collate([self.rows[index] for index in range(min(2, len(self.mixture)))])
        return {key: value for key, value in batch.items() if isinstance(value, Tensor)}


def _check_has_optimizer(checkpoint: Path, engine: str) -> None:
    """Refuse a checkpoint of another engine, whose optimizer would be started afresh without a word."""
    name = {"ddp": "optimizer.pt", "fsdp2": sharding.OPTIMIZER_FOLDER}.get(engine)
    if name is not None and not (checkpoint / name).exists():
        raise ValueError(
            f"{checkpoint} has no {name}: it was saved by another engine than {engine}; resume it with that one"
        )
