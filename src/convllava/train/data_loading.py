"""Samples on their way into the training loop: order, micro-batches, and what happens when a worker fails."""

import logging
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, get_worker_info

from ..constants import IGNORE_INDEX
from ..data.batching import Collator, EncodedDataset, ShapeGroupedBatches
from ..data.faults import Fault
from ..data.mixture import Mixture
from ..data.packing import PackingCollator
from ..data.samples import SampleSource
from ..model import ConvLlavaProcessor
from .recipe import Recipe

logger = logging.getLogger(__name__)

Encoded = dict[str, Any]
"""One encoded sample, see ``EncodedDataset``."""


class WorkerDiedError(ValueError):
    """A data worker was killed; the message names the sample that it was loading."""


def encoded_dataset(recipe: Recipe, source: SampleSource, processor: ConvLlavaProcessor) -> EncodedDataset:
    """Return the encoded samples of a source as a recipe's run reads them."""
    return EncodedDataset(
        source,
        processor,
        recipe.max_length,
        on_bad_sample=recipe.on_bad_sample,
        one_image=not recipe.trains_language_model,
    )


def split_batch(recipe: Recipe, processes: int) -> tuple[int, int]:
    """Return the samples of a micro-batch and the micro-batches per step that make up the global batch.

    Raises:
        ValueError: The global batch size is not a multiple of micro-batch size times processes.
    """
    per_device = recipe.per_device_batch_size or recipe.global_batch_size // processes
    at_once = per_device * processes
    if per_device == 0:
        raise ValueError(
            f"global_batch_size {recipe.global_batch_size} is less than one sample for each of {processes} processes; "
            "raise it, or use fewer devices"
        )
    if recipe.global_batch_size % at_once:
        raise ValueError(
            f"global_batch_size {recipe.global_batch_size} is not a multiple of per_device_batch_size {per_device} x "
            f"{processes} processes; change one of them"
        )
    return per_device, recipe.global_batch_size // at_once


def divmod_steps(recipe: Recipe, samples: int) -> tuple[int, int]:
    """Return the optimizer steps that samples are enough for, and the number of samples that are left out.

    Raises:
        ValueError: There is not one step.
    """
    steps, left_out = divmod(samples, recipe.global_batch_size)
    if steps == 0:
        raise ValueError(
            f"the data has {samples} samples, fewer than global_batch_size {recipe.global_batch_size}; lower "
            "global_batch_size or add data"
        )
    return steps, left_out


def process_count() -> int:
    """Return the number of processes that torchrun has started, 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def process_rank() -> int:
    """Return the number of this process among those that torchrun has started, 0 without it."""
    return int(os.environ.get("RANK", "0"))


@dataclass(frozen=True)
class MicroBatch:
    """One micro-batch of one process.

    Attributes:
        inputs: Tensors of the model's forward pass, see ``Collator`` and ``PackingCollator``.
        sample_ids: Ids of its samples.
        sources: Number of the mixture's source of each of its samples, in the same order.
        drawn: Numbers of the sources of all samples that were drawn, those that were left out included.
        faults: Samples that were left out (``on_bad_sample: skip``).
    """

    inputs: dict[str, Tensor]
    sample_ids: list[str]
    sources: list[int]
    drawn: list[int]
    faults: list[Fault] = field(default_factory=list)

    @property
    def num_images(self) -> int:
        """Number of images."""
        return len(self.inputs.get("image_sizes", ()))

    @property
    def supervised_tokens(self) -> int:
        """Number of tokens that the loss is summed over; the first of a sequence is not predicted."""
        return int((self.inputs["labels"][:, 1:] != IGNORE_INDEX).sum())


class TrainingData:
    """The samples of a run, step by step, as one process receives them.

    Attributes:
        num_steps: Optimizer steps that the data is for.
    """

    def __init__(
        self, recipe: Recipe, mixture: Mixture, processor: ConvLlavaProcessor, rank: int, processes: int
    ) -> None:
        self.recipe = recipe
        self.mixture = mixture
        self.rank, self.processes = rank, processes
        self.per_device, self.accumulation = split_batch(recipe, processes)
        self.num_steps, left_out = divmod_steps(recipe, len(mixture))
        if left_out and rank == 0:
            logger.warning("the last %d samples fill no global batch and are left out", left_out)
        encoded = encoded_dataset(recipe, mixture, processor)
        collator = Collator(processor.tokenizer.pad_token_id)
        self.samples = WorkerMonitor(encoded, recipe.num_workers)
        self.collate = PackingCollator(collator) if recipe.packing else collator
        self._seconds_waited = 0.0
        self._epochs = _passes(recipe, mixture)

    def steps(self, start: int, stop: int) -> Iterator[list[MicroBatch]]:
        """Yield the micro-batches of each step from ``start`` on, up to ``stop``.

        Raises:
            ValueError: A sample cannot be used (``on_bad_sample: stop``).
        """
        batches = iter(self._loader(start))
        for _ in range(start, stop):
            began = time.perf_counter()
            micro_batches = list(islice(batches, self.accumulation))
            self._seconds_waited += time.perf_counter() - began
            yield [self._micro_batch(batch) for batch in micro_batches]

    def epoch_at(self, step: int) -> float | None:
        """Return the passes over the sources of known length after a step; None if there is no such source."""
        return None if self._epochs is None else self._epochs * step / self.num_steps

    def take_seconds_waited(self) -> float:
        """Return the time that the loop has waited for data since the last call."""
        seconds, self._seconds_waited = self._seconds_waited, 0.0
        return seconds

    def first_samples(self, count: int) -> dict[str, Tensor]:
        """Return the tensors of the first samples as one batch."""
        batch = self.collate([self.samples.encoded[index] for index in range(min(count, len(self.mixture)))])
        return {name: value for name, value in batch.items() if isinstance(value, Tensor)}

    def _loader(self, start: int) -> DataLoader[Encoded]:
        batches = ShapeGroupedBatches(
            self.mixture,
            self.per_device,
            global_batch_size=self.recipe.global_batch_size,
            groups=self.recipe.groups_per_step,
            seed=self.recipe.seed,
        )
        workers = self.recipe.num_workers
        return DataLoader(
            self.samples,
            batch_sampler=_EveryNth(batches, start * self.accumulation * self.processes + self.rank, self.processes),
            collate_fn=CheckedCollator(self.collate),
            num_workers=workers,
            persistent_workers=workers > 0,
        )

    def _micro_batch(self, batch: "Encoded | Failed") -> MicroBatch:
        return micro_batch(batch, self.mixture.source_of)

    @contextmanager
    def explained_worker_deaths(self) -> Iterator[None]:
        """Replace the errors that follow the death of a data worker by one that names the sample it was loading.

        Torch notices the death by a signal, at any moment of the training, or the pipe may break through which the
        worker sent the batch before.

        Raises:
            WorkerDiedError: A data worker was killed.
        """
        try:
            yield
        except (RuntimeError, OSError, EOFError) as error:
            with suppress(RuntimeError):  # torch's, which may come now
                time.sleep(0.5)  # a broken pipe is seen before the end of the process behind it
            held = [self.mixture[index].sample_id for index in self.samples.held_by_dead_workers()]
            if not held:
                raise
            raise WorkerDiedError(
                f"a data worker died while it loaded sample {', '.join(held)}: out of memory, or the image crashes its "
                "decoder. Look at the sample, or lower num_workers"
            ) from error


def _passes(recipe: Recipe, mixture: Mixture) -> float | None:
    """Return the passes of a run over all of its sources whose length is known, taken together."""
    drawn, lengths = 0, 0
    for number, entry in enumerate(recipe.data):
        if entry.count is None and (entry.is_generated or entry.streaming):
            continue
        drawn += mixture.drawn_from(number)
        lengths += mixture.length_of(number)
    return drawn / lengths if lengths else None


class _EveryNth(Sampler[list[int]]):
    """Every ``step``-th batch from ``start`` on: the share of one process."""

    def __init__(self, batches: ShapeGroupedBatches, start: int, step: int) -> None:
        self.batches, self.start, self.step = batches, start, step

    def __iter__(self) -> Iterator[list[int]]:
        return islice(iter(self.batches), self.start, None, self.step)

    def __len__(self) -> int:
        return len(range(self.start, len(self.batches), self.step))


def micro_batch(batch: "Encoded | Failed", source_of: Callable[[int], int]) -> MicroBatch:
    """Return a micro-batch from what the loader yields.

    Args:
        batch: Result of a ``CheckedCollator``.
        source_of: Function from the index of a sample to the number of its source.

    Raises:
        ValueError: A sample could not be loaded.
    """
    if isinstance(batch, Failed):
        raise ValueError(batch.message)
    return MicroBatch(
        inputs={name: value for name, value in batch.items() if isinstance(value, Tensor)},
        sample_ids=batch["sample_ids"],
        sources=[source_of(index) for index in batch["indices"]],
        drawn=[source_of(index) for index in batch["drawn"]],
        faults=batch.get("faults", []),
    )


@dataclass(frozen=True)
class Failed:
    """The message of a sample that could not be loaded, in place of the sample or its batch."""

    message: str


class WorkerMonitor(Dataset[Any]):
    """A data set that records, for each worker process, the sample that it is loading.

    The record is in shared memory, so it outlives a worker. A ``ValueError`` in a worker travels to the main process
    as a message, since torch would wrap it in the worker's traceback.

    Args:
        encoded: The data set.
        num_workers: Number of worker processes; 0 loads in the main process.
    """

    def __init__(self, encoded: EncodedDataset, num_workers: int) -> None:
        self.encoded = encoded
        self._held = multiprocessing.RawArray("q", 2 * num_workers)  # (process id, sample) of each worker

    def __len__(self) -> int:
        return len(self.encoded)

    def __getitem__(self, index: int) -> "Encoded | Failed":
        worker = get_worker_info()
        if worker is None:
            return {**self.encoded[index], "index": index}
        self._held[2 * worker.id : 2 * worker.id + 2] = [os.getpid(), index]
        try:
            return {**self.encoded[index], "index": index}
        except ValueError as error:
            return Failed(str(error))

    def held_by_dead_workers(self) -> list[int]:
        """Return the samples that ended workers were loading."""
        pairs = zip(self._held[::2], self._held[1::2], strict=True)
        return [index for process_id, index in pairs if process_id and _has_ended(process_id)]


class CheckedCollator:
    """Collates samples and adds the indices of all that were ``drawn``; the first failure replaces the batch."""

    def __init__(self, collate: Callable[[list[Encoded]], Encoded]) -> None:
        self.collate = collate

    def __call__(self, samples: "list[Encoded | Failed]") -> "Encoded | Failed":
        encoded: list[Encoded] = []
        for sample in samples:
            if isinstance(sample, Failed):
                return sample
            encoded.append(sample)
        return {**self.collate(encoded), "drawn": [sample["index"] for sample in encoded]}


def _has_ended(process_id: int) -> bool:
    if not hasattr(os, "waitid"):  # Windows
        return False
    try:
        return os.waitid(os.P_PID, process_id, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:  # it has ended and was waited for
        return True
