"""The page of the findings: the paper's figures, ours next to them, a plot, and one sentence for each claim."""

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..eval.paper import TABLES, run_of
from ..support import require, write_text
from .catalog import Catalog
from .run import Measured, Result, Verdict

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def write_page(results: Sequence[Result], catalog: Catalog, folder: Path, command: str) -> list[Path]:
    """Write a section and a plot for each finding, and ``findings.md`` with the sections of all that were run so far.

    Args:
        results: Results of the findings.
        catalog: The catalog, in whose order the sections are.
        folder: Folder of the page.
        command: Command that made the results, for the sections.

    Returns:
        The paths, the page first.

    Raises:
        MissingPackageError: matplotlib is not installed.
    """
    written = []
    for result in results:
        written += [folder / f"{result.name}.md", folder / f"{result.name}.png"]
        write_text(written[-2], _section(result, command))
        _plot(result, written[-1])
    sections = [folder / f"{name}.md" for name in catalog.findings if (folder / f"{name}.md").is_file()]
    head = "# Findings\n\nFigures are exact matches on held-out samples, in percent.\n"
    write_text(folder / "findings.md", "\n".join([head, *(path.read_text(encoding="utf-8") for path in sections)]))
    return [folder / "findings.md", *written]


def _section(result: Result, command: str) -> str:
    finding = result.finding
    lines = [f"## {result.name}: {finding.title}", "", f"{finding.paper} Made by `{command}`.", ""]
    for verdict in result.verdicts:
        lines.append(f"- {sentence(verdict)}")
    if finding.missing:
        lines.append(f"- Not measured: {finding.missing}")
    lines += [
        "",
        *_paper_table(finding.rows),
        *_measured_table(result.arms),
        "",
        f"![{result.name}]({result.name}.png)",
    ]
    return "\n".join([*lines, ""])


def sentence(verdict: Verdict) -> str:
    """Return one sentence about whether a claim of the paper shows."""
    low, high = (100 * bound for bound in verdict.interval)
    return (
        f"{verdict.text}: **{verdict.shows}** on {verdict.benchmark}. {verdict.arm} against {verdict.than}: "
        f"{100 * verdict.difference:+.1f} points (95 %: {low:+.1f} to {high:+.1f})."
    )


def _paper_table(rows: Sequence[str]) -> list[str]:
    """Return the paper's rows as Markdown; empty without rows."""
    if not rows:
        return []
    tables = {row: TABLES[int(run_of(row).split("/")[0].removeprefix("table"))] for row in rows}
    columns = next(iter(tables.values())).columns
    lines = ["| paper | " + " | ".join(columns) + " |", "|---|" + "---|" * len(columns)]
    for row, table in tables.items():
        found = table.rows[run_of(row).split("/")[1]]
        figures = ["" if figure is None else f"{figure:g}" for figure in found.figures]
        lines.append("| " + " | ".join([f"Table {table.number}, {found.label}", *figures]) + " |")
    return [*lines, ""]


def _measured_table(arms: dict[str, list[Measured]]) -> list[str]:
    """Return the means over the seeds as Markdown, with the figure of each seed in brackets."""
    benchmarks = list(next(iter(arms.values()))[0].values)
    head = ["measured", *benchmarks, "visual tokens", "s / sample", "GFLOPs"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for name, measured in arms.items():
        cells = [name]
        for benchmark in benchmarks:
            values = [100 * one.values[benchmark] for one in measured]
            cells.append(f"{statistics.mean(values):.1f} ({', '.join(f'{value:.1f}' for value in values)})")
        cells.append(f"{statistics.mean(one.visual_tokens for one in measured):.1f}")
        cells.append(f"{statistics.mean(one.seconds for one in measured):.3f}")
        cells.append(f"{measured[0].gflops:.3g}")
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _plot(result: Result, path: Path) -> None:
    """Plot a panel for each benchmark, small marks for the seeds and a large one for their mean.

    Arms with three or more numbers of visual tokens are over these, as in the paper's Figure 3; others are in rows.
    """
    figure_module = require("matplotlib.figure", extra="plots", purpose="plots")
    benchmarks = list(next(iter(result.arms.values()))[0].values)
    by_tokens = len({round(one.visual_tokens) for measured in result.arms.values() for one in measured}) >= 3
    figure = figure_module.Figure(figsize=(4.5 * len(benchmarks), 4), layout="constrained")
    panels = figure.subplots(1, len(benchmarks), squeeze=False, sharey=not by_tokens)[0]
    for axes, benchmark in zip(panels, benchmarks, strict=True):
        for number, (name, measured) in enumerate(result.arms.items()):
            values = [100 * one.values[benchmark] for one in measured]
            places = [one.visual_tokens for one in measured] if by_tokens else [-float(number)] * len(measured)
            seeds, mean = (places, values), ([statistics.mean(places)], [statistics.mean(values)])
            for (x, y), marker in ((seeds, "."), (mean, "o")):
                first, second = (x, y) if by_tokens else (y, x)
                axes.plot(first, second, linestyle="", marker=marker, color=f"C{number % 10}", label=name)
        if by_tokens:
            _join(axes, result, benchmark)
        axes.set_title(benchmark)
        axes.grid(alpha=0.3)
        axes.set_xlabel("visual tokens per sample" if by_tokens else "exact match (%)")
        (axes.set_ylim if by_tokens else axes.set_xlim)(-3, 103)
    if by_tokens:
        panels[0].set_ylabel("exact match (%)")
        handles = dict(zip(*reversed(panels[0].get_legend_handles_labels()), strict=True))
        figure.legend(list(handles.values()), list(handles), loc="outside lower center", ncols=3, fontsize="small")
    else:
        panels[0].set_yticks([-number for number in range(len(result.arms))], list(result.arms))
        panels[0].set_ylim(0.5 - len(result.arms), 0.5)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


def _join(axes: "Axes", result: Result, benchmark: str) -> None:
    """Join the means of arms with the same line, fewest visual tokens first."""
    lines: dict[str, list[tuple[float, float]]] = {}
    for name, arm in result.finding.arms.items():
        if arm.line:
            measured = result.arms[name]
            tokens = statistics.mean(one.visual_tokens for one in measured)
            mean = 100 * statistics.mean(one.values[benchmark] for one in measured)
            lines.setdefault(arm.line, []).append((tokens, mean))
    for number, points in enumerate(lines.values()):
        tokens_of, means = zip(*sorted(points), strict=True)
        axes.plot(tokens_of, means, color="gray", linestyle=("-", "--", ":", "-.")[number % 4], zorder=0)
