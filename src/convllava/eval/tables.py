"""Score files as the paper's tables, next to the paper's figures; written as Markdown, LaTeX or CSV."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from .paper import PRINTED_AVERAGES, SETTINGS_OF_TABLE_7, SQUARE, TABLE_5, TABLE_6, TABLE_7, TABLES, PaperTable
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
    """Return the paper's tables that have a score, and a table of all other benchmarks."""
    tables = []
    of_table_5 = [score for score in scores if not _is_of_table_7(score)]
    for table, shown in ((TABLE_5, of_table_5), (TABLE_6, scores)):
        if {score["benchmark"] for score in shown} & set(table.benchmarks):
            tables.append(_table(table, shown))
    aspects = [score for score in scores if _setting(score) is not None and score["benchmark"] in TABLE_7.benchmarks]
    if any(_setting(score) != SQUARE for score in aspects):
        tables.append(_table_7(aspects))
    known = {name for table in TABLES.values() for name in table.benchmarks}
    others = [score for score in scores if score["benchmark"] not in known]
    return tables + ([_others(others)] if others else [])


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


def _table(table: PaperTable, scores: Sequence[Mapping[str, Any]]) -> TextTable:
    with_average = table is TABLE_6
    rows = [_paper_row(name, figures, with_average) for name, figures in table.rows.items()]
    groups: dict[tuple[str, str], dict[str, Mapping[str, Any]]] = {}
    for score in scores:
        groups.setdefault((_model(score), score["folder"]), {})[score["benchmark"]] = score
    for (model, folder), by_benchmark in groups.items():
        found = [by_benchmark.get(name) for name in table.benchmarks]
        if any(found):
            name = model if folder in (".", "") else f"{model} ({folder})"
            rows.append(_measured_row(name, found, with_average))
    header = ["", "source", *table.columns, *(["Avg"] if with_average else [])]
    return TextTable(f"Table {table.number}: {table.title}", header, rows, [*table.notes, *_notes(scores, table)])


def _table_7(scores: Sequence[Mapping[str, Any]]) -> TextTable:
    rows = [_paper_row(name, figures, False) for name, figures in TABLE_7.rows.items()]
    for setting, name in zip(SETTINGS_OF_TABLE_7, TABLE_7.rows, strict=True):
        for model in dict.fromkeys(_model(score) for score in scores):
            by_benchmark = {s["benchmark"]: s for s in scores if _setting(s) == setting and _model(s) == model}
            if by_benchmark:
                found = [by_benchmark.get(benchmark) for benchmark in TABLE_7.benchmarks]
                rows.append(_measured_row(f"{model}, {name}", found, False))
    header = ["", "source", *TABLE_7.columns]
    return TextTable(f"Table 7: {TABLE_7.title}", header, rows, [*TABLE_7.notes, *_notes(scores, TABLE_7)])


def _others(scores: Sequence[Mapping[str, Any]]) -> TextTable:
    rows = []
    for score in scores:
        better = "higher" if score["higher_is_better"] else "lower"
        name = [_model(score), score["benchmark"], score["metric"]]
        rows.append([*name, f"{score['value']:.3f}", _interval(score, 3), str(score["samples"]), f"{better} is better"])
    header = ["model", "benchmark", "figure", "value", "95 % interval", "samples", ""]
    return TextTable("Other benchmarks", header, rows, [])


def _paper_row(name: str, figures: Sequence[float | None], with_average: bool) -> list[str]:
    cells = ["" if value is None else f"{value:g}" if value > 100 else f"{value:.1f}" for value in figures]
    if with_average:
        mean = sum(value for value in figures if value is not None) / len(figures)
        printed = PRINTED_AVERAGES[name]
        cells.append(f"{printed:.1f}" if f"{mean:.1f}" == f"{printed:.1f}" else f"{printed:.1f} [{mean:.1f}]")
    return [name, PAPER, *cells]


def _measured_row(name: str, scores: Sequence[Mapping[str, Any] | None], with_average: bool) -> list[str]:
    cells = ["" if score is None else _cell(score) for score in scores]
    if with_average:
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
