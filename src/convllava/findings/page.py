"""The page of the findings: the paper's figures, ours next to them, a plot, and one sentence for each claim."""

import statistics
from collections.abc import Sequence
from pathlib import Path

from ..eval.paper import TABLES, run_of
from ..support import require, write_text
from .run import Measured, Result, Verdict


def write_page(results: Sequence[Result], folder: Path, command: str) -> list[Path]:
    """Write ``findings.md`` and a plot for each finding; return the paths, the page first.

    Args:
        results: Results of the findings.
        folder: Folder of the page.
        command: Command that made the results, for the head of the page.

    Raises:
        MissingPackageError: matplotlib is not installed.
    """
    plots = [folder / f"{result.name}.png" for result in results]
    for result, plot in zip(results, plots, strict=True):
        _plot(result, plot)
    sections = [_section(result) for result in results]
    head = f"# Findings\n\nMade by `{command}`. Figures are exact matches on held-out samples, in percent.\n"
    write_text(folder / "findings.md", "\n".join([head, *sections]))
    return [folder / "findings.md", *plots]


def _section(result: Result) -> str:
    finding = result.finding
    lines = [f"## {result.name}: {finding.title}", "", finding.paper, ""]
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
    """Plot the figures of the arms over their visual tokens: a panel for each benchmark, a mark for each seed."""
    figure_module = require("matplotlib.figure", extra="plots", purpose="plots")
    benchmarks = list(next(iter(result.arms.values()))[0].values)
    figure = figure_module.Figure(figsize=(4.5 * len(benchmarks), 4), layout="constrained")
    panels = figure.subplots(1, len(benchmarks), squeeze=False)[0]
    for axes, benchmark in zip(panels, benchmarks, strict=True):
        for number, (name, measured) in enumerate(result.arms.items()):
            color = f"C{number % 10}"
            values = [100 * one.values[benchmark] for one in measured]
            tokens = [one.visual_tokens for one in measured]
            axes.plot(tokens, values, linestyle="", marker=".", color=color)
            axes.plot(
                statistics.mean(tokens), statistics.mean(values), linestyle="", marker="o", color=color, label=name
            )
        axes.set_title(benchmark)
        axes.set_xlabel("visual tokens per sample")
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("exact match (%)")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize="small")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
