"""Records of a data source one after the other, for whoever looks at all of them."""

from collections.abc import Iterator
from dataclasses import dataclass

from ..synthetic import SyntheticDataset
from .conversations import ConversationDataset
from .faults import Fault
from .samples import Sample, SampleSource
from .sharded import ShardedDataset

LOOKED_AT = 256
"""Samples looked at of a source that makes them as it goes: it has no end."""


@dataclass(frozen=True)
class Listing:
    """A source that can be gone through from its first record to its last.

    Attributes:
        name: As its recipe or the user calls it.
        source: What is gone through.
        drawn: How often a run takes a sample of it; None outside a recipe.
    """

    name: str
    source: SampleSource
    drawn: int | None = None

    @property
    def total(self) -> int | None:
        """How many records there are; None for streams of unknown length."""
        if isinstance(self.source, ConversationDataset):
            return len(self.source) + len(self.source.faults)
        if isinstance(self.source, ShardedDataset):
            lengths = [self.source.rows.length(shard) for shard in range(len(self.source.files))]
            return None if None in lengths else sum(length or 0 for length in lengths)
        return LOOKED_AT if self._is_endless else len(self.source)

    def entries(self) -> Iterator[Sample | Fault]:
        """Yield the records: samples, or what is wrong with one that is none."""
        if isinstance(self.source, ConversationDataset | ShardedDataset):
            yield from self.source.entries()
        else:
            yield from (self.source[index] for index in range(self.total or 0))

    @property
    def _is_endless(self) -> bool:
        return isinstance(self.source, SyntheticDataset) and len(self.source) > LOOKED_AT
