"""Checkpoints that are whole or absent, whatever ends the process that writes them.

Everything is written into a folder beside them, forced to the disk, and only then given its name. What a kill or a
full disk leaves behind is thrown away by the next start.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

STAGING = ".saving"
"""Folder inside ``output_dir`` for what is not yet whole, or no longer wanted."""

KEPT = 2
"""Checkpoints kept: the newest and the one before it."""

WEIGHTS_LAST = (".safetensors", ".index.json")
"""A folder without its weights is plainly no model; so they are put in place after all else."""

PREFIX = "checkpoint-"


class SavingError(ValueError):
    """A checkpoint or model could not be written; those before it are untouched."""


def last_checkpoint(output_dir: Path) -> Path | None:
    """Return the newest checkpoint."""
    return max(_checkpoints(output_dir), key=step_of, default=None)


def step_of(checkpoint: Path) -> int:
    """Return the optimizer steps that a checkpoint was taken after."""
    return int(checkpoint.name.removeprefix(PREFIX))


def discard_unfinished(output_dir: Path) -> None:
    """Remove what an interrupted run was writing or deleting."""
    shutil.rmtree(output_dir / STAGING, ignore_errors=True)


def publish_checkpoint(output_dir: Path, name: str) -> None:
    """Give a checkpoint written in the staging folder its name, then remove the oldest ones."""
    staged, final = output_dir / STAGING / name, output_dir / name
    _sync(staged)
    _remove(output_dir, final)  # of a run that had gone on from an older one
    staged.rename(final)
    _sync_folder(output_dir)
    for old in sorted(_checkpoints(output_dir), key=step_of)[:-KEPT]:
        _remove(output_dir, old)


def publish_model(output_dir: Path, name: str) -> None:
    """Move the files of a model written in the staging folder into ``output_dir`` itself, the weights last."""
    staged = output_dir / STAGING / name
    _sync(staged)
    for file in sorted(staged.iterdir(), key=lambda file: (file.name.endswith(WEIGHTS_LAST), file.name)):
        if file.is_dir():
            _remove(output_dir, output_dir / file.name)
        file.replace(output_dir / file.name)
    staged.rmdir()
    _sync_folder(output_dir)


@contextmanager
def explained_failure(output_dir: Path, what: str) -> Iterator[None]:
    """Turn the errors that a failed write has in torch, safetensors and Python into one line that says what is left.

    Raises:
        SavingError: With what stopped the writing, the room on the disk and the checkpoint to go on from.
    """
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0]
        free = shutil.disk_usage(output_dir).free / 1e9
        last = last_checkpoint(output_dir)
        left = f"{last.name} is whole: go on from it with --resume" if last else "there is no checkpoint before it"
        raise SavingError(
            f"cannot save {what} in {output_dir} ({reason}; {free:.1f} GB are free there); {left}"
        ) from error


def _checkpoints(output_dir: Path) -> list[Path]:
    return [path for path in output_dir.glob(f"{PREFIX}*") if path.name.removeprefix(PREFIX).isdigit()]


def _remove(output_dir: Path, folder: Path) -> None:
    """Remove a folder; until it is gone it has no name by which it could be taken for a whole one."""
    if not folder.exists():
        return
    doomed = output_dir / STAGING / f"old-{folder.name}"
    doomed.parent.mkdir(exist_ok=True)
    folder.rename(doomed)
    shutil.rmtree(doomed)


def _sync(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            _sync_folder(path)
    _sync_folder(folder)


def _sync_folder(path: Path) -> None:
    """Wait until a file's bytes, or a folder's names, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
