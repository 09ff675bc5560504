"""Statistics of a data set: shapes and sizes of images, lengths of texts, visual tokens under each policy."""

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
"""Function from height and width of an image to its visual tokens; raises ValueError for an unsupported shape."""

_CHUNK = 512
"""Records whose image headers are read together."""

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass
class Statistics:
    """Counts over a data set; sizes are (height, width), upright.

    Attributes:
        samples: Number of usable samples.
        text_only: Number of samples without images.
        unreadable: Number of records that cannot be used; ``convllava data check`` lists them.
        sizes: Number of images of each size.
        images_a_sample: Number of samples for each number of images.
        text_lengths: Characters of each sample's texts.
    """

    samples: int = 0
    text_only: int = 0
    unreadable: int = 0
    sizes: Counter[Size] = field(default_factory=Counter)
    images_a_sample: Counter[int] = field(default_factory=Counter)
    text_lengths: list[int] = field(default_factory=list)

    @property
    def images(self) -> int:
        """Number of images; an image of several samples counts once for each."""
        return self.sizes.total()

    def add(self, sizes: Sequence[Size] | None, text: int) -> None:
        """Count one record; ``sizes`` is None for one that cannot be used."""
        if sizes is None:
            self.unreadable += 1
            return
        self.samples += 1
        self.text_only += not sizes
        self.images_a_sample[len(sizes)] += 1
        self.sizes.update(sizes)
        self.text_lengths.append(text)

    def per_image(self, measure: Callable[[int, int], float]) -> np.ndarray:
        """Return a figure of (height, width) for every image, (images,)."""
        values = [measure(*size) for size in self.sizes]
        return np.repeat(np.array(values, dtype=float), list(self.sizes.values()))


@dataclass(frozen=True)
class PolicyTokens:
    """Visual tokens under one policy.

    Attributes:
        name: The policy's name.
        tokens: Visual tokens of each image, (images,).
        refused: Number of images whose shape the policy does not support.
    """

    name: str
    tokens: np.ndarray
    refused: int


def measure(
    records: Iterable[Sample | Fault], *, jobs: int = 1, progress: Callable[[int], None] | None = None
) -> Statistics:
    """Return statistics from the headers of all images; nothing is decoded.

    Args:
        records: The records in order.
        jobs: Number of files opened in parallel.
        progress: Called with the number of records done.
    """
    statistics = Statistics()
    done = 0
    with ThreadPoolExecutor(jobs) as threads:
        for chunk in _chunks(iter(records)):
            for measured in threads.map(_measured, chunk):
                statistics.add(*measured)
            done += len(chunk)
            if progress is not None:
                progress(done)
    return statistics


def _chunks(records: Iterator[Sample | Fault]) -> Iterator[list[Sample | Fault]]:
    while chunk := list(islice(records, _CHUNK)):
        yield chunk


def _measured(record: Sample | Fault) -> tuple[list[Size] | None, int]:
    if isinstance(record, Fault):
        return None, 0
    try:
        return [stored_size(image) for image in record.images], text_length(record.messages)
    except ImageError:
        return None, 0


def tokens_by_policy(statistics: Statistics, policies: Mapping[str, TokensOf]) -> list[PolicyTokens]:
    """Return the visual tokens of the images under each policy."""
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
    """Return the statistics for programs; quantiles have their percentage as key."""
    return {
        "samples": statistics.samples,
        "text_only": statistics.text_only,
        "unreadable": statistics.unreadable,
        "images": statistics.images,
        "images_a_sample": dict(sorted(statistics.images_a_sample.items())),
        "aspect_ratio": summary(statistics.per_image(lambda height, width: width / height)),
        "height": summary(statistics.per_image(lambda height, width: height)),
        "width": summary(statistics.per_image(lambda height, width: width)),
        "megapixels": summary(statistics.per_image(lambda height, width: height * width / 1e6)),
        "text_characters": summary(np.array(statistics.text_lengths, dtype=float)),
        "visual_tokens": {found.name: summary(found.tokens) | {"refused": found.refused} for found in by_policy},
    }


def summary(values: np.ndarray) -> dict[str, float]:
    """Return mean, extremes and quantiles; empty for no values."""
    if not len(values):
        return {}
    quantiles = {f"{quantile:.0%}": float(np.quantile(values, quantile)) for quantile in QUANTILES}
    return {"mean": float(values.mean()), "min": float(values.min()), **quantiles, "max": float(values.max())}
