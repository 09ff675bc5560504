"""The report of a run, from its log and its answers: curves, throughput, answers and the mixture that was drawn."""

from base64 import b64encode
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ...metrics import METRICS
from ...support import duration
from ..callbacks import LOG_FILE, read_log
from ..held_out_answers import HELD_OUT_ANSWERS_FILE
from ..sample_answers import read_answers
from .charts import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Chart, Series, draw
from .page import TEMPLATE

REPORT_FILE = "report.html"

FIGURES = {
    "learning_rate": "Learning rate",
    "grad_norm": "Gradient norm",
    "supervised_tokens_per_second": "Supervised tokens per second",
    "images_per_second": "Images per second",
    "waiting_for_data": "Share of time spent waiting for data",
    "memory_gb": "Peak memory of a process, GB",
}
"""Charted keys of a log line and their titles, in addition to losses and metrics."""

HELD_OUT = "validation/"
"""Beginning of the keys of a validation."""


def write_report(output_dir: Path) -> Path:
    """Write the page of a run, finished or not, into its folder.

    Returns:
        Path of the page.

    Raises:
        ValueError: The log has no line with a loss.
    """
    from jinja2 import Environment

    entries = read_log(output_dir / LOG_FILE)
    if not any("loss" in entry for entry in entries):
        raise ValueError(f"{output_dir / LOG_FILE} holds no line with a loss: there is nothing to report")
    recipe = output_dir / "recipe.yaml"
    held_out = read_log(output_dir / HELD_OUT_ANSWERS_FILE)
    page = Environment(autoescape=True).from_string(TEMPLATE)
    text = page.render(
        name=output_dir.name,
        facts=_facts(entries),
        charts=list(_charts(entries)),
        mixture=_mixture(entries),
        held_out=_rounds(held_out, output_dir),
        rounds=_rounds(read_answers(output_dir), output_dir),
        recipe=recipe.read_text(encoding="utf-8") if recipe.is_file() else "",
        size={"width": WIDTH, "height": HEIGHT, "left": LEFT, "right": RIGHT, "top": TOP, "bottom": BOTTOM},
    )
    path = output_dir / REPORT_FILE
    path.write_text(text, encoding="utf-8")
    return path


def _facts(entries: Sequence[dict[str, Any]]) -> list[tuple[str, str]]:
    trained = [entry for entry in entries if "loss" in entry]
    last = trained[-1]
    seconds = sum(entry.get("seconds", 0.0) for entry in trained)
    validating = sum(entry.get(f"{HELD_OUT}seconds", 0.0) for entry in entries)
    waited = sum(entry.get("seconds", 0.0) * entry.get("waiting_for_data", 0.0) for entry in trained)
    facts = [("steps", f"{last['step']:,} of {last['max_steps']:,}")]
    if "epoch" in last:
        facts.append(("epochs", f"{last['epoch']:.2f}".rstrip("0").rstrip(".")))
    facts += [
        ("loss", f"{trained[0]['loss']:.4f} first, {last['loss']:.4f} last"),
        *_held_out_facts(entries),
        ("time", duration(seconds)),
        *([("time of validations", duration(validating))] if validating else []),
        ("supervised tokens", f"{_total(trained, 'supervised_tokens_per_second'):,.0f}"),
        ("images", f"{_total(trained, 'images_per_second'):,.0f}"),
        ("waiting for data", f"{waited / seconds:.1%} of the time" if seconds else "unknown"),
    ]
    return facts + ([("samples left out", str(last["skipped_samples"]))] if last.get("skipped_samples") else [])


def _held_out_facts(entries: Sequence[dict[str, Any]]) -> list[tuple[str, str]]:
    facts = []
    figures = [("loss", "held-out loss", False)]
    figures += [(metric.name, metric.title, metric.higher_is_better) for metric in METRICS.values()]
    for key, title, higher in figures:
        values = {entry["step"]: entry[HELD_OUT + key] for entry in entries if HELD_OUT + key in entry}
        if not values:
            continue
        steps = sorted(values)
        best = (max if higher else min)(steps, key=values.__getitem__)
        facts.append((title, f"{values[steps[0]]:.4f} at step {steps[0]}, {values[best]:.4f} best at step {best}"))
    return facts


def _total(entries: Iterable[dict[str, Any]], rate: str) -> float:
    return sum(entry.get(rate, 0.0) * entry.get("seconds", 0.0) for entry in entries)


def _charts(entries: Sequence[dict[str, Any]]) -> Iterable[Chart]:
    def points(key: str) -> list[tuple[int, float]]:
        return [(entry["step"], float(entry[key])) for entry in entries if key in entry]

    def by_prefix(prefix: str) -> list[Series]:
        keys = sorted({key for entry in entries for key in entry if key.startswith(prefix)})
        return [Series(key.removeprefix(prefix), points(key)) for key in keys]

    losses = [Series("training", points("loss"), smoothing=True)]
    if held_out := points(f"{HELD_OUT}loss"):
        losses.append(Series("held out", held_out))
    yield draw("Loss", losses)
    for name, metric in METRICS.items():
        if found := points(HELD_OUT + name):
            yield draw(f"Held-out {metric.title}", [Series(metric.title, found)])
    for prefix, title in ((f"{HELD_OUT}loss/", "Held-out loss by source"), ("loss/", "Training loss by source")):
        if by_source := by_prefix(prefix):
            yield draw(title, by_source)
    rates = {key: f"Learning rate of {key.partition('/')[2]}" for entry in entries for key in entry if "_rate/" in key}
    for key, title in (FIGURES | dict(sorted(rates.items()))).items():
        if found := points(key):
            yield draw(title, [Series(title, found)])


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


def _rounds(rounds: Sequence[dict[str, Any]], output_dir: Path, shown: int = 5) -> list[dict[str, Any]]:
    """Return each question with a few answers spread over the run, the first and the last among them.

    Of held-out questions only those with a stored image are returned, if there are any.
    """
    if not rounds:
        return []
    count = min(shown, len(rounds))
    chosen = sorted({round(number * (len(rounds) - 1) / max(count - 1, 1)) for number in range(count)})
    first = rounds[0]["answers"]
    with_images = [number for number, asked in enumerate(first) if asked.get("image")]
    is_scored = any("credit" in asked for asked in first)
    numbers = with_images if with_images and is_scored else range(len(first))
    return [
        {
            "question": first[number]["question"],
            "truth": first[number]["truth"],
            "image": _data_url(output_dir, first[number].get("image")),
            "answers": [(rounds[index]["step"], rounds[index]["answers"][number]) for index in chosen],
        }
        for number in numbers
    ]


def _data_url(output_dir: Path, name: str | None) -> str | None:
    """Return an image of the run as a URL that holds it, if it is there."""
    path = output_dir / name if name else None
    if path is None or not path.is_file():
        return None
    return f"data:image/png;base64,{b64encode(path.read_bytes()).decode()}"
