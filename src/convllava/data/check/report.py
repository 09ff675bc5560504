"""The findings of a check, for display and as JSON."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from ..faults import Fault
from .inspector import Inspection
from .preview import Span

VERSION = 1
"""Version of the JSON report; incremented when a key changes its meaning."""


@dataclass
class SourceReport:
    """Sums over one source.

    Attributes:
        name: The source's name or path.
        drawn: Samples that the run takes from it; None outside a recipe.
        format: Title of the format of its records; empty for sources without one.
        records: Number of inspected records.
        usable: Number of records without errors.
        distinct_images: Number of images that differ from each other.
        longest: Tokens of the longest usable sample.
        longest_place: File, record and id of that sample.
        previews: Place and spans of the first samples, for display.
    """

    name: str
    drawn: int | None = None
    format: str = ""
    records: int = 0
    usable: int = 0
    images: int = 0
    distinct_images: int = 0
    text_tokens: int = 0
    visual_tokens: int = 0
    supervised_tokens: int = 0
    longest: int = 0
    longest_place: str = ""
    errors: int = 0
    warnings: int = 0
    previews: list[tuple[str, list[Span]]] = field(default_factory=list)

    def add(self, inspection: Inspection) -> None:
        """Count one record."""
        self.records += 1
        self.errors += sum(fault.is_error for fault in inspection.faults)
        self.warnings += sum(not fault.is_error for fault in inspection.faults)
        self.images += len(inspection.sizes)
        if inspection.has_errors:
            return
        self.usable += 1
        self.text_tokens += inspection.text_tokens
        self.visual_tokens += inspection.visual_tokens
        self.supervised_tokens += inspection.supervised_tokens
        if inspection.tokens > self.longest:
            self.longest, self.longest_place = inspection.tokens, inspection.place
        if inspection.spans:
            self.previews.append((inspection.place, inspection.spans))

    @property
    def supervised_in_run(self) -> float:
        """Supervised tokens in the samples that a run draws; outside a recipe, in one pass."""
        if self.drawn is None or not self.usable:
            return float(self.supervised_tokens)
        return self.supervised_tokens / self.usable * self.drawn

    def as_json(self, supervised_in_all: float) -> dict[str, Any]:
        """Return the report of this source for programs."""
        share = self.supervised_in_run / supervised_in_all if supervised_in_all else 0.0
        return {
            "name": self.name,
            "format": self.format,
            "records": self.records,
            "usable": self.usable,
            "errors": self.errors,
            "warnings": self.warnings,
            "drawn": self.drawn,
            "images": self.images,
            "distinct_images": self.distinct_images,
            "text_tokens": self.text_tokens,
            "visual_tokens": self.visual_tokens,
            "supervised_tokens": self.supervised_tokens,
            "share_of_supervised_tokens": share,
            "longest_sample": {"tokens": self.longest, "place": self.longest_place},
        }


@dataclass
class Report:
    """The findings in all sources together.

    Attributes:
        max_length: Maximum number of tokens of a sample that the check allowed.
        sources: The sums over each source.
        faults: All faults in order.
    """

    max_length: int
    sources: list[SourceReport] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)

    @property
    def errors(self) -> int:
        """Number of errors; a record may have several."""
        return sum(source.errors for source in self.sources)

    @property
    def warnings(self) -> int:
        """Number of warnings."""
        return sum(source.warnings for source in self.sources)

    @property
    def counts(self) -> Counter[str]:
        """Number of faults of each kind."""
        return Counter(fault.kind for fault in self.faults)

    def as_json(self) -> dict[str, Any]:
        """Return the report for programs; previews are left out."""
        supervised = sum(source.supervised_in_run for source in self.sources)
        return {
            "version": VERSION,
            "errors": self.errors,
            "warnings": self.warnings,
            "max_length": self.max_length,
            "counts": dict(self.counts),
            "sources": [source.as_json(supervised) for source in self.sources],
            "faults": [{"severity": "error" if fault.is_error else "warning", **vars(fault)} for fault in self.faults],
        }
