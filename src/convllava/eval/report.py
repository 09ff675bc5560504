"""A page with every question, its images, what was answered and what was made of it."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from ..geometry import Box, box_from_square, find_boxes
from ..inference import boxes_in_pixels, open_image
from .benchmarks import EvalSet, LoadOptions, Outcome, Record, Scoring, Verdict, find_benchmark
from .predictions import Line, read_lines, write_text
from .prompts import options_of
from .report_page import TEMPLATE
from .scoring import Score, score_file
from .sources import default_folder

LONGEST_SIDE = 720
"""Pixels of an image in the report."""

TRUTH, ANSWER = "#14702e", "#b00020"
STATES = ("right", "wrong", "unresolved", "error")


@dataclass(frozen=True)
class Item:
    """A question as the page shows it."""

    id: str
    state: str
    credit: float
    question: str
    answer: str
    prediction: str
    extracted: str | None
    error: str | None
    categories: Sequence[str]
    shown: str
    tokens: int
    original: str
    images: Sequence[str]
    has_boxes: bool


def write_report(
    predictions: Path,
    out: Path | None = None,
    *,
    data: Path | None = None,
    scoring: Scoring | None = None,
    judge: Any = None,
    most: int | None = None,
) -> Path:
    """Write ``NAME.report.html`` and its images (``NAME.report/``), and return its path.

    Args:
        predictions: ``NAME.predictions.jsonl``.
        out: Folder; by default that of the predictions.
        data: Folder with the benchmark's files, for the images.
        scoring: How answers are judged.
        judge: A `judge.Judge`, if the score had one.
        most: Show only so many samples.

    Raises:
        ValueError: The predictions or the data are missing or do not belong together.
    """
    score, outcome, records = score_file(predictions, scoring, judge)
    folder = out or predictions.parent
    questions = _questions(score, data or default_folder())
    lines = {line["sample_id"]: line for line in read_lines(predictions)}
    images = folder / f"{score.benchmark}.report"
    images.mkdir(parents=True, exist_ok=True)
    items = list(_items(score, outcome, records[:most], lines, questions, images))
    page = folder / f"{score.benchmark}.report.html"
    write_text(page, render_page(score, items))
    return page


def render_page(score: Score, items: Sequence[Item]) -> str:
    """Return the page; whatever came from data or model is escaped."""
    import jinja2

    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    run = score.run or {}
    return environment.from_string(TEMPLATE).render(
        score=score,
        model=run.get("model", {}).get("name", "unknown model"),
        protocol=json.dumps({"run": run, "scoring": score.scoring}, indent=2, ensure_ascii=False),
        states=STATES,
        categories=sorted({name for item in items for name in item.categories}),
        items=items,
    )


def _questions(score: Score, data: Path) -> EvalSet:
    protocol = (score.run or {}).get("protocol", {})
    names = ("prompts", "ocr_tokens", "kit_compatible")
    options = LoadOptions(**{name: protocol[name] for name in names if name in protocol})
    questions = find_benchmark(score.benchmark).load(data, options)
    made_of = protocol.get("data", {}).get("md5")
    if made_of != questions.data.get("md5"):
        raise ValueError(
            f"the data below {data} (md5 {questions.data.get('md5')}) are not those of the predictions (md5 {made_of})"
        )
    return questions


def _items(
    score: Score,
    outcome: Outcome,
    records: Sequence[Record],
    lines: dict[str, Line],
    questions: EvalSet,
    folder: Path,
) -> Iterator[Item]:
    benchmark = find_benchmark(score.benchmark)
    position = {name: number for number, name in enumerate(questions.ids)}
    for number, (record, verdict) in enumerate(zip(records, outcome.verdicts, strict=False)):
        sample, line = questions[position[record.sample_id]], lines[record.sample_id]
        sizes = [image.size for image in sample.images]
        truths = _true_boxes(record)
        answered = _answered_boxes(record, sizes) if truths else []
        images = [
            _write_image(image, folder / f"{number}-{place}.jpg", truths, answered)
            for place, image in enumerate(sample.images)
        ]
        yield Item(
            id=record.sample_id,
            state=_state(record, verdict),
            credit=verdict.credit,
            question=_question(record),
            answer=_answer(record),
            prediction=record.prediction,
            extracted=verdict.extracted if verdict.extracted != record.prediction else None,
            error=record.error,
            categories=list(benchmark.categories(record.row)),
            shown=", ".join(f"{width} x {height}" for height, width in line["image_sizes"]) or "nothing",
            tokens=line["num_image_tokens"],
            original=", ".join(f"{width} x {height} ({width / height:.2f})" for width, height in sizes),
            images=[f"{folder.name}/{name}" for name in images if name],
            has_boxes=bool(truths),
        )


def _state(record: Record, verdict: Verdict) -> str:
    if record.error is not None:
        return "error"
    if not verdict.resolved:
        return "unresolved"
    return "right" if verdict.credit >= 0.5 else "wrong"


def _question(record: Record) -> str:
    row = record.row
    text = str(row.get("question", row.get("sent", "")))
    return text + "".join(f"\n{letter}. {option}" for letter, option in options_of(row).items())


def _answer(record: Record) -> str:
    return str(record.row.get("answer", record.row.get("bbox", "")))


def _true_boxes(record: Record) -> list[Box]:
    row = record.row
    if "bbox" in row:
        x0, y0, x1, y1 = row["bbox"]
        return [(x0, y0, x1, y1)]
    if "width" not in row:
        return []
    return [box_from_square(box, row["width"], row["height"]) for box in find_boxes(str(row.get("answer", "")))]


def _answered_boxes(record: Record, sizes: Sequence[tuple[int, int]]) -> Sequence[Box]:
    return boxes_in_pixels(record.prediction, *sizes[0])[:1]


def _write_image(image: Any, path: Path, truths: Sequence[Box], answered: Sequence[Box]) -> str | None:
    """Write an image with its boxes, and return its name; None if it is damaged, which the sample's error says."""
    try:
        opened = open_image(image.open())
    except ValueError:
        return None
    scale = min(1.0, LONGEST_SIDE / max(opened.size))
    shown = opened.resize((max(1, round(opened.width * scale)), max(1, round(opened.height * scale))))
    draw = ImageDraw.Draw(shown)
    for boxes, color in ((truths, TRUTH), (answered, ANSWER)):
        for box in boxes:
            _outline(draw, shown, [edge * scale for edge in box], color)
    shown.save(path, quality=85)
    return path.name


def _outline(draw: ImageDraw.ImageDraw, image: Image.Image, box: Sequence[float], color: str) -> None:
    x0, y0, x1, y1 = box
    corners = (min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1))
    draw.rectangle(corners, outline=color, width=max(1, max(image.size) // 250))


def predictions_of(path: Path) -> list[Path]:
    """Return the predictions files that a path means: itself, or all in that folder.

    Raises:
        ValueError: There are none.
    """
    if path.is_file():
        return [path]
    found = sorted(path.glob("*.predictions.jsonl"))
    if not found:
        raise ValueError(f"{path} holds no predictions (NAME.predictions.jsonl)")
    return found
