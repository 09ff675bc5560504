"""One benchmark under many settings: its figure against visual tokens and seconds.

Over resolution, aspect ratio and token budget of one checkpoint this has the form of the paper's Table 7; over
checkpoints, that of Table 4 and Figure 3 (four against five stages).
"""

import csv
import io
import itertools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..image_options import ImageOptions
from ..support import require, write_json, write_text
from .predictions import PredictionFile
from .scoring import Score

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from transformers import PreTrainedConfig


_MARKERS = "osD^v<>pP*Xhd8"
"""Markers of settings in a plot."""


@dataclass(frozen=True)
class Point:
    """Result of one benchmark under one setting.

    Attributes:
        setting: Short name of the image options.
        low: Lower end of the 95 % interval.
        high: Upper end of the 95 % interval.
        visual_tokens: Mean number of visual tokens of a sample.
        seconds: Seconds per sample of the last run that answered samples; None if unknown.
        family: Name of the line that joins separately trained models; empty for a line through a model's settings.
    """

    model: str
    benchmark: str
    setting: str
    image_aspect_ratio: str | None
    resolution: int | None
    max_visual_tokens: int | None
    metric: str
    value: float
    low: float
    high: float
    samples: int
    visual_tokens: float
    seconds: float | None
    higher_is_better: bool
    family: str = ""

    @property
    def line(self) -> str:
        """Name of the line that the point is on."""
        return self.family or self.model + (f", {self.image_aspect_ratio}" if self.image_aspect_ratio else "")

    @property
    def mark(self) -> str:
        """Name of the point on its line."""
        return f"{self.model}, {self.setting}" if self.family else self.setting


def family_of(config: "PreTrainedConfig") -> str:
    """Return the family of models with an encoder: its number of stages, or its type."""
    stages = getattr(config, "num_stages", None)
    return f"{stages} stages" if stages is not None else str(config.model_type)


def combinations(
    aspect_ratios: Sequence[str], resolutions: Sequence[int], budgets: Sequence[int]
) -> list[ImageOptions]:
    """Return all combinations of image options; an empty axis is left to the checkpoint."""
    axes = (aspect_ratios or [None], resolutions or [None], budgets or [None])  # type: ignore[list-item]
    return [ImageOptions(*choice) for choice in itertools.product(*axes)]


def setting_name(options: ImageOptions) -> str:
    """Return a folder name for image options."""
    budget = options.max_visual_tokens
    names = [options.image_aspect_ratio, options.resolution, f"{budget}-tokens" if budget else None]
    return "-".join(str(name) for name in names if name is not None) or "own"


def model_folder(model: str) -> str:
    """Return a folder name for a model."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", model).strip("-.") or "model"


def point_of(score: Score, folder: Path, options: ImageOptions, family: str = "") -> Point:
    """Return the point of a score and of the prediction and timing files next to it, on the line ``family``.

    Raises:
        ValueError: The score has no protocol.
    """
    if score.run is None:
        raise ValueError(f"the score of {score.benchmark} has no protocol: run the benchmark again")
    tokens = [line["num_image_tokens"] for line in PredictionFile(folder, score.benchmark).read().values()]
    timing = folder / f"{score.benchmark}.timing.json"
    seconds = None
    if timing.is_file():
        recorded = json.loads(timing.read_text(encoding="utf-8"))
        seconds = recorded["seconds"] / recorded["samples"]
    return Point(
        model=score.run["model"]["name"],
        benchmark=score.benchmark,
        setting=setting_name(options),
        image_aspect_ratio=options.image_aspect_ratio,
        resolution=options.resolution,
        max_visual_tokens=options.max_visual_tokens,
        metric=score.metric,
        value=score.value,
        low=score.interval[0],
        high=score.interval[1],
        samples=score.samples,
        visual_tokens=sum(tokens) / len(tokens),
        seconds=seconds,
        higher_is_better=score.higher_is_better,
        family=family,
    )


def write_sweep(points: Sequence[Point], out: Path) -> list[Path]:
    """Write the points as JSON, CSV and Markdown, and a plot for each benchmark; return the paths.

    Raises:
        MissingPackageError: matplotlib is not installed.
    """
    write_json(out / "sweep.json", [asdict(point) for point in points])
    write_text(out / "sweep.csv", _csv(points))
    write_text(out / "sweep.md", as_markdown(points))
    paths = [out / f"sweep.{suffix}" for suffix in ("json", "csv", "md")]
    for benchmark in dict.fromkeys(point.benchmark for point in points):
        path = out / f"sweep-{benchmark}.png"
        plot([point for point in points if point.benchmark == benchmark], path)
        paths.append(path)
    return paths


def as_markdown(points: Sequence[Point]) -> str:
    """Return the points as a Markdown table."""
    header = ["model", "benchmark", "setting", "figure", "value", "95 % interval", "visual tokens", "s / sample"]
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    for point in points:
        seconds = "" if point.seconds is None else f"{point.seconds:.3f}"
        cells = [point.model, point.benchmark, point.setting, point.metric, f"{point.value:.4g}"]
        cells += [f"{point.low:.4g} to {point.high:.4g}", f"{point.visual_tokens:.1f}", seconds]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def plot(points: Sequence[Point], path: Path) -> None:
    """Plot a benchmark's figure against visual tokens and against seconds.

    There is a line for each model and aspect ratio, or for each family of models.

    Each setting has a marker of its own, which the legend below the axes names: labels at the points would overlap.

    Raises:
        MissingPackageError: matplotlib is not installed.
    """
    figure = require("matplotlib.figure", extra="plots", purpose="plots").Figure(figsize=(9, 5), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    markers = dict(zip(dict.fromkeys(point.mark for point in points), itertools.cycle(_MARKERS)))
    lines: dict[str, list[Point]] = {}
    for point in points:
        lines.setdefault(point.line, []).append(point)
    for name, line in lines.items():
        _draw_line(left, name, line, [point.visual_tokens for point in line], markers)
        if all(point.seconds is not None for point in line):
            _draw_line(right, name, line, [point.seconds or 0.0 for point in line], markers)
    left.set_xlabel("visual tokens per sample")
    right.set_xlabel("seconds per sample")
    left.set_ylabel(f"{points[0].benchmark}: {points[0].metric}")
    figure.legend(*left.get_legend_handles_labels(), loc="outside upper center", ncols=2, fontsize="small")
    shown = [left.plot([], [], linestyle="", color="gray", marker=marker)[0] for marker in markers.values()]
    figure.legend(shown, list(markers), loc="outside lower center", ncols=4, fontsize="small")
    figure.savefig(path, dpi=150)


def _draw_line(
    axes: "Axes", name: str, line: Sequence[Point], x_values: Sequence[float], markers: Mapping[str, str]
) -> None:
    pairs = sorted(zip(x_values, line, strict=True), key=lambda pair: pair[0])
    points = [point for _, point in pairs]
    errors = [
        [max(0.0, point.value - point.low) for point in points],
        [max(0.0, point.high - point.value) for point in points],
    ]
    values = [point.value for point in points]
    drawn = axes.errorbar([x for x, _ in pairs], values, yerr=errors, capsize=3, label=name)
    for x, point in pairs:
        axes.plot(x, point.value, marker=markers[point.mark], color=drawn[0].get_color())


def _csv(points: Sequence[Point]) -> str:
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(asdict(points[0])), lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(point) for point in points)
    return stream.getvalue()
