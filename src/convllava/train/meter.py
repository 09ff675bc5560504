"""What a run does between two log lines: tokens, images and samples, time, memory."""

import resource
import sys
import time
from collections import Counter
from typing import Any

import torch
from torch import Tensor

from .watched_data import Batch


class Meter:
    """Counts of one process since its last reading; a reading adds up those of all processes.

    Args:
        num_sources: Sources of the mixture, whose samples are counted apart.
    """

    def __init__(self, num_sources: int) -> None:
        self.num_sources = num_sources
        self.reset()

    def reset(self) -> None:
        """Start counting anew."""
        self.began = time.perf_counter()
        self.supervised_tokens = 0
        self.images = 0
        self.waited = 0.0
        self.drawn = [0] * self.num_sources

    def count(self, batch: Batch, sources: list[int]) -> None:
        """Take in one batch of this process; ``sources`` holds one number a sample."""
        self.images += len(batch.get("image_sizes", ()))
        for source in sources:
            self.drawn[source] += 1

    def local_sums(self) -> Tensor:
        """Return what is to be added up over the processes: (3 + sources,)."""
        elapsed = time.perf_counter() - self.began
        return torch.tensor([elapsed, self.waited, self.images, *self.drawn], dtype=torch.float32)

    def read(self, sums: Tensor, processes: int, names: list[str]) -> dict[str, Any]:
        """Return the figures of a log line and start anew.

        Args:
            sums: ``local_sums`` added up over the processes.
            processes: How many there are.
            names: One a source; entries of one name are told apart by a number.
        """
        elapsed, waited, images, *drawn = sums.tolist()
        seconds = max(elapsed / processes, 1e-9)
        figures = {
            "seconds": seconds,
            "supervised_tokens_per_second": self.supervised_tokens / seconds,
            "images_per_second": images / seconds,
            "waiting_for_data": waited / max(elapsed, 1e-9),
            "memory_gb": peak_memory() / 1e9,
            **{f"drawn/{name}": int(count) for name, count in zip(_distinct(names), drawn, strict=True)},
        }
        self.reset()
        return figures


def _distinct(names: list[str]) -> list[str]:
    """Return ``a``, ``b``, ``a 2`` for ``a``, ``b``, ``a``."""
    seen = Counter[str]()
    found = []
    for name in names:
        seen[name] += 1
        found.append(f"{name} {seen[name]}" if seen[name] > 1 else name)
    return found


def peak_memory() -> float:
    """Return the most bytes held so far: on the GPU where there is one, else by this process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return held if sys.platform == "darwin" else held * 1024  # Linux counts in KiB
