"""What a data set is like: shapes and sizes of its images, lengths of its texts, visual tokens of each policy."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np

from ..images import ImageError
from .faults import Fault
from .images import stored_size
from .samples import Sample, text_length

Size = tuple[int, int]
TokensOf = Callable[[int, int], int]
"""Height and width of an image to its visual tokens; ValueError where it cannot be shown."""

_AT_ONCE = 512
"""Records whose headers are read together."""

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass
class Statistics:
    """Counts over a data set; (height, width) as images are shown, upright.

    Attributes:
        unreadable: Records or images without a readable header; 'data check' tells which.
    """

    samples: int = 0
    text_only: int = 0
    unreadable: int = 0
    sizes: Counter[Size] = field(default_factory=Counter)
    images_a_sample: Counter[int] = field(default_factory=Counter)
    text_lengths: list[int] = field(default_factory=list)

    @property
    def images(self) -> int:
        """How many there are; one that several samples show counts as often."""
        return self.sizes.total()

    def add(self, sizes: Sequence[Size] | None, text: int) -> None:
        """Count one record; without sizes, one that cannot be used."""
        if sizes is None:
            self.unreadable += 1
            return
        self.samples += 1
        self.text_only += not sizes
        self.images_a_sample[len(sizes)] += 1
        self.sizes.update(sizes)
        self.text_lengths.append(text)

    def repeated(self, measure: Callable[[int, int], float]) -> np.ndarray:
        """Return a figure of every image, (images,)."""
        values = [measure(*size) for size in self.sizes]
        return np.repeat(np.array(values, dtype=float), list(self.sizes.values()))


@dataclass(frozen=True)
class PolicyTokens:
    """Visual tokens an image under one policy; ``refused`` images cannot be shown so."""

    name: str
    tokens: np.ndarray
    refused: int


def measure(
    entries: Iterable[Sample | Fault], *, jobs: int = 1, progress: Callable[[int], None] | None = None
) -> Statistics:
    """Read the headers of all images; nothing is decoded.

    Args:
        entries: Records in order.
        jobs: Files opened at a time.
        progress: Called with the records done.
    """
    statistics = Statistics()
    done = 0
    with ThreadPoolExecutor(jobs) as threads:
        for chunk in _chunks(iter(entries)):
            for facts in threads.map(_facts, chunk):
                statistics.add(*facts)
            done += len(chunk)
            if progress is not None:
                progress(done)
    return statistics


def _chunks(entries: Iterator[Sample | Fault]) -> Iterator[list[Sample | Fault]]:
    while chunk := list(islice(entries, _AT_ONCE)):
        yield chunk


def _facts(entry: Sample | Fault) -> tuple[list[Size] | None, int]:
    if isinstance(entry, Fault):
        return None, 0
    try:
        return [stored_size(image) for image in entry.images], text_length(entry.messages)
    except ImageError:
        return None, 0


def tokens_by_policy(statistics: Statistics, policies: Mapping[str, TokensOf]) -> list[PolicyTokens]:
    """Return what each policy makes of the images."""
    return [_tokens(name, tokens_of, statistics.sizes) for name, tokens_of in policies.items()]


def _tokens(name: str, tokens_of: TokensOf, sizes: Counter[Size]) -> PolicyTokens:
    counts, weights, refused = [], [], 0
    for size, number in sizes.items():
        try:
            counts.append(tokens_of(*size))
            weights.append(number)
        except ValueError:
            refused += number
    return PolicyTokens(name, np.repeat(np.array(counts, dtype=int), np.array(weights, dtype=int)), refused)


def as_json(statistics: Statistics, by_policy: Sequence[PolicyTokens]) -> dict[str, Any]:
    """Return what a program may read; quantiles under their percentage."""
    return {
        "samples": statistics.samples,
        "text_only": statistics.text_only,
        "unreadable": statistics.unreadable,
        "images": statistics.images,
        "images_a_sample": dict(sorted(statistics.images_a_sample.items())),
        "aspect_ratio": summary(statistics.repeated(lambda height, width: width / height)),
        "height": summary(statistics.repeated(lambda height, width: height)),
        "width": summary(statistics.repeated(lambda height, width: width)),
        "megapixels": summary(statistics.repeated(lambda height, width: height * width / 1e6)),
        "text_characters": summary(np.array(statistics.text_lengths, dtype=float)),
        "visual_tokens": {found.name: summary(found.tokens) | {"refused": found.refused} for found in by_policy},
    }


def summary(values: np.ndarray) -> dict[str, float]:
    """Return mean, extremes and quantiles; empty for no values."""
    if not len(values):
        return {}
    quantiles = {f"{quantile:.0%}": float(np.quantile(values, quantile)) for quantile in QUANTILES}
    return {"mean": float(values.mean()), "min": float(values.min()), **quantiles, "max": float(values.max())}
