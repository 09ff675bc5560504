"""An HTML page with every question, its images, the prediction and its score."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw

from ..geometry import Box, box_from_square, find_boxes
from ..images import DATA_SET_LIMITS, open_image
from ..inference import boxes_in_pixels
from ..support import require, write_text
from .benchmark import Benchmark, EvalSample, EvalSet, LoadOptions
from .multiple_choice import question_with_options
from .outcome import Prediction, Scoring, Verdict
from .own_data import OwnData, benchmark_of
from .predictions import Line, read_lines
from .prompts import answer_of, question_of
from .scoring import Score, ScoredPredictions, score_file
from .table import BenchmarkImage, default_data_folder

if TYPE_CHECKING:
    from .judge import Judge

TEMPLATE = Path(__file__).with_name("report.html")
MAX_SIDE = 720
"""Longest side of an image in the report, in pixels."""

REFERENCE_COLOR, PREDICTION_COLOR = "#14702e", "#b00020"
STATES = ("right", "wrong", "unresolved", "error")


@dataclass(frozen=True)
class Item:
    """A question as the template needs it.

    Attributes:
        state: One of `STATES`.
        answer: Reference answer.
        prompt: The prompt as the model was shown it; empty in predictions of earlier versions.
        extracted: The part of the prediction that was scored, if it is not all of it.
        input_size: Sizes of the images as the model saw them, as text.
        num_tokens: Number of visual tokens.
        image_size: Sizes of the image files, as text.
        images: Paths of the images, relative to the page.
        has_boxes: Whether boxes are drawn on the images.
    """

    id: str
    state: str
    credit: float
    question: str
    answer: str
    prediction: str
    prompt: str
    extracted: str | None
    error: str | None
    categories: Sequence[str]
    input_size: str
    num_tokens: int
    image_size: str
    images: Sequence[str]
    has_boxes: bool


def write_report(
    predictions: Path,
    out: Path | None = None,
    *,
    data: Path | None = None,
    scoring: Scoring | None = None,
    judge: "Judge | None" = None,
    limit: int | None = None,
) -> Path:
    """Write ``NAME.report.html`` and its images (``NAME.report/``), and return the path of the page.

    Args:
        predictions: The file ``NAME.predictions.jsonl``.
        out: Folder of the page; by default that of the predictions.
        data: Folder with the benchmark's file, for the images; by default VLMEvalKit's. For own data, the file; by
            default where it was.
        scoring: Settings of the score.
        judge: The judge of the score, if it had one.
        limit: Maximum number of samples on the page; by default all.

    Raises:
        ValueError: Predictions or data are missing, or the data are not those of the predictions.
        MissingPackageError: jinja2 is not installed.
    """
    scored = score_file(predictions, scoring, judge)
    name = scored.score.benchmark
    folder = out or predictions.parent
    benchmark = benchmark_of(name, scored.score.run)
    questions = _load_questions(benchmark, scored.score, data)
    lines = {line["sample_id"]: line for line in read_lines(predictions)}
    images = folder / f"{name}.report"
    images.mkdir(parents=True, exist_ok=True)
    items = list(_items(benchmark, scored, limit, lines, questions, images))
    page = folder / f"{name}.report.html"
    write_text(page, render_page(scored.score, items))
    return page


def render_page(score: Score, items: Sequence[Item]) -> str:
    """Return the HTML of the page; all texts of data and model are escaped.

    Raises:
        MissingPackageError: jinja2 is not installed.
    """
    jinja2 = require("jinja2", extra="eval", purpose="reports")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    run = score.run or {}
    page: str = environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        score=score,
        model=run.get("model", {}).get("name", "unknown model"),
        protocol=json.dumps({"run": run, "scoring": score.scoring}, indent=2, ensure_ascii=False),
        states=STATES,
        categories=sorted({name for item in items for name in item.categories}),
        items=items,
    )
    return page


def _load_questions(benchmark: Benchmark, score: Score, data: Path | None) -> EvalSet:
    protocol = (score.run or {}).get("protocol", {})
    options = LoadOptions(**{name: protocol[name] for name in vars(LoadOptions()) if name in protocol})
    if isinstance(benchmark, OwnData):
        questions: EvalSet = benchmark.reopened((score.run or {}).get("source") or {}, data)
    else:
        data = data or default_data_folder()
        questions = benchmark.load(data, options)
    expected = protocol.get("data", {}).get("md5")
    if expected != questions.data.get("md5"):
        found = questions.data.get("md5")
        raise ValueError(
            f"the data of {data or 'the run'} (md5 {found}) are not those of the predictions (md5 {expected})"
        )
    return questions


def _items(
    benchmark: Benchmark,
    scored: ScoredPredictions,
    limit: int | None,
    lines: dict[str, Line],
    questions: EvalSet,
    folder: Path,
) -> Iterator[Item]:
    positions = {name: number for number, name in enumerate(questions.ids)}
    pairs = zip(scored.predictions, scored.outcome.verdicts, strict=True)
    for number, (prediction, verdict) in enumerate(list(pairs)[:limit]):
        sample = questions[positions[prediction.sample_id]]
        references = _reference_boxes(prediction)
        images = _write_images(sample, folder, number, references, prediction)
        yield _item(benchmark, prediction, verdict, lines[prediction.sample_id], sample, images)


def _item(
    benchmark: Benchmark, prediction: Prediction, verdict: Verdict, line: Line, sample: EvalSample, images: list[str]
) -> Item:
    row = prediction.row
    sizes = [image.size for image in sample.images if image.size is not None]
    return Item(
        id=prediction.sample_id,
        state=_state(prediction, verdict),
        credit=verdict.credit,
        question=question_with_options(row, question_of(row)),
        answer=answer_of(row),
        prediction=prediction.text,
        prompt=line.get("prompt") or "",
        extracted=verdict.extracted if verdict.extracted != prediction.text else None,
        error=prediction.error,
        categories=list(benchmark.categories(row)),
        input_size=", ".join(f"{width} x {height} px" for height, width in line["image_sizes"]) or "not encoded",
        num_tokens=line["num_image_tokens"],
        image_size=", ".join(f"{width} x {height} px (aspect ratio {width / height:.2f})" for height, width in sizes),
        images=images,
        has_boxes=bool(_reference_boxes(prediction)),
    )


def _state(prediction: Prediction, verdict: Verdict) -> str:
    if prediction.error is not None:
        return "error"
    if not verdict.resolved:
        return "unresolved"
    return "right" if verdict.credit >= 0.5 else "wrong"


def _reference_boxes(prediction: Prediction) -> list[Box]:
    """Return the reference boxes in pixels; empty if the answer is not a box."""
    row = prediction.row
    if "bbox" in row:
        x0, y0, x1, y1 = row["bbox"]
        return [(x0, y0, x1, y1)]
    if "width" not in row:
        return []
    return [box_from_square(box, row["width"], row["height"]) for box in find_boxes(str(row.get("answer", "")))]


def _write_images(
    sample: EvalSample, folder: Path, number: int, references: Sequence[Box], prediction: Prediction
) -> list[str]:
    """Write the images of a sample with their boxes and return their paths, relative to the page."""
    predicted: Sequence[Box] = []
    if references and sample.images[0].size is not None:
        height, width = sample.images[0].size
        predicted = boxes_in_pixels(prediction.text, width, height)[:1]
    paths = [folder / f"{number}-{place}.jpg" for place in range(len(sample.images))]
    written = [
        _write_image(image, path, references, predicted) for image, path in zip(sample.images, paths, strict=True)
    ]
    return [f"{folder.name}/{path.name}" for path, is_written in zip(paths, written, strict=True) if is_written]


def _write_image(image: BenchmarkImage, path: Path, references: Sequence[Box], predicted: Sequence[Box]) -> bool:
    """Write an image with its boxes; return whether it could be opened (if not, the sample has an error)."""
    try:
        opened = open_image(image.open(), limits=DATA_SET_LIMITS)
    except ValueError:
        return False
    scale = min(1.0, MAX_SIDE / max(opened.size))
    resized = opened.resize((max(1, round(opened.width * scale)), max(1, round(opened.height * scale))))
    draw = ImageDraw.Draw(resized)
    for boxes, color in ((references, REFERENCE_COLOR), (predicted, PREDICTION_COLOR)):
        for box in boxes:
            _draw_outline(draw, resized, [edge * scale for edge in box], color)
    resized.save(path, quality=85)
    return True


def _draw_outline(draw: ImageDraw.ImageDraw, image: Image.Image, box: Sequence[float], color: str) -> None:
    x0, y0, x1, y1 = box
    corners = (min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1))
    draw.rectangle(corners, outline=color, width=max(1, max(image.size) // 250))
