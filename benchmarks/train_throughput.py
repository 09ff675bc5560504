"""Training throughput on a nano recipe, compared with transformers' Trainer.

The other side trains the same model and data with a plain `Trainer`: `ConvNextModel` as the encoder, batches without
bucketing, images padded to the largest of their batch. Samples, trained parameters and batch size are the same. Both
run as one process on all cores and, under `torchrun`, as one process per core; the better result of each counts.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from common import Report, main, parser, rounds_of
from torch import Tensor, nn
from transformers import (
    ConvNextConfig,
    ConvNextModel,
    PrinterCallback,
    ProgressCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)
from transformers.modeling_outputs import BaseModelOutputWithNoAttention

from convllava.data.batching import Collator, EncodedDataset
from convllava.model import ConvLlavaVisionModel
from convllava.train import Callback, Progress, Recipe, load_recipe
from convllava.train.data_loading import TrainingData
from convllava.train.data_sources import open_mixture
from convllava.train.engine import Engine
from convllava.train.loop import TrainingLoop
from convllava.train.model_setup import resolve_model

WARM_UP = 2
"""Warm-up steps, which do not count."""


class PaddedConvNext(nn.Module):
    """transformers' encoder in place of the package's: all images of a batch at the size of the largest."""

    def __init__(self, tower: ConvLlavaVisionModel) -> None:
        super().__init__()
        config = tower.config
        stages = {"depths": config.depths, "hidden_sizes": config.hidden_sizes, "num_stages": len(config.depths)}
        self.encoder = ConvNextModel(ConvNextConfig(**stages))
        trained = {name for name, weight in tower.named_parameters() if weight.requires_grad}
        for name, weight in self.encoder.named_parameters():
            weight.requires_grad_(name in trained)
        self.stride = config.output_stride

    def forward(self, pixel_values: Tensor, image_sizes: Tensor) -> BaseModelOutputWithNoAttention:
        """Encode the padded batch, and keep the positions of each image."""
        maps = self.encoder(pixel_values).last_hidden_state.permute(0, 2, 3, 1)
        grids = (image_sizes // self.stride).tolist()
        kept = [one[:height, :width].flatten(0, 1) for one, (height, width) in zip(maps, grids, strict=True)]
        return BaseModelOutputWithNoAttention(last_hidden_state=torch.cat(kept))


class Clock(Callback):
    """Records the time at the end of each step."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_step_end(self, progress: Progress | None = None) -> None:
        self.times.append(time.perf_counter())

    def samples_per_second(self, batch_size: int) -> float:
        """Return the rate after the warm-up."""
        return batch_size * (len(self.times) - WARM_UP) / (self.times[-1] - self.times[WARM_UP - 1])


class TrainerClock(TrainerCallback):
    """Records the steps of transformers' Trainer."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def on_step_end(self, *unused: Any, **also_unused: Any) -> None:
        self.clock.on_step_end()


def ours(recipe: Recipe, clock: Clock) -> None:
    """Train with the package's own loop."""
    resolved = resolve_model(recipe)
    engine = Engine(recipe)
    assert resolved.processor is not None
    data = TrainingData(recipe, open_mixture(recipe), resolved.processor, engine.rank, engine.num_processes)
    loop = TrainingLoop(recipe, resolved.load(), resolved.processor, data, engine)
    loop.callbacks.append(clock)
    loop.run()


def plain(recipe: Recipe, clock: Clock) -> None:
    """Train with transformers' plain Trainer."""
    resolved = resolve_model(recipe)
    model, processor = resolved.load(), resolved.processor
    assert processor is not None
    model.model.vision_tower = PaddedConvNext(model.model.vision_tower)
    pad = Collator(processor.tokenizer.pad_token_id)
    arguments = TrainingArguments(
        output_dir=str(recipe.output_dir),
        per_device_train_batch_size=recipe.global_batch_size // processes(),
        max_steps=recipe.max_steps or -1,
        learning_rate=recipe.learning_rate,
        remove_unused_columns=False,
        report_to="none",
        save_strategy="no",
        use_cpu=True,
    )
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=EncodedDataset(open_mixture(recipe), processor, recipe.max_length),
        data_collator=lambda rows: {name: value for name, value in pad(rows).items() if isinstance(value, Tensor)},
    )
    for callback in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(callback)
    trainer.add_callback(TrainerClock(clock))
    trainer.train()


def rate(train: Callable[[Recipe, Clock], None], recipe: Recipe) -> float:
    """Train and return samples per second."""
    clock = Clock()
    train(recipe, clock)
    return clock.samples_per_second(recipe.global_batch_size)


def processes() -> int:
    """Return how many processes train together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def train_one_side(arguments: argparse.Namespace) -> None:
    """Train as one of the processes that `measured` starts; the first writes down the rate."""
    overrides = [
        f"output_dir={arguments.rate_to.parent / 'run'}",
        "init_from=nano",
        f"max_steps={steps_of(arguments)}",
        "log_every=1000",
        "save_every=100000",
    ]
    recipe = load_recipe(arguments.recipe, overrides)
    found = rate(SIDES[arguments.side], recipe)
    if os.environ.get("RANK", "0") == "0":
        arguments.rate_to.write_text(json.dumps(found), encoding="utf-8")


def measured(side: str, workers: int, arguments: argparse.Namespace) -> float:
    """Return the samples per second of one side with a number of processes that share the cores."""
    with tempfile.TemporaryDirectory() as folder:
        rate_to = Path(folder) / "rate.json"
        command = [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            f"--nproc-per-node={workers}",
            __file__,
        ]
        command += ["--recipe", str(arguments.recipe), "--updates", str(arguments.updates)]
        command += ["--side", side, "--rate-to", str(rate_to)] + ["--quick"] * arguments.quick
        threads = (os.cpu_count() or 1) // workers
        done = subprocess.run(
            command, env={**os.environ, "OMP_NUM_THREADS": str(threads)}, capture_output=True, text=True
        )
        if done.returncode:
            raise RuntimeError(f"{side} with {workers} processes ended with {done.returncode}:\n{done.stderr[-2000:]}")
        return float(json.loads(rate_to.read_text(encoding="utf-8")))


def run(report: Report) -> None:
    """Train both in turns, with one process and several, and compare the medians."""
    arguments = report.arguments
    ways = sorted({1, os.cpu_count() or 1})
    rates: dict[tuple[str, int], list[float]] = {(side, workers): [] for side in SIDES for workers in ways}
    for number in range(rounds_of(arguments)):
        for side, workers in rates if number % 2 == 0 else reversed(rates):
            rates[side, workers].append(measured(side, workers, arguments))
    medians = {key: median(values) for key, values in rates.items()}
    for workers in ways:
        report.add(
            recipe=arguments.recipe.name,
            processes=workers,
            ours_samples_per_second=medians["ours", workers],
            plain_samples_per_second=medians["plain", workers],
            times=medians["ours", workers] / medians["plain", workers],
        )
    best = {side: max(medians[side, workers] for workers in ways) for side in SIDES}
    report.add(
        recipe=arguments.recipe.name,
        processes="each side's better",
        ours_samples_per_second=best["ours"],
        plain_samples_per_second=best["plain"],
        times=best["ours"] / best["plain"],
    )


def steps_of(arguments: argparse.Namespace) -> int:
    """Return the steps of one run, warm-up included."""
    return WARM_UP + (2 if arguments.quick else int(arguments.updates))


SIDES: dict[str, Callable[[Recipe, Clock], None]] = {"ours": ours, "plain": plain}


def options() -> argparse.ArgumentParser:
    """Return the command line."""
    found = parser(__doc__.splitlines()[0])
    found.add_argument("--recipe", type=Path, default=Path("recipes/nano/22_pretrain.yaml"))
    found.add_argument("--updates", type=int, default=20, help="timed steps per round (default: 20)")
    found.add_argument("--side", choices=list(SIDES), help=argparse.SUPPRESS)
    found.add_argument("--rate-to", type=Path, help=argparse.SUPPRESS)
    return found


if __name__ == "__main__":
    if (arguments := options().parse_args()).side:
        train_one_side(arguments)
    else:
        main("train_throughput", run, options())
