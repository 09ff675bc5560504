"""Throughput between two log lines: tokens, images and samples per second, time, memory."""

import sys
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch


class ThroughputMeter:
    """Counts of one process since the last log line; a reading adds up those of all processes.

    Args:
        source_names: Names of the mixture's sources, whose samples are counted separately. Repeated names get a
            number.
    """

    def __init__(self, source_names: Sequence[str]) -> None:
        self.source_names = distinct(source_names)
        self.reset()

    def reset(self) -> None:
        """Set all counts to zero."""
        self.began = time.perf_counter()
        self.supervised_tokens = 0
        self.images = 0
        self.drawn = [0] * len(self.source_names)

    def seconds(self) -> float:
        """Return the time since the last log line."""
        return time.perf_counter() - self.began

    def leave_out(self, seconds: float) -> None:
        """Leave a time out of the figures, such as that of a validation."""
        self.began += seconds

    def count(self, images: int, sources: Sequence[int]) -> None:
        """Count the images and samples of a micro-batch of this process.

        Args:
            images: Number of images.
            sources: Number of the source of each sample.
        """
        self.images += images
        for source in sources:
            self.drawn[source] += 1

    def local_sums(self, seconds_waited: float) -> list[float]:
        """Return the figures of this process that are added up over the processes.

        Args:
            seconds_waited: Time spent waiting for data since the last log line.
        """
        return [self.seconds(), seconds_waited, self.images, *self.drawn]

    def read(self, sums: Sequence[float], processes: int) -> dict[str, Any]:
        """Return the figures of a log line and reset the counts.

        Args:
            sums: ``local_sums`` added up over the processes.
            processes: Number of processes.
        """
        elapsed, waited, images, *drawn = sums
        seconds = max(elapsed / processes, 1e-9)
        figures = {
            "seconds": seconds,
            "supervised_tokens_per_second": self.supervised_tokens / seconds,
            "images_per_second": images / seconds,
            "waiting_for_data": waited / max(elapsed, 1e-9),
            "memory_gb": peak_memory() / 1e9,
            **{f"drawn/{name}": int(count) for name, count in zip(self.source_names, drawn, strict=True)},
        }
        self.reset()
        return figures


def peak_memory() -> float:
    """Return the peak memory in bytes: of the GPU if there is one, else of this process; 0 where it is unknown."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    try:
        import resource
    except ImportError:  # Windows
        return 0.0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts in KiB


def distinct(names: Sequence[str]) -> list[str]:
    """Return ``a``, ``b``, ``a 2`` for ``a``, ``b``, ``a``."""
    seen = Counter[str]()
    found = []
    for name in names:
        seen[name] += 1
        found.append(f"{name} {seen[name]}" if seen[name] > 1 else name)
    return found
