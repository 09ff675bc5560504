"""Validation: the loss on held-out samples during training, the best model, and the end of a run that overfits.

The loss of a source is the sum over its supervised tokens divided by their number, whatever the batch size and the
number of processes. A validation changes nothing of the training: it draws no random number, and the model returns to
training mode. Its state is part of every checkpoint, so that a resumed run repeats it exactly.
"""

import json
import logging
import math
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from ..data.batching import Collator
from ..support import write_text
from .callbacks import Callback, Progress
from .checkpoints import STAGING, best_folders, checkpoints_of, explained_failure, publish_best, step_of
from .data_loading import CheckedCollator, MicroBatch, WorkerMonitor, encoded_dataset, micro_batch
from .data_sources import HeldOutSource
from .held_out_answers import HeldOutAnswers
from .recipe import Recipe
from .recipe_options import Validation

if TYPE_CHECKING:
    from .loop import TrainingLoop

logger = logging.getLogger(__name__)

STATE_FILE = "validation.json"
"""File of a checkpoint with the state of the validation."""

KEPT_BYTES = 1 << 30
"""Memory of one process for prepared held-out samples; those beyond it are prepared again in every validation."""


class HeldOutLossError(ValueError):
    """The loss on held-out samples is NaN or infinite."""


@dataclass
class ValidationState:
    """Position of a run relative to its best validation.

    Attributes:
        best: Best figure so far; None before the first validation.
        best_step: Step of the best figure.
        without_improvement: Number of validations since then.
    """

    best: float | None = None
    best_step: int | None = None
    without_improvement: int = 0

    def note(self, value: float, step: int, *, higher_is_better: bool) -> bool:
        """Note a figure and return whether it is the best so far."""
        is_best = self.best is None or (value > self.best if higher_is_better else value < self.best)
        if is_best:
            self.best, self.best_step, self.without_improvement = value, step, 0
        else:
            self.without_improvement += 1
        return is_best


@dataclass(frozen=True)
class HeldOutBatch:
    """Samples of one source that are computed together.

    Attributes:
        source: Number of the source.
        indices: Numbers of the samples in it.
        counts: Whether the loss counts; a process without a batch of its own repeats one, so that all take part in
            the communication of a sharded model.
    """

    source: int
    indices: tuple[int, ...]
    counts: bool = True


def share_of_batches(
    sources: Sequence[HeldOutSource], batch_size: int, rank: int, processes: int
) -> list[HeldOutBatch]:
    """Return the batches of one process: samples of one source and of like shape, as many for every process.

    Batches with images and without are kept apart, so that in each round all processes encode images, or none.
    """
    with_images: list[HeldOutBatch] = []
    without: list[HeldOutBatch] = []
    for number, held_out in enumerate(sources):
        source = held_out.source
        keys = [(sorted(source.image_sizes(index)), source.text_length(index)) for index in range(len(source))]
        for has_images, batches in ((True, with_images), (False, without)):
            chosen = sorted(
                (index for index in range(len(source)) if bool(keys[index][0]) == has_images), key=keys.__getitem__
            )
            for first in range(0, len(chosen), batch_size):
                batches.append(HeldOutBatch(number, tuple(chosen[first : first + batch_size])))
    return [*_share(with_images, rank, processes), *_share(without, rank, processes)]


def _share(batches: Sequence[HeldOutBatch], rank: int, processes: int) -> Iterator[HeldOutBatch]:
    for first in range(0, len(batches), processes):
        is_there = first + rank < len(batches)
        batch = batches[first + rank] if is_there else batches[-1]
        yield batch if is_there else HeldOutBatch(batch.source, batch.indices, counts=False)


class HeldOutLoss:
    """The loss on held-out samples; samples are prepared once, as far as memory allows.

    Args:
        recipe: The recipe.
        sources: The held-out samples.
        loop: The training loop, whose module, engine and micro-batch size are used.
    """

    def __init__(self, recipe: Recipe, sources: Sequence[HeldOutSource], loop: "TrainingLoop") -> None:
        self.recipe, self.sources, self.loop = recipe, sources, loop
        engine = loop.engine
        self.batches = share_of_batches(sources, loop.data.per_device, engine.rank, engine.num_processes)
        self.collate = CheckedCollator(Collator(loop.processor.tokenizer.pad_token_id))
        self._kept: dict[int, MicroBatch] = {}
        self._kept_bytes = 0

    def measure(self) -> dict[str, float]:
        """Return the figures of a log line: the loss over all held-out tokens and, of several sources, of each.

        Raises:
            HeldOutLossError: A loss is not finite.
            ValueError: A sample cannot be used.
        """
        loop, count = self.loop, len(self.sources)
        losses, tokens = [0.0] * count, [0.0] * count
        one = torch.ones((), device=loop.engine.device)  # the sum over the tokens, not their mean
        for batch, prepared in self._prepared():
            inputs = loop.engine.to_device(prepared.inputs)
            with torch.no_grad(), loop.engine.autocast():
                loss: Tensor = loop.module(**inputs, num_items_in_batch=one, use_cache=False)["loss"]
            if not batch.counts:
                continue
            if not math.isfinite(value := loss.item()):
                names = ", ".join(prepared.sample_ids)
                raise HeldOutLossError(f"the loss on held-out samples {names} is {value}: look at these samples")
            losses[batch.source] += value
            tokens[batch.source] += prepared.supervised_tokens
        sums = loop.engine.total([*losses, *tokens])
        losses, tokens = sums[:count], sums[count:]
        if not sum(tokens):
            raise ValueError("no held-out sample can be used: 'convllava data check' lists their faults")
        figures = {"validation/loss": sum(losses) / sum(tokens)}
        if count > 1:
            triples = zip(self.sources, losses, tokens, strict=True)
            figures |= {f"validation/loss/{one.name}": loss / number for one, loss, number in triples if number}
        return figures

    def _prepared(self) -> Iterator[tuple[HeldOutBatch, MicroBatch]]:
        """Yield each batch with its tensors, from memory or prepared by the data workers."""
        absent = [number for number in range(len(self.batches)) if number not in self._kept]
        loaded = self._load(absent)
        for number, batch in enumerate(self.batches):
            prepared = self._kept.get(number) or next(loaded)
            size = sum(tensor.nbytes for tensor in prepared.inputs.values())
            if number not in self._kept and self._kept_bytes + size <= KEPT_BYTES:
                self._kept[number] = prepared
                self._kept_bytes += size
            yield batch, prepared

    def _load(self, numbers: Sequence[int]) -> Iterator[MicroBatch]:
        """Prepare batches; a generator of its own keeps the workers' seed out of the training's random numbers."""
        if not numbers:
            return
        recipe, workers = self.recipe, min(self.recipe.num_workers, len(numbers))
        places = [(batch.source, index) for batch in self.batches for index in batch.indices]
        firsts = [0]
        for batch in self.batches:
            firsts.append(firsts[-1] + len(batch.indices))
        joined: Any = _Joined([one.source for one in self.sources], places)
        encoded = encoded_dataset(recipe, joined, self.loop.processor)
        loader = DataLoader(
            WorkerMonitor(encoded, workers),
            batch_sampler=[list(range(firsts[number], firsts[number + 1])) for number in numbers],
            collate_fn=self.collate,
            num_workers=workers,
            generator=torch.Generator(),
        )
        for batch in loader:
            yield micro_batch(batch, lambda index: places[index][0])


class _Joined:
    """Chosen samples of several sources as one."""

    def __init__(self, sources: Sequence[Any], places: Sequence[tuple[int, int]]) -> None:
        self.sources, self.places = sources, places

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> Any:
        source, inner = self.places[index]
        return self.sources[source][inner]


class Validator(Callback):
    """Validates every few steps, keeps the best model and ends a run that no longer improves.

    Args:
        options: The recipe's validation.
        sources: The held-out samples.
        loop: The training loop.
    """

    def __init__(self, options: Validation, sources: Sequence[HeldOutSource], loop: "TrainingLoop") -> None:
        self.options, self.loop = options, loop
        self.output_dir = loop.recipe.output_dir
        self.state = ValidationState()
        self.loss = HeldOutLoss(loop.recipe, sources, loop)
        self.answers = (
            None if options.answers is None else HeldOutAnswers(options.answers, sources, self.output_dir, loop.engine)
        )

    def on_begin(self, progress: Progress) -> None:
        """Read the state of a resumed run; validate before the first step of a new one."""
        if self.answers is not None:
            self.answers.begin(progress.step)
        if progress.step == 0:
            progress.figures |= self._validate(progress.step)
            return
        stored = self.output_dir / f"checkpoint-{progress.step}" / STATE_FILE
        if stored.is_file():
            self.state = ValidationState(**json.loads(stored.read_text(encoding="utf-8")))
        self._stop_if_exhausted(progress)

    def on_step_end(self, progress: Progress) -> None:
        """Validate if it is time, and after the last step."""
        if progress.step % self.options.eval_every and not progress.is_last:
            return
        figures = self._validate(progress.step)
        metric = self.answers.metric if self.answers is not None and self.options.keep_best == "metric" else None
        value = figures["validation/loss" if metric is None else f"validation/{metric.name}"]
        if self.state.note(value, progress.step, higher_is_better=metric is not None and metric.higher_is_better):
            self._keep(progress.step)
        progress.figures |= figures | {
            "validation/best_step": self.state.best_step,
            "validation/without_improvement": self.state.without_improvement,
        }
        self._stop_if_exhausted(progress)

    def on_checkpoint(self, progress: Progress, staged: Path) -> None:
        """Add the state to a checkpoint."""
        if self.loop.engine.is_main:
            write_text(staged / STATE_FILE, json.dumps(asdict(self.state)))

    def on_save(self, progress: Progress, checkpoint: Path) -> None:
        """Remove best models that neither this run nor one that resumes from a checkpoint needs."""
        if not self.loop.engine.is_main:
            return
        needed = {self.state.best_step}
        for stored in (path / STATE_FILE for path in checkpoints_of(self.output_dir)):
            if stored.is_file():
                needed.add(json.loads(stored.read_text(encoding="utf-8"))["best_step"])
        for folder in best_folders(self.output_dir):
            if step_of(folder) not in needed:
                shutil.rmtree(folder)

    def on_end(self, progress: Progress) -> None:
        """Return to the weights of the best validation, if they are kept."""
        best = self.state.best_step
        if self.options.keep_best is None or best is None or best == progress.step:
            return
        self.loop.engine.load_weights(self.loop.module, self.output_dir / f"best-{best}")
        logger.info("the result is the model of step %d, the best of the validations", best)

    def _validate(self, step: int) -> dict[str, float]:
        began = time.perf_counter()
        loop = self.loop
        loop.module.eval()
        figures = self.loss.measure()
        if self.answers is not None:
            bfloat16 = loop.recipe.precision == "bfloat16"
            value = self.answers.ask(loop.model, loop.processor, step, bfloat16=bfloat16)
            figures[f"validation/{self.answers.metric.name}"] = value
        loop.module.train()
        seconds = time.perf_counter() - began
        loop.meter.leave_out(seconds)
        return figures | {"validation/seconds": seconds}

    def _keep(self, step: int) -> None:
        if self.options.keep_best is None:
            return
        engine, name = self.loop.engine, f"best-{step}"
        staged = self.output_dir / STAGING / name
        with explained_failure(self.output_dir, name):
            staged.mkdir(parents=True, exist_ok=True)
            engine.save_weights(self.loop.module, self.loop.prepared, staged)
            if engine.is_main:
                self.loop.processor.save_pretrained(staged)
            engine.wait_for_all()
            if engine.is_main:
                publish_best(self.output_dir, name)
            engine.wait_for_all()

    def _stop_if_exhausted(self, progress: Progress) -> None:
        patience = self.options.patience
        if patience is not None and self.state.without_improvement >= patience and not progress.is_last:
            progress.should_save = progress.should_stop = True
