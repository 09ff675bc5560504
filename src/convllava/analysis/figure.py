"""The paper's Figure 2, counted: CSV, PNG and SVG."""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..support import require
from .systems import FIGURE_2_LINES, FIGURE_2_RESOLUTIONS, claims

COLORS = {"ViT-L": "#c0392b", "ConvNeXt-L": "#2c5fa8", "ConvNeXt-L, five stages": "#2e8b57"}
"""Colors of the lines, as in the paper."""


def figure_2_points() -> list[dict[str, Any]]:
    """Return the points of the figure: FLOPs of encoder, projector and prefill without text."""
    return [
        {
            "encoder": name,
            "resolution": system.resolution,
            "visual_tokens": system.visual_tokens,
            "vision_tflops": system.vision.flops / 1e12,
            "language_model_tflops": system.prefill().flops / 1e12,
            "total_tflops": system.flops() / 1e12,
        }
        for name, system in _systems()
    ]


def _systems() -> Iterator[tuple[str, Any]]:
    for name, build in FIGURE_2_LINES:
        yield from ((name, build(resolution)) for resolution in FIGURE_2_RESOLUTIONS)


def write_figure_2(folder: Path) -> list[Path]:
    """Write figure2.csv, figure2.png and figure2.svg and return their paths.

    Raises:
        MissingPackageError: matplotlib is not installed.
        OSError: The folder cannot be written.
    """
    matplotlib = require("matplotlib", extra="plots", purpose="figures")
    matplotlib.use("Agg")
    folder.mkdir(parents=True, exist_ok=True)
    rows = figure_2_points()
    table, *images = (folder / f"figure2.{ending}" for ending in ("csv", "png", "svg"))
    write_csv(table, rows)
    with matplotlib.rc_context({"svg.hashsalt": "convllava"}):  # the same file for the same numbers
        drawing = _draw(rows)
        for path in images:
            drawing.savefig(path, dpi=160, metadata={"Date": None} if path.suffix == ".svg" else {})
    return [table, *images]


def write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write records as CSV, with the keys of the first one as header."""
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def _draw(rows: list[dict[str, Any]]) -> Any:
    from matplotlib.figure import Figure

    drawing = Figure(figsize=(7.2, 4.6), layout="constrained")
    axes = drawing.add_subplot()
    for name, color in COLORS.items():
        line = [row for row in rows if row["encoder"] == name]
        sides, flops = ([row[key] for row in line] for key in ("resolution", "total_tflops"))
        axes.plot(sides, flops, "o-", color=color, label=name)
        for side, value in zip(sides, flops, strict=True):
            axes.annotate(f"{value:.1f}", (side, value), (0, 6), textcoords="offset points", ha="center", fontsize=8)
    axes.set_yscale("log")
    axes.set_xticks(FIGURE_2_RESOLUTIONS)
    axes.set_xlabel("input resolution (pixels)")
    axes.set_ylabel("TFLOPs to the first token, without text")
    axes.set_title("Vision encoder, projector and Vicuna-7B prefill; 1 MAC = 2 FLOPs", fontsize=10)
    axes.grid(alpha=0.3, which="both")
    axes.legend(loc="upper left")
    axes.text(0.98, 0.03, _remarks(), transform=axes.transAxes, ha="right", va="bottom", fontsize=7)
    return drawing


def _remarks() -> str:
    return "\n".join(f"{claim.text}: counted {claim.counted}; paper {claim.paper}" for claim in claims()[:2])
