"""The printed report of ``convllava data check``."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from .options import console, printable
from .tables import Column, print_table

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from ..data.check import CleanCopy, Report
    from ..data.check.preview import Span

PIPED_WIDTH = 120

STYLES = {"shown": "dim", "supervised": "bold green", "image": "cyan"}


def print_report(report: "Report", cleaned: "CleanCopy | None", image_folder: Path | None) -> None:
    """Print previews, the sums over each source, the findings and the ways out."""
    shown = report_console()
    for source in report.sources:
        for place, spans in source.previews:
            shown.print(place, style="bold")
            shown.print(colored(spans, marked=not shown.is_terminal), "", sep="\n")
    if any(source.previews for source in report.sources):
        shown.print(_legend(marked=not shown.is_terminal), "", sep="\n")
    for source in report.sources:
        if source.format:
            shown.print(f"{source.name}: {source.format}, {_plural(source.records, 'record')}", soft_wrap=True)
    _print_sources(shown, report)
    if report.faults:
        _print_findings(shown, report)
    shown.print(_verdict(report))
    if cleaned is not None:
        shown.print(_about_copy(cleaned, image_folder), soft_wrap=True)


def report_console() -> "Console":
    """Return a console whose tables are not squeezed into 80 columns when the output is a file or a pipe."""
    made = console()
    return made if made.is_terminal else console(width=PIPED_WIDTH)


def colored(spans: "Iterable[Span]", *, marked: bool) -> "Text":
    """Return a sample's text with the supervised spans colored, or marked where there are no colors."""
    from rich.text import Text

    text = Text()
    for span in spans:
        shown = printable(span.text)
        if span.kind == "image":
            shown = f"[{shown}]"
        elif span.kind == "supervised" and marked:
            shown = f"⟦{shown}⟧"
        text.append(shown, STYLES[span.kind])
    return text


def _legend(*, marked: bool) -> "Text":
    from rich.text import Text

    learned = "⟦learned⟧" if marked else "learned"
    return Text.assemble("(", (learned, STYLES["supervised"]), ", ", ("only shown", STYLES["shown"]), ")")


def _print_sources(console: "Console", report: "Report") -> None:
    supervised = sum(source.supervised_in_run for source in report.sources)
    in_run = any(source.drawn is not None for source in report.sources)
    columns = [
        Column("source", words=True),
        Column("records"),
        Column("usable"),
        *([Column("drawn", rank=2)] if in_run else []),
        Column("images", rank=3),
        Column("text tokens", rank=4),
        Column("visual tokens", rank=1),
        Column("supervised tokens"),
        Column("share of supervised" + " in the run" * in_run, rank=6),
        Column("longest sample", rank=5),
    ]
    rows = []
    for source in report.sources:
        share = source.supervised_in_run / supervised if supervised else 0.0
        numbers = [source.records, source.usable, *([source.drawn or 0] if in_run else []), source.images]
        numbers += [source.text_tokens, source.visual_tokens, source.supervised_tokens]
        rows.append([source.name, *(f"{number:,}" for number in numbers), f"{share:.1%}", f"{source.longest:,}"])
    print_table(console, "Sources", columns, rows)


def _print_findings(console: "Console", report: "Report") -> None:
    from rich.text import Text

    from ..data.faults import ERRORS, WARNINGS

    columns = [Column("", words=True), Column("finding", words=True), Column("count"), Column("first", words=True)]
    counts = report.counts
    rows: list[list[str | Text]] = []
    for kinds, severity, style in ((ERRORS, "error", "red"), (WARNINGS, "warning", "yellow")):
        for kind in (kind for kind in kinds if counts[kind]):
            first = next(fault for fault in report.faults if fault.kind == kind)
            found = " ".join(str(first).split())
            rows.append([Text(severity, style), kinds[kind], f"{counts[kind]:,}", found])
    print_table(console, "Findings", columns, rows)


def _verdict(report: "Report") -> "Text":
    from rich.text import Text

    records = sum(source.records for source in report.sources)
    found = (
        f"{_plural(report.errors, 'error')} and {_plural(report.warnings, 'warning')} in {_plural(records, 'record')}."
    )
    if not report.errors:
        return Text(found, "green")
    return Text.assemble(
        (found, "red"),
        " Training stops at the errors unless its recipe says 'on_bad_sample: skip'; --clean writes a copy without "
        "them, --report lists them all.",
    )


def _plural(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'s' * (number != 1)}"


def _about_copy(cleaned: "CleanCopy", image_folder: Path | None) -> str:
    repaired = f", {cleaned.repaired:,} of them with turns cut off" if cleaned.repaired else ""
    where = f"; its images are in {image_folder}" if image_folder else ""
    return f"{cleaned.path}: {cleaned.kept:,} records kept{repaired}, {cleaned.dropped:,} left out{where}."
