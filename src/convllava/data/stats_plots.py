"""Statistics of a data set as plots and an HTML page."""

import base64
import html
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from ..support import require
from .stats import PolicyTokens, Statistics, summary

BLUE, GREEN, GRAY = "#2c5fa8", "#2e8b57", "#8a8f98"

WIDEST = 16.0
"""Aspect ratio beyond which images are counted in the outermost bins."""

_RATIO_TICKS = {
    1 / 16: "1:16",
    1 / 8: "1:8",
    1 / 4: "1:4",
    1 / 2: "1:2",
    1: "1:1",
    2: "2:1",
    4: "4:1",
    8: "8:1",
    16: "16:1",
}


def write_plots(folder: Path, statistics: Statistics, by_policy: Sequence[PolicyTokens], title: str) -> list[Path]:
    """Write aspect_ratios.png, resolutions.png, visual_tokens.png, text_lengths.png and index.html with all of them.

    Raises:
        MissingPackageError: matplotlib is not installed.
        ValueError: There is no image to plot.
    """
    if not statistics.images:
        raise ValueError(f"{title} has no readable images: there is nothing to plot")
    require("matplotlib", extra="plots", purpose="plots")
    folder.mkdir(parents=True, exist_ok=True)
    drawings = {
        "aspect_ratios.png": _figure(lambda axes: _draw_ratios(axes, statistics), (7.2, 3.6)),
        "resolutions.png": _figure(lambda axes: _draw_sizes(axes, statistics), (7.2, 5.0)),
        "visual_tokens.png": _figure(lambda axes: _draw_tokens(axes, by_policy), (7.2, 1.4 + 0.36 * len(by_policy))),
        "text_lengths.png": _figure(lambda axes: _draw_texts(axes, statistics), (7.2, 3.2)),
    }
    written = []
    for name, data in drawings.items():
        (folder / name).write_bytes(data)
        written.append(folder / name)
    page = folder / "index.html"
    page.write_text(_page(drawings, statistics, by_policy, title), encoding="utf-8")
    return [*written, page]


def _figure(draw: Callable[[Any], None], size: tuple[float, float]) -> bytes:
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    draw(figure.add_subplot())
    stream = BytesIO()
    figure.savefig(stream, format="png", dpi=120, metadata={"Software": None})
    return stream.getvalue()


def _draw_ratios(axes: Any, statistics: Statistics) -> None:
    ratios = statistics.per_image(lambda height, width: width / height).clip(1 / WIDEST, WIDEST)
    low, high = min(ratios.min(), 1 / 2), max(ratios.max(), 2)
    axes.hist(ratios, bins=np.geomspace(low / 1.05, high * 1.05, 48), color=BLUE)
    axes.set_xscale("log")
    ticks = {tick: name for tick, name in _RATIO_TICKS.items() if low / 1.05 <= tick <= high * 1.05}
    axes.set_xticks(list(ticks), list(ticks.values()))
    axes.minorticks_off()
    axes.axvline(1, color=GRAY, linewidth=1, linestyle="--")
    _count_axis(axes)
    _label(axes, "width : height", "images", "Aspect ratios; those beyond 1:16 and 16:1 in the outermost bins")


def _draw_sizes(axes: Any, statistics: Statistics) -> None:
    heights, widths, counts = (
        np.array(column, dtype=float)
        for column in zip(*((*size, n) for size, n in statistics.sizes.items()), strict=True)
    )
    areas = 10 + 200 * np.sqrt(counts / counts.sum())
    axes.scatter(widths, heights, s=areas, alpha=0.45, color=BLUE, linewidth=0)
    low, high = min(heights.min(), widths.min(), 512) / 1.3, max(heights.max(), widths.max(), 1536) * 1.3
    for side in (768, 1024, 1536):
        axes.plot([low, side, side], [side, side, low], color=GRAY, linewidth=0.8)
        axes.annotate(f"{side} ", (low, side), (3, 2), textcoords="offset points", fontsize=7, color=GRAY)
    for set_scale, set_limits, axis in (
        (axes.set_xscale, axes.set_xlim, axes.xaxis),
        (axes.set_yscale, axes.set_ylim, axes.yaxis),
    ):
        set_scale("log")
        set_limits(low, high)
        axis.set_major_formatter(_plain_number)
    axes.set_aspect("equal")
    _label(axes, "width (pixels)", "height (pixels)", "Resolutions; area: number of images; gray: the paper's squares")


def _draw_tokens(axes: Any, by_policy: Sequence[PolicyTokens]) -> None:
    shown = [found for found in by_policy if len(found.tokens)]
    axes.boxplot(
        [found.tokens for found in shown],
        orientation="horizontal",
        tick_labels=[found.name for found in shown],
        whis=(5, 95),
        showfliers=False,
        widths=0.55,
        patch_artist=True,
        boxprops={"facecolor": "#cfe0f5", "edgecolor": BLUE},
        medianprops={"color": GREEN, "linewidth": 2},
        whiskerprops={"color": BLUE},
        capprops={"color": BLUE},
    )
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlim(left=max(0.8, axes.get_xlim()[0]))
    axes.xaxis.set_major_formatter(_plain_number)
    axes.set_yticks(axes.get_yticks())
    _label(axes, "visual tokens per image", "", "Boxes: the middle half; whiskers: 5 % to 95 %; green: the median")


def _draw_texts(axes: Any, statistics: Statistics) -> None:
    lengths = np.array(statistics.text_lengths, dtype=float)
    axes.hist(np.clip(lengths, 1, None), bins=np.geomspace(1, max(lengths.max(), 10) * 1.05, 48), color=GREEN)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(_plain_number)
    _count_axis(axes)
    _label(axes, "characters of a dialogue", "samples", "Text lengths")


def _plain_number(value: float, _: int) -> str:
    return f"{value:g}"


def _count_axis(axes: Any) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.yaxis.set_major_locator(MaxNLocator(integer=True))


def _label(axes: Any, x: str, y: str, title: str) -> None:
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.set_title(title, fontsize=10)
    axes.grid(alpha=0.25)
    axes.set_axisbelow(True)


_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #1c2026 }
table { border-collapse: collapse; margin: 1rem 0 }
th, td { padding: .25rem .7rem; text-align: right; border-bottom: 1px solid #dfe3e8 }
th:first-child, td:first-child { text-align: left }
img { max-width: 100% }
"""


def _page(drawings: dict[str, bytes], statistics: Statistics, by_policy: Sequence[PolicyTokens], title: str) -> str:
    name = html.escape(title)
    images = "\n".join(
        f'<p><img alt="{key.removesuffix(".png").replace("_", " ")}" '
        f'src="data:image/png;base64,{base64.b64encode(data).decode()}"></p>'
        for key, data in drawings.items()
    )
    counts = (
        f"{statistics.samples:,} samples ({statistics.text_only:,} without images), {statistics.images:,} images"
        + f"; {statistics.unreadable:,} records cannot be read" * bool(statistics.unreadable)
    )
    return (
        f'<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>{name}</title><style>{_STYLE}</style>\n'
        f"<h1>{name}</h1>\n<p>{counts}</p>\n{_table(by_policy)}\n{images}\n</html>\n"
    )


def _table(by_policy: Sequence[PolicyTokens]) -> str:
    keys = ("mean", "5%", "50%", "95%", "max")
    head = "".join(f"<th>{key}</th>" for key in ("visual tokens", *keys, "unsupported"))
    rows = []
    for found in by_policy:
        numbers = summary(found.tokens)
        cells = "".join(f"<td>{numbers[key]:,.0f}</td>" if numbers else "<td></td>" for key in keys)
        rows.append(f"<tr><td>{html.escape(found.name)}</td>{cells}<td>{found.refused or ''}</td></tr>")
    return f"<table><tr>{head}</tr>{''.join(rows)}</table>"
