"""All records of all sources looked at, in several processes, in order."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from ..faults import Fault
from ..samples import NamedSource, Sample
from .inspecting import Facts, Inspector
from .report import Report, SourceReport

_AT_ONCE = 8
"""Records that a process takes at a time."""

Progress = Callable[[int, int | None], None]


def check(
    sources: Iterable[NamedSource], inspector: Inspector, *, jobs: int = 0, progress: Progress | None = None
) -> Report:
    """Look at every record.

    Args:
        sources: One after the other.
        inspector: What looks at one record.
        jobs: Processes that decode; 0 for this one alone.
        progress: Called with records done and in all, for each source anew.
    """
    report = Report(inspector.limits.max_length)
    seen = _Seen()
    for source in sources:
        found = SourceReport(source.name, source.drawn)
        report.sources.append(found)
        seen.start_source()
        for done, facts in enumerate(_inspected(source.source.records(), inspector, jobs), start=1):
            facts.faults += seen.repeats(facts)
            if len(found.previews) == inspector.previewed:
                facts.pieces = []
            found.add(facts)
            report.faults += facts.faults
            if progress is not None:
                progress(done, source.source.num_records())
        found.distinct_images = len(seen.images)
    return report


@dataclass
class _Seen:
    """What has been met before: dialogues in all sources, ids and images in this one."""

    places: dict[int, str] = field(default_factory=dict)
    ids: set[tuple[str, str]] = field(default_factory=set)
    images: set[int] = field(default_factory=set)

    def start_source(self) -> None:
        self.ids, self.images = set(), set()

    def repeats(self, facts: Facts) -> list[Fault]:
        """Return the warnings about a record that repeats an earlier one."""
        self.images.update(facts.image_digests)
        if facts.digest is None:
            return []
        found = []
        first = self.places.setdefault(facts.digest, facts.place)
        if first != facts.place:
            found.append(_about(facts, "duplicate", f"same images and dialogue as {first}"))
        elif (facts.file, facts.sample_id) in self.ids:
            found.append(_about(facts, "duplicate_id", f"an earlier record of the file has the id {facts.sample_id}"))
        self.ids.add((facts.file, facts.sample_id))
        return found


def _about(facts: Facts, kind: str, message: str) -> Fault:
    return Fault(kind, facts.file, facts.record, facts.sample_id, message)


def _inspected(entries: Iterable[Sample | Fault], inspector: Inspector, jobs: int) -> Iterator[Facts]:
    """Yield the facts in order; the entries themselves travel to the processes, so that any iterator will do."""
    if jobs == 0:
        yield from map(inspector, entries)
        return
    loader: DataLoader[Any] = DataLoader(
        _Inspected(inspector), batch_size=_AT_ONCE, sampler=_Entries(entries), num_workers=jobs, collate_fn=list
    )
    for batch in loader:
        yield from batch


class _Inspected(Dataset[Facts]):
    def __init__(self, inspector: Inspector) -> None:
        self.inspector = inspector

    def __getitem__(self, entry: Any) -> Facts:
        return self.inspector(entry)


class _Entries(torch.utils.data.Sampler[Any]):
    def __init__(self, entries: Iterable[Sample | Fault]) -> None:
        self.entries = entries

    def __iter__(self) -> Iterator[Any]:
        return iter(self.entries)
