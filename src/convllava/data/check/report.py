"""What a check found, for people and for programs."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from ..faults import Fault
from .inspecting import Facts
from .preview import Piece

VERSION = 1
"""Of the report as JSON; grows when a key changes its meaning."""


@dataclass
class SourceReport:
    """Sums over one source.

    Attributes:
        records: That were looked at.
        usable: Of these, without errors.
        drawn: How often the run takes a sample of it; None outside a recipe.
    """

    name: str
    drawn: int | None = None
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
    previews: list[tuple[str, list[Piece]]] = field(default_factory=list)

    def add(self, facts: Facts) -> None:
        """Count one record."""
        self.records += 1
        self.errors += sum(fault.is_error for fault in facts.faults)
        self.warnings += sum(not fault.is_error for fault in facts.faults)
        self.images += len(facts.sizes)
        if facts.has_errors:
            return
        self.usable += 1
        self.text_tokens += facts.text_tokens
        self.visual_tokens += facts.visual_tokens
        self.supervised_tokens += facts.supervised_tokens
        if facts.tokens > self.longest:
            self.longest, self.longest_place = facts.tokens, facts.place
        if facts.pieces:
            self.previews.append((facts.place, facts.pieces))

    @property
    def supervised_in_run(self) -> float:
        """Supervised tokens that a run meets; outside a recipe, those of one pass."""
        if self.drawn is None or not self.usable:
            return float(self.supervised_tokens)
        return self.supervised_tokens / self.usable * self.drawn

    def as_json(self, supervised_in_all: float) -> dict[str, Any]:
        """Return what a program may read."""
        share = self.supervised_in_run / supervised_in_all if supervised_in_all else 0.0
        return {
            "name": self.name,
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
            "longest_row": {"tokens": self.longest, "place": self.longest_place},
        }


@dataclass
class Report:
    """What was found in all sources together; ``previews`` are for the eye and not part of the JSON."""

    max_length: int
    sources: list[SourceReport] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)

    @property
    def errors(self) -> int:
        """How many errors were found; a record may have several."""
        return sum(source.errors for source in self.sources)

    @property
    def warnings(self) -> int:
        """How many warnings there are."""
        return sum(source.warnings for source in self.sources)

    @property
    def counts(self) -> Counter[str]:
        """How often each kind of fault was found."""
        return Counter(fault.kind for fault in self.faults)

    def as_json(self) -> dict[str, Any]:
        """Return what a program may read."""
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
