"""Small training runs: samples of several image shapes and of text alone, in processes that may be killed."""

import json
import multiprocessing
import os
import random
import signal
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

STEPS = 8

PATIENCE = 600
"""Timeout in seconds for another process, on a busy machine."""

SHAPES = [(64, 64), (128, 64), (64, 128), (192, 128), None, None]
"""(width, height) of the images of successive samples; None is a sample of text alone."""

_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload(["convllava.train", "convllava.cli.main"])  # imported once, for all the processes below


def write_data(folder: Path, count: int = 48) -> Path:
    """Write a LLaVA data file with noise images of several shapes and answers of several lengths."""
    rng = np.random.default_rng(0)
    records = []
    for number in range(count):
        shape = SHAPES[number % len(SHAPES)]
        record: dict[str, Any] = {"id": f"sample-{number}"}
        if shape is not None:
            width, height = shape
            pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{number}.png")
            record["image"] = f"{number}.png"
        question = "<image>\nWhat?" if shape is not None else "And without?"
        answer = "yes " * (1 + number % 5)
        record["conversations"] = [{"from": "human", "value": question}, {"from": "gpt", "value": answer.strip()}]
        records.append(record)
    path = folder / "data.json"
    path.write_text(json.dumps(records))
    return path


def write_recipe(folder: Path, checkpoint: Path, **values: Any) -> Path:
    """Write a recipe that trains a checkpoint on ``write_data``, and the data next to it."""
    recipe = {
        "init_from": str(checkpoint),
        "training_stage": "pretrain",
        "train_from_stage": 3,
        "data": [{"path": str(write_data(folder))}],
        "learning_rate": 1e-3,
        "max_steps": STEPS,
        "global_batch_size": 4,
        "max_length": 512,
        "log_every": 1,
        "save_every": 3,
        "output_dir": str(folder / "run"),
        **values,
    }
    path = folder / "recipe.yaml"
    path.write_text(json.dumps(recipe))  # JSON is YAML
    return path


def logged(run: Path, key: str = "loss") -> dict[int, float]:
    """Return one figure of a run's log, by step."""
    lines = (run / "log.jsonl").read_text().splitlines()
    return {entry["step"]: entry[key] for entry in map(json.loads, lines) if key in entry}


class Run:
    """A training run in one or more processes, which communicate over gloo.

    Args:
        grouped: Whether a single process forms a group too, as under torchrun.
    """

    def __init__(
        self, recipe: Path, *overrides: str, resume: bool = False, processes: int = 1, grouped: bool = False
    ) -> None:
        self.out = next(Path(o.removeprefix("output_dir=")) for o in overrides if o.startswith("output_dir="))
        self.errors = self.out.with_name(self.out.name + ".errors")
        port = _free_port()
        group = processes if processes > 1 or grouped else 0
        self.processes = [
            _forks.Process(target=_train, args=(recipe, overrides, resume, rank, group, port, self.errors))
            for rank in range(processes)
        ]
        for process in self.processes:
            process.start()

    def wait(self) -> Path:
        """Wait for the end and return the output folder."""
        for process in self.processes:
            process.join(PATIENCE)
        assert [process.exitcode for process in self.processes] == [0] * len(self.processes), self.error()
        return self.out

    def error(self) -> str:
        """Return the errors of the processes."""
        for process in self.processes:
            process.join(PATIENCE)
        return self.errors.read_text() if self.errors.exists() else "no error was written"

    def kill_at(self, step: int) -> None:
        """Kill all processes, without a chance to clean up, as soon as the log has reached a step."""
        deadline = time.monotonic() + PATIENCE
        log = self.out / "log.jsonl"
        while not log.exists() or log.read_bytes().count(b'"loss"') < step:
            assert all(process.is_alive() for process in self.processes), self.error()
            assert time.monotonic() < deadline, f"step {step} was never reached"
            time.sleep(0.001)
        for process in self.processes:
            os.kill(process.pid, signal.SIGKILL)
        for process in self.processes:
            process.join()
        assert all(process.exitcode == -signal.SIGKILL for process in self.processes)


def killed_and_resumed(recipe: Path, out: Path, seed: int, processes: int = 1, overrides: Sequence[str] = ()) -> Path:
    """Kill a run at a step that the seed chooses, resume it, and return its folder."""
    values = [*overrides, f"output_dir={out}"]
    Run(recipe, *values, processes=processes).kill_at(random.Random(seed).randrange(1, STEPS))
    return Run(recipe, *values, resume=True, processes=processes).wait()


def _train(
    recipe: Path, overrides: Sequence[str], resume: bool, rank: int, processes: int, port: int, errors: Path
) -> None:
    if processes:
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes)}
        os.environ |= {"LOCAL_WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    import torch

    from convllava.train import load_recipe, train

    torch.set_num_threads(1)
    try:
        train(load_recipe(recipe, overrides), resume=resume)
    except Exception as error:
        with errors.open("a") as file:
            file.write(f"{type(error).__name__}: {error}\n")
        os._exit(1)
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
