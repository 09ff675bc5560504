"""Check of all records of all sources, in order, in several processes."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from ..faults import Fault
from ..samples import NamedSource, Sample
from .inspector import Inspection, Inspector
from .report import Report, SourceReport

_BATCH = 8
"""Records that a process inspects at a time."""

Progress = Callable[[int, int | None], None]


def check(
    sources: Iterable[NamedSource], inspector: Inspector, *, jobs: int = 0, progress: Progress | None = None
) -> Report:
    """Inspect every record of every source.

    Args:
        sources: The sources, checked one after another.
        inspector: Inspects one record.
        jobs: Number of worker processes; 0 for this process alone.
        progress: Called with the number of records done and in total, for each source.
    """
    report = Report(inspector.limits.max_length)
    seen = _Seen()
    for named in sources:
        found = SourceReport(named.name, named.drawn, named.format)
        report.sources.append(found)
        seen.start_source()
        for done, inspection in enumerate(_inspected(named.source.records(), inspector, jobs), start=1):
            inspection.faults += seen.repeats(inspection)
            if len(found.previews) == inspector.previewed:
                inspection.spans = []
            found.add(inspection)
            report.faults += inspection.faults
            if progress is not None:
                progress(done, named.source.num_records())
        found.distinct_images = len(seen.images)
        if found.records == 0:
            found.errors += 1
            report.faults.append(Fault("malformed", named.name, None, "", f"{named.name} holds no records"))
    return report


@dataclass
class _Seen:
    """Dialogues of all sources so far, and ids and images of the present one."""

    places: dict[int, str] = field(default_factory=dict)
    ids: set[tuple[str, str]] = field(default_factory=set)
    images: set[int] = field(default_factory=set)

    def start_source(self) -> None:
        self.ids, self.images = set(), set()

    def repeats(self, inspection: Inspection) -> list[Fault]:
        """Return the warnings about a record that repeats an earlier one."""
        self.images.update(inspection.image_digests)
        if inspection.digest is None:
            return []
        found = []
        first = self.places.setdefault(inspection.digest, inspection.place)
        key = (inspection.file, inspection.sample_id)
        if first != inspection.place:
            found.append(_fault(inspection, "duplicate", f"same images and dialogue as {first}"))
        elif key in self.ids:
            message = f"an earlier record of the file has the id {inspection.sample_id}"
            found.append(_fault(inspection, "duplicate_id", message))
        self.ids.add(key)
        return found


def _fault(inspection: Inspection, kind: str, message: str) -> Fault:
    return Fault(kind, inspection.file, inspection.record, inspection.sample_id, message)


def _inspected(records: Iterable[Sample | Fault], inspector: Inspector, jobs: int) -> Iterator[Inspection]:
    """Yield the inspections in order; the records themselves are sent to the processes, so any iterator will do."""
    if jobs == 0:
        yield from map(inspector, records)
        return
    loader: DataLoader[Any] = DataLoader(
        _InspectedRecords(inspector), batch_size=_BATCH, sampler=_Records(records), num_workers=jobs, collate_fn=list
    )
    for batch in loader:
        yield from batch


class _InspectedRecords(Dataset[Inspection]):
    def __init__(self, inspector: Inspector) -> None:
        self.inspector = inspector

    def __getitem__(self, record: Any) -> Inspection:
        return self.inspector(record)


class _Records(torch.utils.data.Sampler[Any]):
    def __init__(self, records: Iterable[Sample | Fault]) -> None:
        self.records = records

    def __iter__(self) -> Iterator[Any]:
        return iter(self.records)
