"""Callbacks: what a run reports while it trains, and the time budget that may end it.

A callback overrides the hooks that it needs. Those of the main process write files; ``TimeBudget`` runs on every
process, since all must stop at the same step.
"""

import importlib.util
import json
import os
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..data.faults import Fault
from ..support import first_line, write_text

if TYPE_CHECKING:
    from accelerate.tracking import GeneralTracker

LOG_FILE = "log.jsonl"
SKIPPED_FILE = "skipped.jsonl"
TENSORBOARD_FOLDER = "tensorboard"
PROJECT = "convllava"

LogEntry = dict[str, Any]
OnLog = Callable[[LogEntry], None]


@dataclass
class Progress:
    """Position of a run, and requests of callbacks to the loop.

    Attributes:
        step: Optimizer steps done.
        max_steps: Optimizer steps of the learning-rate schedule.
        should_save: Whether to save a checkpoint after this step.
        should_stop: Whether to end the run after this step.
        figures: Figures of callbacks for the log line of this step; having any makes it have one.
    """

    step: int
    max_steps: int
    should_save: bool = False
    should_stop: bool = False
    figures: LogEntry = field(default_factory=dict)

    @property
    def is_last(self) -> bool:
        """Whether the last step of the learning-rate schedule is done."""
        return self.step == self.max_steps


class Callback:
    """Hooks of the training loop; each does nothing by default."""

    def on_begin(self, progress: Progress) -> None:
        """Prepare for the first step after ``progress.step``, which is not 0 in a resumed run."""

    def on_step_end(self, progress: Progress) -> None:
        """React to a finished optimizer step; ``progress`` takes requests to save or stop."""

    def on_log(self, progress: Progress, entry: LogEntry) -> None:
        """Receive a log line: loss, gradient norm, learning rates, throughput."""

    def on_checkpoint(self, progress: Progress, staged: Path) -> None:
        """Add files to a checkpoint that is complete otherwise, before it gets its name."""

    def on_save(self, progress: Progress, checkpoint: Path) -> None:
        """Receive a complete checkpoint."""

    def on_end(self, progress: Progress) -> None:
        """Clean up after the last step."""


class TimeBudget(Callback):
    """Stops all processes at the same step once a run has taken its minutes, with a checkpoint to resume from."""

    def __init__(self, minutes: float, device: torch.device) -> None:
        self.seconds = minutes * 60
        self.device = device
        self.started = time.monotonic()

    def on_begin(self, progress: Progress) -> None:
        self.started = time.monotonic()

    def on_step_end(self, progress: Progress) -> None:
        spent = torch.tensor(time.monotonic() - self.started, device=self.device)
        if torch.distributed.is_initialized():
            torch.distributed.broadcast(spent, src=0)
        if spent.item() >= self.seconds and progress.step < progress.max_steps:
            progress.should_save = progress.should_stop = True


class LogFile(Callback):
    """Appends every log line to a JSONL file; lines that a resumed run repeats are dropped first.

    Args:
        path: The file.
        notify: Also called with every line.
        changes: Values of the recipe before and after a change with which a run is resumed; they get a line.
    """

    def __init__(self, path: Path, notify: OnLog | None, changes: dict[str, list[Any]] | None = None) -> None:
        self.path = path
        self.notify = notify
        self.changes = changes

    def on_begin(self, progress: Progress) -> None:
        keep_lines(self.path, progress.step)
        if self.changes:
            self.on_log(progress, {"changed": self.changes})

    def on_log(self, progress: Progress, entry: LogEntry) -> None:
        line = {"step": progress.step, "max_steps": progress.max_steps, **entry}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        if self.notify is not None:
            self.notify(line)


def keep_lines(path: Path, last_step: int) -> None:
    """Drop the lines of a log that are later than a step.

    Raises:
        ValueError: A line is damaged.
    """
    kept = [entry for entry in read_log(path) if entry["step"] <= last_step]
    write_text(path, "".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in kept))


def cut_torn_line(path: Path) -> None:
    """Cut an incomplete last line, left by a kill or a full disk: the next one would be joined to it."""
    if path.exists() and (content := path.read_bytes()) and not content.endswith(b"\n"):
        os.truncate(path, content.rfind(b"\n") + 1)


def read_log(path: Path) -> list[LogEntry]:
    """Return the lines of a log; an incomplete last line, cut by a kill, is left out.

    Raises:
        ValueError: Another line is damaged; names the file and the line.
    """
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")[:-1]  # what follows the last line end is incomplete, or empty
    return [_entry(line, path, number) for number, line in enumerate(lines, start=1)]


def _entry(line: bytes, path: Path, number: int) -> LogEntry:
    try:
        entry = json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}, line {number} is damaged ({first_line(error)}): remove the line") from error
    if not isinstance(entry, dict) or not isinstance(entry.get("step"), int):
        raise ValueError(f"{path}, line {number} is damaged (it has no step): remove the line")
    return entry


class Trackers(Callback):
    """Sends the numbers of log lines to TensorBoard, Weights & Biases or trackio, by accelerate's trackers.

    Args:
        names: The trackers.
        output_dir: Folder of the run; its name becomes the name of a hosted run.
        config: Recorded by hosted trackers with the run.
    """

    def __init__(self, names: Sequence[str], output_dir: Path, config: dict[str, Any]) -> None:
        self.names = names
        self.output_dir = output_dir
        self.config = config
        self.trackers: list[GeneralTracker] = []

    def on_begin(self, progress: Progress) -> None:
        from accelerate.tracking import TensorBoardTracker, TrackioTracker, WandBTracker

        for name in self.names:
            if name == "tensorboard":  # lines that a resumed run repeats replace those that were there
                purge = {"purge_step": progress.step + 1}
                tracker = TensorBoardTracker(TENSORBOARD_FOLDER, logging_dir=self.output_dir, **purge)
            else:
                hosted = {"wandb": WandBTracker, "trackio": TrackioTracker}[name]
                tracker = hosted(PROJECT, name=self.output_dir.name)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # TensorBoard's generated code is older than the installed protobuf
                tracker.start()
            if name != "tensorboard":
                tracker.store_init_configuration(self.config)
            self.trackers.append(tracker)

    def on_log(self, progress: Progress, entry: LogEntry) -> None:
        numbers = {name: value for name, value in entry.items() if isinstance(value, int | float)}
        for tracker in self.trackers:
            tracker.log(numbers, step=progress.step)

    def on_end(self, progress: Progress) -> None:
        for tracker in self.trackers:
            tracker.finish()


def installed_trackers(asked: Sequence[str] | None) -> list[str]:
    """Return the trackers of a run: those asked for or, if none are named, TensorBoard where it is installed.

    Raises:
        ValueError: A tracker that is asked for is not installed.
    """
    if asked is None:
        return ["tensorboard"] if _is_installed("tensorboard") else []
    for name in asked:
        if not _is_installed(name):
            raise ValueError(f"trackers asks for {name}, which is not installed: pip install {name}")
    return list(asked)


def _is_installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


class SkippedSamples:
    """The list of samples that a run left out (``on_bad_sample: skip``), a JSONL file with one line for each.

    A line reads ``{"step": 0, "kind": ..., "file": ..., "record": ..., "sample_id": ..., "message": ...}``; step 0
    stands for faults found when the data were opened. Every process adds to the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def add(self, faults: Iterable[Fault], step: int) -> None:
        """Append the samples that are not listed yet."""
        new = list(faults)
        if not new:
            return
        listed = {_key(line) for line in read_log(self.path)}
        lines = [{"step": step, **vars(fault)} for fault in new]
        unlisted = {_key(line): line for line in lines if _key(line) not in listed}
        # in JSON the escape of a lone surrogate, of a file's name, is its value
        with self.path.open("a", encoding="utf-8", errors="backslashreplace") as file:
            file.write("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in unlisted.values()))

    def count(self) -> int:
        """Return the number of listed samples."""
        return len(read_log(self.path))


def _key(line: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(line.get(name) for name in ("file", "record", "sample_id"))
