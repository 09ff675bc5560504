"""The output folder of a run: locked while it runs, resumed with its own recipe only, reusable before a first step."""

import logging
import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from errno import EACCES, EAGAIN
from pathlib import Path
from typing import Any

import yaml

from ..support import did_you_mean
from .callbacks import LOG_FILE, SKIPPED_FILE, TENSORBOARD_FOLDER, read_log
from .checkpoints import STAGING, last_checkpoint
from .held_out_answers import HELD_OUT_ANSWERS_FILE
from .recipe import Recipe
from .sample_answers import ANSWERS_FILE, IMAGES_FOLDER

logger = logging.getLogger(__name__)

RECIPE_FILE = "recipe.yaml"

_BEFORE_FIRST_STEP = {
    RECIPE_FILE,
    LOG_FILE,
    SKIPPED_FILE,
    TENSORBOARD_FOLDER,
    ANSWERS_FILE,
    HELD_OUT_ANSWERS_FILE,
    IMAGES_FOLDER,
    STAGING,
}
"""Names that a run writes before its first step; a folder with nothing else and no logged step holds no work."""

HARMLESS_CHANGES = frozenset(
    "output_dir stop_after_steps stop_after_minutes save_every log_every log_seconds num_workers trackers "
    "sample_answers feature_cache reported_costs data_root".split()
)
"""Keys that decide where a run goes, what it reports and when it pauses, not what it learns."""

ALLOWED_CHANGES = frozenset(
    "learning_rate learning_rates data per_device_batch_size groups_per_step epochs max_steps warmup_ratio "
    "lr_scheduler max_grad_norm precision activation_checkpointing image max_length on_bad_sample seed packing "
    "torch_compile deepspeed_config validation".split()
)
"""Keys that take effect in a resumed run if ``--allow-change`` names them. The others are held by the checkpoint."""


class OutputLock:
    """Lock on an output folder that the system releases when the process ends, however it ends.

    Args:
        folder: The folder; it need not exist yet.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._descriptor: int | None = None

    def take(self) -> None:
        """Lock the folder if it exists and is not locked by this object yet.

        Raises:
            ValueError: Another run holds it.
        """
        if self._descriptor is not None or not self.folder.is_dir():
            return
        try:
            import fcntl
        except ImportError:  # Windows
            logger.warning("%s cannot be locked on this system: start no second run there", self.folder)
            return
        descriptor = os.open(self.folder, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            if error.errno in (EAGAIN, EACCES):
                raise ValueError(
                    f"output_dir {self.folder} is in use by another run: wait for its end, or choose another"
                ) from error
            logger.warning("%s cannot be locked (%s): start no second run there", self.folder, error.strerror)
            return
        self._descriptor = descriptor
        os.register_at_fork(after_in_child=self.release)  # data workers may outlive a killed run by seconds

    def release(self) -> None:
        """Unlock the folder."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


@contextmanager
def lock_of(folder: Path) -> Iterator[OutputLock]:
    """Hold the lock of an output folder, if it exists; ``take`` on the result locks it once it was made.

    Raises:
        ValueError: Another run holds it.
    """
    lock = OutputLock(folder)
    lock.take()
    try:
        yield lock
    finally:
        lock.release()


def starting_point(recipe: Recipe, *, resume: bool, allow_change: Collection[str] = ()) -> Path | None:
    """Return the checkpoint that a run starts from, or None for its beginning.

    Args:
        recipe: The recipe.
        resume: Whether to resume from the last checkpoint.
        allow_change: Keys of the recipe that may differ from the recipe of the checkpoint.

    Raises:
        ValueError: The folder holds something else, or a run with another recipe.
    """
    folder = recipe.output_dir
    checkpoint = last_checkpoint(folder) if resume else None
    check_allowed(allow_change)
    if allow_change and not resume:
        raise ValueError("--allow-change belongs to --resume: a new run has no recipe to differ from")
    if checkpoint is not None:
        _check_changes(recipe, checkpoint, allow_change)
    elif not resume and folder.exists() and not _is_unused(folder):
        raise ValueError(f"output_dir {folder} is not empty; resume it with --resume or choose another")
    return checkpoint


def clear_unused(folder: Path) -> None:
    """Remove what a run that ended before its first step has left."""
    for name in _BEFORE_FIRST_STEP:
        path = folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def _is_unused(folder: Path) -> bool:
    if not folder.is_dir():
        return False
    has_steps = any(entry["step"] > 0 for entry in read_log(folder / LOG_FILE))
    return {path.name for path in folder.iterdir()} <= _BEFORE_FIRST_STEP and not has_steps


def check_allowed(keys: Collection[str]) -> None:
    """Check that keys may change in a resumed run.

    Raises:
        ValueError: One may not, or does not exist.
    """
    for key in sorted(keys):
        if key in HARMLESS_CHANGES or key in ALLOWED_CHANGES:
            continue
        if key in Recipe.model_fields:
            raise ValueError(
                f"--allow-change {key}: the checkpoint holds what {key} has decided; start a new run, with init_from "
                "the checkpoint's folder if its weights are wanted"
            )
        raise ValueError(f"--allow-change {key}: no such key of a recipe{did_you_mean(key, ALLOWED_CHANGES)}")


def recipe_changes(recipe: Recipe) -> dict[str, list[Any]]:
    """Return the value before and now of each key that differs from the recipe that a run was started with.

    Left out are keys that change nothing of what is learned, and keys that an older version did not write.

    Raises:
        ValueError: The stored recipe is damaged.
    """
    stored = recipe.output_dir / RECIPE_FILE
    try:
        before = yaml.safe_load(stored.read_text(encoding="utf-8"))
    except FileNotFoundError:
        logger.warning("%s is missing: whether the checkpoint was trained by this recipe is unknown", stored)
        return {}
    except (ValueError, yaml.YAMLError, RecursionError):
        before = None
    if not isinstance(before, dict):
        raise ValueError(f"{stored} is damaged: copy the recipe of the run there, or start a new run")
    now = recipe.model_dump(mode="json").items()
    differing = {key: [before[key], value] for key, value in now if key in before and before[key] != value}
    return {key: both for key, both in differing.items() if key not in HARMLESS_CHANGES}


def _check_changes(recipe: Recipe, checkpoint: Path, allow_change: Collection[str]) -> None:
    changes = recipe_changes(recipe)
    fixed = sorted(key for key, both in changes.items() if _is_fixed(key, *both))
    if set(changes) <= set(allow_change) and not fixed:
        for key, (old, new) in changes.items():
            logger.warning("resumed with %s %s instead of %s", key, _short(new), _short(old))
        return
    if fixed:
        way_out = f"{', '.join(fixed)} cannot change in a run; a new one takes its weights with init_from: {checkpoint}"
    else:
        way_out = "allow it with " + " ".join(f"--allow-change {key}" for key in changes)
    listed = "; ".join(f"{key} was {_short(old)}, is {_short(new)}" for key, (old, new) in changes.items())
    raise ValueError(
        f"{recipe.output_dir} was trained by another recipe: {listed}. Resume with the recipe in "
        f"{recipe.output_dir / RECIPE_FILE}, or choose another output_dir; {way_out}"
    )


def _is_fixed(key: str, old: Any, new: Any) -> bool:
    """Return whether a key's change does not fit the state that a checkpoint holds."""
    if key == "learning_rates":  # the patterns group the optimizer's state
        return list(old) != list(new)
    return key not in ALLOWED_CHANGES


def _short(value: Any) -> str:
    written = str(value)
    return written if len(written) <= 120 else f"{written[:120]}..."
