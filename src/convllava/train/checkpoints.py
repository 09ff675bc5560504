"""Checkpoints that are complete or absent, whatever ends the process that writes them.

A checkpoint is written into a staging folder, synced to the disk and only then renamed. What a kill or a full disk
leaves behind is removed by the next start. A trained model is read back after it was saved.
"""

import logging
import os
import random
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor

from ..inference import load_pretrained
from ..model import ConvLlavaForConditionalGeneration
from ..support import first_line
from .checksums import ContentCheck, write_checksums

logger = logging.getLogger(__name__)

STAGING = ".saving"
"""Folder inside ``output_dir`` for files that are not complete yet, or no longer wanted."""

KEPT = 2
"""Number of checkpoints kept: the newest and the one before it."""

WEIGHTS_LAST = (".safetensors", ".index.json")
"""Files that are put in place last: a folder without its weights is recognizably no model."""

PREFIX = "checkpoint-"
BEST_PREFIX = "best-"
SCHEDULER_FILE = "scheduler.pt"

MAX_DIFFERENCE = 1e-5
"""Allowed difference of logits on one device: only the order of a few sums may differ."""

MAX_DIFFERENCE_ACROSS_DEVICES = 2e-2
"""Allowed share of the largest logit when the model is on a GPU and the one read back on the CPU, where memory is
larger: matrix products round differently."""


class SavingError(ValueError):
    """A checkpoint or model could not be written; those before it are untouched."""


def last_checkpoint(output_dir: Path) -> Path | None:
    """Return the newest checkpoint."""
    return max(checkpoints_of(output_dir), key=step_of, default=None)


def checkpoints_of(output_dir: Path) -> list[Path]:
    """Return all checkpoints."""
    return _numbered(output_dir, PREFIX)


def best_folders(output_dir: Path) -> list[Path]:
    """Return the folders of models that were the best of the validations up to then."""
    return _numbered(output_dir, BEST_PREFIX)


def step_of(folder: Path) -> int:
    """Return the number of optimizer steps before a checkpoint or a best model."""
    return int(folder.name.rpartition("-")[2])


def discard_unfinished(output_dir: Path) -> None:
    """Remove what an interrupted run was writing or deleting."""
    shutil.rmtree(output_dir / STAGING, ignore_errors=True)


def publish_checkpoint(output_dir: Path, name: str) -> None:
    """Add checksums to a checkpoint and rename it out of the staging folder, then remove the oldest ones."""
    staged, final = output_dir / STAGING / name, output_dir / name
    write_checksums(staged)
    _sync(staged)
    _remove(output_dir, final)  # left by a run that had resumed from an older one
    staged.rename(final)
    _sync_file(output_dir)
    for old in sorted(checkpoints_of(output_dir), key=step_of)[:-KEPT]:
        _remove(output_dir, old)


def publish_best(output_dir: Path, name: str) -> None:
    """Rename a best model out of the staging folder; one of the same step, from before a resume, is replaced."""
    staged, final = output_dir / STAGING / name, output_dir / name
    _sync(staged)
    _remove(output_dir, final)
    staged.rename(final)
    _sync_file(output_dir)


def publish_model(output_dir: Path, name: str) -> None:
    """Move the files of a model from the staging folder into ``output_dir`` itself, the weights last."""
    staged = output_dir / STAGING / name
    _sync(staged)
    for file in sorted(staged.iterdir(), key=lambda file: (file.name.endswith(WEIGHTS_LAST), file.name)):
        if file.is_dir():
            _remove(output_dir, output_dir / file.name)
        file.replace(output_dir / file.name)
    staged.rmdir()
    _sync_file(output_dir)


@contextmanager
def explained_failure(output_dir: Path, what: str) -> Iterator[None]:
    """Replace the errors of a failed write by one line that names the checkpoint to resume from.

    Raises:
        SavingError: Names the reason, the free space on the disk and the last complete checkpoint.
    """
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0]
        free = shutil.disk_usage(output_dir).free / 1e9
        last = last_checkpoint(output_dir)
        left = f"{last.name} is complete: resume from it with --resume" if last else "there is no checkpoint before it"
        raise SavingError(
            f"cannot save {what} in {output_dir} ({reason}; {free:.1f} GB are free there); {left}"
        ) from error


@contextmanager
def undamaged(checkpoint: Path | None) -> Iterator[None]:
    """Compare a checkpoint with its checksums while the block loads it; None where another process does.

    Raises:
        ValueError: A file of the checkpoint is not what was saved.
    """
    if checkpoint is None:
        yield
        return
    with explained_damage(checkpoint):
        content = ContentCheck(checkpoint)
    try:
        yield
        with explained_damage(checkpoint):
            content.finish()
    finally:
        content.cancel()


@contextmanager
def explained_damage(checkpoint: Path) -> Iterator[None]:
    """Replace the errors of a checkpoint that cannot be loaded by one line that names the one before it.

    Raises:
        ValueError: A file of the checkpoint is missing, cut off or overwritten.
    """
    try:
        yield
    except (OSError, EOFError, RuntimeError, KeyError, TypeError, SafetensorError, UnpicklingError) as error:
        before = max(
            (path for path in checkpoints_of(checkpoint.parent) if step_of(path) < step_of(checkpoint)),
            key=step_of,
            default=None,
        )
        then = f"--resume then continues from {before.name}" if before else "there is none before it: start a new run"
        raise ValueError(f"{checkpoint} is damaged ({first_line(error)}): remove it; {then}") from error


def save_random_state(folder: Path, rank: int) -> None:
    """Save the states of this process's random number generators."""
    name, keys, *position = np.random.get_state(legacy=True)
    numpy_state = (name, np.asarray(keys).tolist(), *position)  # lists and numbers, which load without pickle
    state = {"python": random.getstate(), "numpy": numpy_state, "torch": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    torch.save(state, folder / f"random_state_{rank}.pt")


def load_random_state(folder: Path, rank: int) -> None:
    """Restore the states of this process's random number generators, if as many processes saved the checkpoint.

    Raises:
        FileNotFoundError: The checkpoint had the states of this process.
    """
    file = folder / f"random_state_{rank}.pt"
    others = [int(path.stem.removeprefix("random_state_")) for path in folder.glob("random_state_*.pt")]
    if not file.exists() and rank < max(others, default=1):
        raise FileNotFoundError(f"{file.name} is missing")
    if not file.exists():
        logger.warning("%s was saved by fewer processes: random numbers of process %d start afresh", folder, rank)
        return
    state = torch.load(file, weights_only=True)
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


@torch.no_grad()
def logits_of(model: ConvLlavaForConditionalGeneration, batch: dict[str, Tensor]) -> Tensor:
    """Return the logits (N, positions, vocabulary) of a batch, in float32 on the CPU."""
    model = model.eval()
    inputs = {key: value.to(model.device) for key, value in batch.items() if key != "labels"}
    return model(**inputs, use_cache=False).logits.float().cpu()


def check_same_logits(expected: Tensor, batch: dict[str, Tensor], folder: Path, dtype: torch.dtype) -> None:
    """Load a saved model and compare its logits with those of the model in memory.

    Args:
        expected: Logits (N, positions, vocabulary) of the model in memory.
        batch: Inputs that they were computed from.
        folder: Folder of the saved model.
        dtype: Dtype of the model in memory.

    Raises:
        RuntimeError: The logits differ by more than rounding.
    """
    reloaded, _ = load_pretrained(folder, dtype=dtype, device="cpu")
    difference = (expected - logits_of(reloaded, batch)).abs().max().item()
    on_gpu = torch.cuda.is_available()
    allowed = MAX_DIFFERENCE_ACROSS_DEVICES * float(expected.abs().max()) if on_gpu else MAX_DIFFERENCE
    if not difference <= allowed:
        raise RuntimeError(
            f"the model read back from {folder} differs from the one in memory: logits by {difference:.2e}, more than "
            f"{allowed:.0e}"
        )
    logger.info("read back %s: logits differ by %.1e at most", folder, difference)


def _numbered(output_dir: Path, prefix: str) -> list[Path]:
    return [path for path in output_dir.glob(f"{prefix}*") if path.name.removeprefix(prefix).isdigit()]


def _remove(output_dir: Path, folder: Path) -> None:
    """Remove a folder, renamed first so that an interrupted removal is not taken for a complete checkpoint."""
    if not folder.exists():
        return
    doomed = output_dir / STAGING / f"old-{folder.name}"
    doomed.parent.mkdir(exist_ok=True)
    folder.rename(doomed)
    shutil.rmtree(doomed)


def _sync(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            _sync_file(path)
    _sync_file(folder)


def _sync_file(path: Path) -> None:
    """Wait until a file's content, or a folder's entries, are on the disk."""
    if path.is_dir() and os.name == "nt":  # Windows opens no folder
        return
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
