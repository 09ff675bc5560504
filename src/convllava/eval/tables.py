"""Score files as the paper's tables, next to the paper's figures; written as Markdown, LaTeX or CSV."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from .paper import (
    SETTINGS_OF_TABLE_7,
    TABLE_5,
    TABLE_6,
    TABLE_7,
    TABLES,
    PaperRow,
    PaperTable,
    rows_of,
    run_of,
)
from .predictions import RUN, find_mismatch

PAPER = "paper"

_SCORE = {
    "benchmark": str,
    "metric": str,
    "value": float | int,
    "interval": [float | int],
    "higher_is_better": bool,
    "samples": int,
    "warnings": [str],
}
"""Types in a score file, as far as they are used."""


@dataclass(frozen=True)
class TextTable:
    """A table of texts, ready to be written."""

    title: str
    header: list[str]
    rows: list[list[str]]
    notes: list[str]


def read_scores(folder: Path) -> list[dict[str, Any]]:
    """Return the content of all score files below a folder, each with its relative ``folder``.

    Raises:
        ValueError: There are none, or one is damaged.
    """
    scores = []
    for path in sorted(folder.rglob("*.score.json")):
        try:
            score = json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path} is not a score file ({error}): score its predictions again") from error
        has_run = isinstance(score, dict) and score.get("run") is not None
        fault = find_mismatch(score, {**_SCORE, "run": RUN} if has_run else _SCORE)
        if fault is not None or len(score["interval"]) != 2:
            raise ValueError(
                f"{path} is not a score file ({fault or 'interval'} is missing or invalid): score its predictions again"
            )
        scores.append({"folder": path.parent.relative_to(folder).as_posix(), **score})
    if not scores:
        raise ValueError(f"there are no score files (NAME.score.json) below {folder}")
    return scores


def make_tables(scores: Sequence[Mapping[str, Any]]) -> list[TextTable]:
    """Return the paper's tables that have a score, and a table of all other benchmarks.

    A score in a folder ``SUITE/ROW``, where ``eval run --suite SUITE --row ROW`` puts it, is below the paper's row. A
    score in another folder is at the end of Table 5 or 6.
    """
    tables = [laid for table in TABLES.values() if (laid := _table(table, scores)) is not None]
    known = {name for table in TABLES.values() for name in table.benchmarks}
    others = [score for score in scores if score["benchmark"] not in known]
    return tables + ([_others(others)] if others else [])


def paper_run(score: Mapping[str, Any]) -> str | None:
    """Return the paper's training run that the folder of a score names, as ``tableN/ROW``, or None."""
    parts = PurePosixPath(score["folder"]).parts
    if len(parts) < 2 or parts[-1] not in rows_of(parts[-2]):
        return None
    return run_of("/".join(parts[-2:]))


def _is_of_table_7(score: Mapping[str, Any]) -> bool:
    """Return whether ``--suite table7`` made a score: its folder has the name of its image setting."""
    return PurePosixPath(score["folder"]).name == _setting(score) and score["benchmark"] in TABLE_7.benchmarks


def _setting(score: Mapping[str, Any]) -> str | None:
    """Return the image setting of Table 7 that a score's protocol has, or None."""
    image = (score.get("run") or {"protocol": {"image": {}}})["protocol"]["image"]
    shown = {"max_visual_tokens": None} | image
    for name, wanted in SETTINGS_OF_TABLE_7.items():
        if shown["max_visual_tokens"] is None and all(image.get(key) == value for key, value in wanted.items()):
            return name
    return None


def _table(table: PaperTable, scores: Sequence[Mapping[str, Any]]) -> TextTable | None:
    if table is TABLE_7:
        return _table_7(scores)
    shown = [score for score in scores if score["benchmark"] in table.benchmarks and not _is_of_table_7(score)]
    with_mean = bool(table.mean_heading)
    rows, measured = [], []
    for name, row in table.rows.items():
        found = [score for score in shown if paper_run(score) == run_of(f"{table.name}/{name}")]
        measured += found
        rows += [_paper_row(row, with_mean), *_measured_rows(table, found, in_folder=False)]
    if table in (TABLE_5, TABLE_6):
        elsewhere = [score for score in shown if paper_run(score) is None]
        measured += elsewhere
        rows += _measured_rows(table, elsewhere, in_folder=True)
    if not measured:
        return None
    header = ["", "source", *table.columns, *([table.mean_heading] if with_mean else [])]
    return TextTable(f"Table {table.number}: {table.title}", header, rows, [*table.notes, *_notes(measured, table)])


def _measured_rows(table: PaperTable, scores: Sequence[Mapping[str, Any]], *, in_folder: bool) -> list[list[str]]:
    """Return a row for each model and folder; ``in_folder`` names the folder too."""
    groups: dict[tuple[str, str], dict[str, Mapping[str, Any]]] = {}
    for score in scores:
        groups.setdefault((_model(score), score["folder"]), {})[score["benchmark"]] = score
    rows = []
    for (model, folder), by_benchmark in groups.items():
        name = f"{model} ({folder})" if in_folder and folder not in (".", "") else model
        found = [by_benchmark.get(benchmark) for benchmark in table.benchmarks]
        rows.append(_measured_row(name, found, bool(table.mean_heading)))
    return rows


def _table_7(scores: Sequence[Mapping[str, Any]]) -> TextTable | None:
    """Return Table 7 if a score has one of its settings with the image's own aspect ratio."""
    shown = [score for score in scores if _setting(score) is not None and score["benchmark"] in TABLE_7.benchmarks]
    square, *_ = SETTINGS_OF_TABLE_7
    if all(_setting(score) == square for score in shown):
        return None
    rows = [_paper_row(row, False) for row in TABLE_7.rows.values()]
    for setting, row in TABLE_7.rows.items():
        for model in dict.fromkeys(_model(score) for score in shown):
            by_benchmark = {s["benchmark"]: s for s in shown if _setting(s) == setting and _model(s) == model}
            if by_benchmark:
                found = [by_benchmark.get(benchmark) for benchmark in TABLE_7.benchmarks]
                rows.append(_measured_row(f"{model}, {row.label}", found, False))
    header = ["", "source", *TABLE_7.columns]
    return TextTable(f"Table 7: {TABLE_7.title}", header, rows, [*TABLE_7.notes, *_notes(shown, TABLE_7)])


def _others(scores: Sequence[Mapping[str, Any]]) -> TextTable:
    rows = []
    for score in scores:
        better = "higher" if score["higher_is_better"] else "lower"
        name = [_model(score), score["benchmark"], score["metric"]]
        rows.append([*name, f"{score['value']:.3f}", _interval(score, 3), str(score["samples"]), f"{better} is better"])
    header = ["model", "benchmark", "figure", "value", "95 % interval", "samples", ""]
    return TextTable("Other benchmarks", header, rows, [])


def _paper_row(row: PaperRow, with_mean: bool) -> list[str]:
    cells = ["" if value is None else f"{value:g}" if value > 100 else f"{value:.1f}" for value in row.figures]
    if with_mean and row.printed_mean is not None:
        mean = sum(value for value in row.figures if value is not None) / len(row.figures)
        follows = abs(mean - row.printed_mean) < 0.051
        cells.append(f"{row.printed_mean:.1f}" if follows else f"{row.printed_mean:.1f} [{mean:.1f}]")
    return [row.label, PAPER, *cells]


def _measured_row(name: str, scores: Sequence[Mapping[str, Any] | None], with_mean: bool) -> list[str]:
    cells = ["" if score is None else _cell(score) for score in scores]
    if with_mean:
        values = [score["value"] for score in scores if score is not None]
        cells.append(f"{sum(values) / len(values):.1f}" if len(values) == len(scores) else "")
    return [name, "measured", *cells]


def _cell(score: Mapping[str, Any]) -> str:
    partial = "*" if score["warnings"] else ""
    digits = 0 if score["value"] > 100 else 1
    return f"{score['value']:.{digits}f} {_interval(score, digits)}{partial}"


def _interval(score: Mapping[str, Any], digits: int) -> str:
    low, high = score["interval"]
    return f"({low:.{digits}f} to {high:.{digits}f})"


def _model(score: Mapping[str, Any]) -> str:
    return str(score["run"]["model"]["name"]) if score.get("run") else "unknown model"


def _notes(scores: Sequence[Mapping[str, Any]], table: PaperTable) -> list[str]:
    return [
        f"* {score['folder']}/{score['benchmark']}: {warning}"
        for score in scores
        if score["benchmark"] in table.benchmarks
        for warning in score["warnings"]
    ]


def as_markdown(tables: Sequence[TextTable]) -> str:
    """Write tables as Markdown."""
    return "\n".join(_markdown(table) for table in tables)


def _markdown(table: TextTable) -> str:
    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    ruler = "|" + "---|" * len(table.header)
    body = [line(table.header), ruler, *map(line, table.rows)]
    notes = [f"- {note}" for note in table.notes]
    return "\n".join([f"## {table.title}", "", *body, "", *notes, ""])


def as_csv(tables: Sequence[TextTable]) -> str:
    """Write tables as CSV, one below the other, each below a line with its title."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    for table in tables:
        writer.writerows([[table.title], table.header, *table.rows, *([note] for note in table.notes), []])
    return stream.getvalue()


_LATEX = str.maketrans(
    {c: f"\\{c}" for c in "&%$#_{}"}
    | {"~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "\\": r"\textbackslash{}"}
)


def as_latex(tables: Sequence[TextTable]) -> str:
    """Write tables as LaTeX (needs booktabs)."""
    return "\n".join(_latex(table) for table in tables)


def _latex(table: TextTable) -> str:
    def line(cells: Sequence[str]) -> str:
        return " & ".join(cell.translate(_LATEX) for cell in cells) + r" \\"

    notes = " ".join(note.translate(_LATEX) for note in table.notes)
    return "\n".join(
        [
            r"\begin{table}",
            rf"\caption{{{table.title.translate(_LATEX)}. {notes}}}",
            rf"\begin{{tabular}}{{ll{'r' * (len(table.header) - 2)}}}",
            r"\toprule",
            line(table.header),
            r"\midrule",
            *map(line, table.rows),
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


WRITERS = {"markdown": as_markdown, "latex": as_latex, "csv": as_csv}
