"""The report of a run, from its log and its answers: curves, throughput, answers and the mixture that was drawn."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..callbacks import LOG_FILE, read_log
from ..sample_answers import read_answers
from .page import TEMPLATE

REPORT_FILE = "report.html"

WIDTH, HEIGHT, LEFT, BOTTOM = 560, 200, 64, 24
"""Size of a chart in pixels, and its margins for the numbers."""

FIGURES = {
    "loss": "Loss",
    "learning_rate": "Learning rate",
    "grad_norm": "Gradient norm",
    "supervised_tokens_per_second": "Supervised tokens per second",
    "images_per_second": "Images per second",
    "waiting_for_data": "Share of time spent waiting for data",
    "memory_gb": "Peak memory of a process, GB",
}
"""Charted keys of a log line and their titles."""

SMOOTHED = "loss"
SMOOTHING = 0.95
"""Weight of earlier steps in the running mean of the loss."""


@dataclass(frozen=True)
class Chart:
    """A curve as the page shows it: points in pixels, numbers for the margins."""

    title: str
    line: str
    smooth: str
    bottom: str
    top: str
    first_step: int
    last_step: int
    last: str


def write_report(output_dir: Path) -> Path:
    """Write the page of a run, finished or not, into its folder.

    Returns:
        Path of the page.

    Raises:
        ValueError: The log has no line with a loss.
    """
    from jinja2 import Environment

    entries = [entry for entry in read_log(output_dir / LOG_FILE) if "loss" in entry]
    if not entries:
        raise ValueError(f"{output_dir / LOG_FILE} holds no line with a loss: there is nothing to report")
    recipe = output_dir / "recipe.yaml"
    page = Environment(autoescape=True).from_string(TEMPLATE)
    text = page.render(
        name=output_dir.name,
        facts=_facts(entries),
        charts=list(_charts(entries)),
        mixture=_mixture(entries),
        rounds=_rounds(read_answers(output_dir)),
        recipe=recipe.read_text(encoding="utf-8") if recipe.is_file() else "",
        width=WIDTH,
        height=HEIGHT,
        left=LEFT,
        bottom=BOTTOM,
    )
    path = output_dir / REPORT_FILE
    path.write_text(text, encoding="utf-8")
    return path


def _facts(entries: Sequence[dict[str, Any]]) -> list[tuple[str, str]]:
    last = entries[-1]
    seconds = sum(entry.get("seconds", 0.0) for entry in entries)
    waited = sum(entry.get("seconds", 0.0) * entry.get("waiting_for_data", 0.0) for entry in entries)
    facts = [
        ("steps", f"{last['step']:,} of {last['max_steps']:,}"),
        ("loss", f"{entries[0]['loss']:.4f} first, {last['loss']:.4f} last"),
        ("time", _duration(seconds)),
        ("supervised tokens", f"{_total(entries, 'supervised_tokens_per_second'):,.0f}"),
        ("images", f"{_total(entries, 'images_per_second'):,.0f}"),
        ("waiting for data", f"{waited / seconds:.1%} of the time" if seconds else "unknown"),
    ]
    return facts + ([("samples left out", str(last["skipped_samples"]))] if last.get("skipped_samples") else [])


def _total(entries: Iterable[dict[str, Any]], rate: str) -> float:
    return sum(entry.get(rate, 0.0) * entry.get("seconds", 0.0) for entry in entries)


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s"


def _charts(entries: Sequence[dict[str, Any]]) -> Iterable[Chart]:
    rates = sorted({key for entry in entries for key in entry if key.startswith("learning_rate/")})
    titles = FIGURES | {key: f"Learning rate of {key.partition('/')[2]}" for key in rates}
    for key, title in titles.items():
        points = [(entry["step"], float(entry[key])) for entry in entries if key in entry]
        if points:
            yield _chart(title, points, smooth=key == SMOOTHED)


def _chart(title: str, points: Sequence[tuple[int, float]], *, smooth: bool) -> Chart:
    values = [value for _, value in points]
    low, high = min(0.0, *values), max(values)
    high = high if high > low else low + 1.0
    first, last = points[0][0], points[-1][0]

    def place(step: int, value: float) -> str:
        across = (step - first) / max(last - first, 1)
        up = (value - low) / (high - low)
        return f"{LEFT + across * (WIDTH - LEFT):.1f},{(1 - up) * (HEIGHT - BOTTOM) + 2:.1f}"

    return Chart(
        title=title,
        line=" ".join(place(step, value) for step, value in points),
        smooth=" ".join(place(step, value) for step, value in _smoothed(points)) if smooth else "",
        bottom=f"{low:.3g}",
        top=f"{high:.3g}",
        first_step=first,
        last_step=last,
        last=f"{values[-1]:.4g}",
    )


def _smoothed(points: Sequence[tuple[int, float]]) -> Iterable[tuple[int, float]]:
    """Yield the exponential running mean, corrected for its start as in Adam."""
    mean, weight = 0.0, 0.0
    for step, value in points:
        mean = SMOOTHING * mean + (1 - SMOOTHING) * value
        weight = SMOOTHING * weight + (1 - SMOOTHING)
        yield step, mean / weight


def _mixture(entries: Iterable[dict[str, Any]]) -> list[tuple[str, int, float]]:
    """Return name, number of samples drawn and share of each source."""
    counts: dict[str, int] = {}
    for entry in entries:
        for key, count in entry.items():
            if key.startswith("drawn/"):
                name = key.partition("/")[2]
                counts[name] = counts.get(name, 0) + count
    total = max(sum(counts.values()), 1)
    return [(name, count, count / total) for name, count in counts.items()]


def _rounds(rounds: Sequence[dict[str, Any]], shown: int = 5) -> list[dict[str, Any]]:
    """Return each question with a few answers spread over the run, the first and the last among them."""
    if not rounds:
        return []
    count = min(shown, len(rounds))
    chosen = sorted({round(number * (len(rounds) - 1) / max(count - 1, 1)) for number in range(count)})
    return [
        {
            "question": asked["question"],
            "truth": asked["truth"],
            "answers": [(rounds[index]["step"], rounds[index]["answers"][number]["answer"]) for index in chosen],
        }
        for number, asked in enumerate(rounds[0]["answers"])
    ]
