"""Charts of a run as the page draws them: series of points in the pixels of an SVG, ticks with round numbers."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 440, 240
"""Size of a chart in pixels."""

LEFT, RIGHT, TOP, BOTTOM = 52, 16, 8, 26
"""Margins around the plotted area, for the numbers."""

MARKED = 40
"""Number of points up to which each has a mark: a line alone hides how few there are."""

SMOOTHED_SHARE = 20
"""A smoothed line is the mean of this part of the points before each one: a twentieth of them."""

Points = Sequence[tuple[int, float]]


@dataclass(frozen=True)
class Series:
    """A line of a chart.

    Attributes:
        name: Name in the legend.
        points: (step, value) in the order of the steps.
        smoothing: Whether to draw a trailing mean over the points, which stay visible.
    """

    name: str
    points: Points
    smoothing: bool = False


@dataclass(frozen=True)
class DrawnSeries:
    """A line in pixels.

    Attributes:
        name: Name in the legend.
        number: Number of its color.
        line: Points of an SVG polyline.
        smooth: The same of the trailing mean; empty without one.
        marks: Pixels of the points, where they are few.
        last: Last value.
    """

    name: str
    number: int
    line: str
    smooth: str
    marks: list[tuple[str, str]]
    last: str


@dataclass(frozen=True)
class Chart:
    """A chart in pixels.

    Attributes:
        title: Title.
        note: Explanation of what is drawn; may be empty.
        series: The lines.
        rows: Pixels and labels of the horizontal grid lines.
        columns: Pixels and labels of the vertical grid lines.
    """

    title: str
    note: str
    series: list[DrawnSeries]
    rows: list[tuple[str, str]]
    columns: list[tuple[str, str]]


def draw(title: str, series: Sequence[Series]) -> Chart:
    """Return a chart of series, at least one of which has a point."""
    steps = [step for one in series for step, _ in one.points]
    values = [value for one in series for _, value in one.points]
    vertical = ticks(min(0.0, *values), max(values))
    low, high = vertical[0], vertical[-1]
    first, last = min(steps), max(steps)
    horizontal = [tick for tick in ticks(first, last, whole=True) if first <= tick <= last]

    def across(step: float) -> str:
        share = (step - first) / (last - first) if last > first else 0.5
        return f"{LEFT + share * (WIDTH - LEFT - RIGHT):.1f}"

    def down(value: float) -> str:
        return f"{TOP + (high - value) / (high - low) * (HEIGHT - TOP - BOTTOM):.1f}"

    drawn, notes = [], []
    for number, one in enumerate(series):
        window = smoothing_window(len(one.points)) if one.smoothing else 1
        smooth = trailing_mean(one.points, window) if window > 1 else []
        if smooth:
            notes.append(f"bold: mean of the last {window} of {len(one.points)} points")
        drawn.append(
            DrawnSeries(
                name=one.name,
                number=number % 6,
                line=" ".join(f"{across(step)},{down(value)}" for step, value in one.points),
                smooth=" ".join(f"{across(step)},{down(value)}" for step, value in smooth),
                marks=[(across(step), down(value)) for step, value in one.points] if len(one.points) <= MARKED else [],
                last=f"{one.points[-1][1]:.4g}" if one.points else "",
            )
        )
    return Chart(
        title=title,
        note="; ".join(notes),
        series=drawn,
        rows=[(down(tick), label(tick, vertical)) for tick in vertical],
        columns=[(across(tick), f"{tick:,.0f}") for tick in horizontal],
    )


def ticks(low: float, high: float, *, count: int = 5, whole: bool = False) -> list[float]:
    """Return about ``count`` round numbers that enclose an interval.

    Args:
        low: Lower end.
        high: Upper end.
        count: Number of steps that is aimed at.
        whole: Whether all are whole numbers.
    """
    if high <= low:
        high = low + max(abs(low), 1.0)
    rough = (high - low) / count
    magnitude = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * magnitude for factor in (1, 2, 2.5, 5, 10) if factor * magnitude >= rough * (1 - 1e-9))
    if whole:
        step = max(1.0, float(round(step)))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [number * step for number in range(first, max(last, first + 1) + 1)]


def label(tick: float, all_ticks: Sequence[float]) -> str:
    """Return a tick's number with as many decimals as its neighbors need, in powers of ten where it is tiny."""
    largest = max(abs(one) for one in all_ticks)
    if tick == 0:
        return "0"
    if largest < 1e-3:
        return f"{tick:.1e}".replace(".0e", "e").replace("e-0", "e-")
    if largest >= 1e4:
        return f"{tick / 1e3:,.10g}k" if largest < 1e6 else f"{tick / 1e6:,.10g}M"
    return f"{tick:.10g}"


def smoothing_window(count: int) -> int:
    """Return the number of points that a smoothed line averages; 1 where there are too few to smooth."""
    return max(1, round(count / SMOOTHED_SHARE))


def trailing_mean(points: Points, window: int) -> list[tuple[int, float]]:
    """Return the mean of the last ``window`` values at each point that has so many before it."""
    found = []
    for end in range(window, len(points) + 1):
        values = [value for _, value in points[end - window : end]]
        found.append((points[end - 1][0], sum(values) / window))
    return found
