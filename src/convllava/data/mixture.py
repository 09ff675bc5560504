"""Several sources drawn as one, by weight or completely, in an order fixed by a seed."""

from collections.abc import Sequence

import numpy as np

from .faults import Fault
from .samples import CheckedSource, Sample, SampleSource, SequentialSource


class Mixture:
    """A finite, ordered draw from several sources.

    With ``total``, the sources share it by weight, and each is read from its start (again and again if it is short), so
    a synthetic source never repeats a sample. Without, every source is read completely, ``epochs`` times, one pass over
    all of them after the other.

    Args:
        sources: The sources.
        weights: Relative shares of ``total``, one for each source; not used without it.
        total: Samples to draw.
        epochs: Passes over everything when there is no ``total``.
        seed: Fixes the order.

    Raises:
        ValueError: A weight is missing or not positive.
    """

    def __init__(
        self,
        sources: Sequence[SampleSource],
        weights: Sequence[float],
        *,
        total: int | None = None,
        epochs: int = 1,
        seed: int = 0,
    ) -> None:
        if len(weights) != len(sources) or min(weights, default=0) <= 0:
            raise ValueError(f"give each of {len(sources)} sources a weight above 0, got {list(weights)}")
        self._opened = list(sources)
        rng = np.random.default_rng(seed)
        counts = [len(source) for source in sources] if total is None else shares(weights, total)
        passes = [_shuffled(sources, counts, rng) for _ in range(epochs if total is None else 1)]
        self._source = np.concatenate([numbers for numbers, _ in passes])
        self._index = np.concatenate([indices for _, indices in passes])
        self.sources = [self._as_drawn(number, source, seed) for number, source in enumerate(sources)]

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Sample:
        source, inner = self._at(index)
        return source[inner]

    def image_sizes(self, index: int) -> Sequence[tuple[int, int]]:
        """Return (height, width) of each image of a sample."""
        source, inner = self._at(index)
        return source.image_sizes(inner)

    def text_length(self, index: int) -> int:
        """Return the characters of a sample's texts, as its source counts them."""
        source, inner = self._at(index)
        return source.text_length(inner)

    def source_of(self, index: int) -> int:
        """Return the number of the source that a sample comes from."""
        return int(self._source[index])

    def drawn_from(self, source: int) -> int:
        """Return the number of samples that are drawn from a source."""
        return int((self._source == source).sum())

    def length_of(self, source: int) -> int:
        """Return the number of samples of a source."""
        return len(self._opened[source])

    @property
    def faults(self) -> list[Fault]:
        """Faults that were found when the sources were opened."""
        return [fault for source in self._opened if isinstance(source, CheckedSource) for fault in source.faults]

    def _as_drawn(self, number: int, source: SampleSource, seed: int) -> SampleSource:
        """Return a source as it is indexed; a sequential source is read in the order of its shuffled samples."""
        if not isinstance(source, SequentialSource):
            return source
        draws = self._source == number
        self._index[draws] = np.arange(int(draws.sum()))
        return source.shuffled((seed, number))

    def _at(self, index: int) -> tuple[SampleSource, int]:
        return self.sources[self._source[index]], int(self._index[index])


def _shuffled(
    sources: Sequence[SampleSource], counts: Sequence[int], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return sources and indices of so many samples of each source, in one random order."""
    numbers = np.repeat(np.arange(len(counts)), counts)
    indices = np.concatenate([_indices(source, count, rng) for source, count in zip(sources, counts, strict=True)])
    order = rng.permutation(len(numbers))
    return numbers[order], indices[order]


def shares(weights: Sequence[float], total: int) -> list[int]:
    """Return ``total`` split by weight into whole numbers that add up to it."""
    bounds = np.cumsum([0.0, *weights]) / sum(weights) * total
    return np.diff(np.round(bounds).astype(int)).tolist()


def _indices(source: SampleSource, count: int, rng: np.random.Generator) -> np.ndarray:
    """Return ``count`` indices: complete shuffled passes over a source, the last one cut short."""
    if isinstance(source, SequentialSource):
        return np.arange(count)  # its length may be unknown, and it shuffles itself
    length = len(source)
    passes = [rng.permutation(length) for _ in range(-(-count // length))]
    return np.concatenate(passes)[:count] if passes else np.empty(0, dtype=int)
