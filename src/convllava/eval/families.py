"""Figure 3 of the paper: families of separately trained models, a line each, over the number of visual tokens."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..support import require
from .paper import FIGURE_3_BENCHMARKS, FIGURE_3_FAMILIES, TABLES, row_of, run_of
from .tables import paper_run

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLORS = {"four stages": "tab:blue", "five stages": "tab:green"}
"""Colors of the lines, those of the paper."""


@dataclass(frozen=True)
class FamilyPoint:
    """One model of a family on one benchmark.

    Attributes:
        visual_tokens: Number of visual tokens of an image.
        value: The figure, in percent.
        label: Text at the point: the resolution.
        interval: 95 % interval of a measured figure; None for one of the paper.
    """

    visual_tokens: float
    value: float
    label: str
    interval: tuple[float, float] | None = None


def figure_3_paper(benchmark: str) -> dict[str, list[FamilyPoint]]:
    """Return the paper's points of one panel by family, fewest visual tokens first."""
    families = {}
    for family, names in FIGURE_3_FAMILIES.items():
        points = []
        for name in names:
            run = run_of(f"figure3/{name}")
            table = TABLES[int(run.split("/")[0].removeprefix("table"))]
            row = row_of(run)
            value = row.figures[table.benchmarks.index(benchmark)]
            points.append(FamilyPoint(row.visual_tokens or 0, value or 0.0, name.rsplit("-", 1)[-1]))
        families[family] = points
    return families


def figure_3_measured(scores: Sequence[Mapping[str, Any]], benchmark: str) -> dict[str, list[FamilyPoint]]:
    """Return the measured points of one panel by family, from scores in folders of Figure 3's rows.

    Args:
        scores: Scores as `read_scores` returns them.
        benchmark: Benchmark of the panel.

    Raises:
        ValueError: Two different models are at the same point.
    """
    found: dict[str, Mapping[str, Any]] = {}
    for score in scores:
        run = paper_run(score)
        if run is None or score["benchmark"] != benchmark:
            continue
        other = found.setdefault(run, score)
        if other["value"] != score["value"]:
            raise ValueError(
                f"{other['folder']} and {score['folder']} are the same point of Figure 3 ({benchmark} "
                f"{other['value']:.1f} and {score['value']:.1f}): move one of them"
            )
    families: dict[str, list[FamilyPoint]] = {}
    for family, names in FIGURE_3_FAMILIES.items():
        for name in names:
            run = run_of(f"figure3/{name}")
            if run in found:
                low, high = found[run]["interval"]
                tokens = row_of(run).visual_tokens or 0
                point = FamilyPoint(tokens, found[run]["value"], name.rsplit("-", 1)[-1], (low, high))
                families.setdefault(family, []).append(point)
    return families


def plot_figure_3(scores: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Plot Figure 3: the paper's lines dashed, measured ones solid with their intervals.

    Args:
        scores: Scores as `read_scores` returns them.
        path: File to write, PNG or SVG.

    Raises:
        ValueError: No score belongs to Figure 3, or two belong to the same point.
        MissingPackageError: matplotlib is not installed.
    """
    measured = {benchmark: figure_3_measured(scores, benchmark) for benchmark in FIGURE_3_BENCHMARKS}
    if not any(measured.values()):
        raise ValueError("no score belongs to Figure 3: run convllava eval run MODEL --suite figure3 --row ROW")
    figure = require("matplotlib.figure", extra="plots", purpose="plots").Figure(figsize=(9, 4.5), layout="constrained")
    panels = figure.subplots(1, len(FIGURE_3_BENCHMARKS))
    for axes, (benchmark, title) in zip(panels, FIGURE_3_BENCHMARKS.items(), strict=True):
        for family, points in figure_3_paper(benchmark).items():
            _draw(axes, f"{family}, paper", points, _COLORS[family], dashed=True)
        for family, points in measured[benchmark].items():
            _draw(axes, f"{family}, measured", points, _COLORS[family], dashed=False)
        _label(axes, title, [*figure_3_paper(benchmark).values(), *measured[benchmark].values()])
    handles = {text: handle for axes in panels for handle, text in _legend(axes)}
    figure.legend(list(handles.values()), list(handles), loc="outside lower center", ncols=2, fontsize="small")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


def _draw(axes: "Axes", name: str, points: Sequence[FamilyPoint], color: str, *, dashed: bool) -> None:
    tokens, values = [point.visual_tokens for point in points], [point.value for point in points]
    intervals = [point.interval or (point.value, point.value) for point in points]
    errors = [
        [max(0.0, value - low) for value, (low, _) in zip(values, intervals, strict=True)],
        [max(0.0, high - value) for value, (_, high) in zip(values, intervals, strict=True)],
    ]
    axes.errorbar(
        tokens,
        values,
        yerr=None if dashed else errors,
        capsize=3,
        marker="o",
        markerfacecolor="white" if dashed else color,
        linestyle="--" if dashed else "-",
        color=color,
        label=name,
    )
    for point in points if dashed else []:  # a measured point is at the same number of tokens in the same color
        axes.annotate(
            point.label,
            (point.visual_tokens, point.value),
            (8, 0),
            textcoords="offset points",
            color=color,
            va="center",
            fontsize="small",
        )


def _label(axes: "Axes", title: str, lines: Sequence[Sequence[FamilyPoint]]) -> None:
    """Set title, ticks at the numbers of tokens that occur, and room for the labels."""
    axes.set_title(title)
    axes.set_xlabel("visual tokens")
    axes.set_ylabel(f"{title} accuracy (%)" if title == "SEEDBench" else f"{title} ANLS (%)")
    axes.set_xticks(sorted({point.visual_tokens for line in lines for point in line}))
    axes.margins(x=0.15, y=0.1)
    axes.grid(alpha=0.3)


def _legend(axes: "Axes") -> Iterator[tuple[Any, str]]:
    handles, names = axes.get_legend_handles_labels()
    return zip(handles, names, strict=True)
