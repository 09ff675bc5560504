"""Data of any format of ``convllava.data`` as a benchmark: each question as it is, scored by a metric of choice.

A record of several turns is several questions, each after the true dialogue before it.
"""

import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
from PIL import Image

from ..constants import Message
from ..data.files import FileDataset, open_file
from ..data.images import EncodedImage, StoredImage, open_stored
from ..data.samples import Sample
from ..geometry import find_boxes
from ..images import DATA_SET_LIMITS, ImageError, num_frames, undecoded, upright_size
from ..metrics import METRICS as ANSWER_METRICS
from ..metrics import box_accuracy, boxes_as_fractions, choose_metric
from .benchmark import Benchmark, EvalSample, EvalSet, LoadOptions
from .benchmarks import ALL, find_benchmark
from .benchmarks.textvqa import normalize_vqa_answer, vqa_accuracy
from .metrics import anls, edit_distance, exact_match
from .multiple_choice import extract_choice
from .outcome import (
    Outcome,
    Prediction,
    Row,
    Scoring,
    Verdict,
    failed_verdict,
    mean_outcome,
    ratio,
    sample_ids,
)
from .prompts import PromptProfile
from .table import BenchmarkImage, DamagedImage, ImageSize, LoadedImage, digest_of

METRICS = {name: metric.title for name, metric in ANSWER_METRICS.items()} | {
    "vqa": "VQA accuracy",
    "choice": "accuracy",
}
"""Names of the metrics on the command line, and in tables."""

_ANNOTATORS = 5
"""Mean number of answers to a question from which on they are those of annotators, as in VQA and TextVQA."""

_NAMELESS = frozenset(("data", "metadata"))
"""Names of files that say nothing; data in them are named after their folder."""

_OPTION = re.compile(r"^\(?([A-Z])[.):]\s*(.+)$", re.MULTILINE)


class OwnData(Benchmark):
    """Questions of a data file, scored by one metric.

    Args:
        name: Name in files and tables.
        metric: Key of `METRICS`.
    """

    url = "the file of your own"
    keeps_prompt_format = True

    def __init__(self, name: str, metric: str) -> None:
        if metric not in METRICS:
            raise ValueError(f"--metric must be one of {', '.join(METRICS)}, got {metric!r}")
        self.name = self.title = self.file = name
        self.metric_name = metric
        self.metric = METRICS[metric]
        self.higher_is_better = metric != "cer"
        self.questions: OwnQuestions | None = None

    def has_data(self, data: Path) -> bool:
        return True

    def load(self, data: Path, options: LoadOptions) -> EvalSet:
        """Return the questions of the file that was opened, or of the file ``data``."""
        return self.questions or OwnQuestions(data, self.metric_name)

    def reopened(self, source: Mapping[str, str | None], path: Path | None) -> "OwnQuestions":
        """Return the questions again.

        Args:
            source: The value of `source` in the run.
            path: The file; by default where it was.

        Raises:
            ValueError: The file is missing or cannot be used.
        """
        place = path or source.get("path")
        if place is None:
            raise ValueError(f"the data of {self.name} are not known: give their file as --data")
        folder = source.get("image_folder")
        return OwnQuestions(
            place, self.metric_name, image_folder=None if folder is None else Path(folder), format=source.get("format")
        )

    def source(self) -> dict[str, str | None] | None:
        return None if self.questions is None else self.questions.source

    def messages(self, row: Row, num_images: int, options: LoadOptions) -> tuple[list[Message], list[int]]:
        return row["messages"], list(range(num_images))

    def max_new_tokens(self, prompts: PromptProfile) -> int | None:
        return None

    def verdict(self, prediction: Prediction, scoring: Scoring) -> Verdict:
        if prediction.error is not None:
            return failed_verdict()
        score = _SCORES[self.metric_name]
        credit, extracted = score(prediction.text, prediction.row["answers"], prediction.row, scoring)
        return Verdict(credit, extracted, extracted is not None and bool(prediction.text.strip()))

    def outcome(self, predictions: Sequence[Prediction], scoring: Scoring) -> Outcome:
        verdicts = self.verdicts(predictions, scoring)
        if self.metric_name != "cer":
            return mean_outcome(predictions, verdicts, self.categories)
        columns = np.array([_edits(prediction) for prediction in predictions], dtype=float).reshape(-1, 2)
        return Outcome(verdicts, sample_ids(predictions), columns, ratio, {})


Score = Callable[[str, Sequence[str], Row, Scoring], tuple[float, str | None]]
"""Function of an answer, the accepted answers, the row and the settings to a credit and the part that was scored."""


def _exact(text: str, answers: Sequence[str], row: Row, scoring: Scoring) -> tuple[float, str | None]:
    return float(any(exact_match(text, answer) for answer in answers)), text.strip()


def _anls(text: str, answers: Sequence[str], row: Row, scoring: Scoring) -> tuple[float, str | None]:
    return anls(text, answers), text.strip()


def _character_errors(text: str, answers: Sequence[str], row: Row, scoring: Scoring) -> tuple[float, str | None]:
    edits, length = min((_edits_of(text, answer) for answer in answers), key=lambda pair: pair[0] / max(1, pair[1]))
    return max(0.0, 1 - edits / max(1, length)), text.strip()


def _vqa(text: str, answers: Sequence[str], row: Row, scoring: Scoring) -> tuple[float, str | None]:
    extracted = normalize_vqa_answer(text, profile=scoring.profile)
    if len(answers) == 1:
        return float(extracted == normalize_vqa_answer(answers[0], profile=scoring.profile)), extracted
    return vqa_accuracy(text, answers, profile=scoring.profile), extracted


def _choice(text: str, answers: Sequence[str], row: Row, scoring: Scoring) -> tuple[float, str | None]:
    letter = extract_choice(text, options_in(row["question"]), profile=scoring.profile)
    return float(letter in answers), letter


def _boxes(text: str, answers: Sequence[str], row: Row, scoring: Scoring) -> tuple[float, str | None]:
    found = boxes_as_fractions(text)
    return box_accuracy(text, answers[0]), str([list(box) for box in found]) if found else None


_SCORES: dict[str, Score] = {
    "exact": _exact,
    "anls": _anls,
    "cer": _character_errors,
    "vqa": _vqa,
    "iou": _boxes,
    "choice": _choice,
}


def _edits_of(text: str, answer: str) -> tuple[int, int]:
    return edit_distance(text.strip(), answer.strip()), len(answer.strip())


def _edits(prediction: Prediction) -> tuple[int, int]:
    """Return the edits to the nearest answer, and its length."""
    answers = prediction.row["answers"]
    counts = [_edits_of(prediction.text, answer) for answer in answers]
    return min(counts, key=lambda pair: pair[0] / max(1, pair[1]))


def options_in(question: str) -> dict[str, str]:
    """Return the options that a question shows, one a line (``A. red``), by letter."""
    found = dict(_OPTION.findall(question))
    return found if list(found) == sorted(found) and "A" in found else {}


@dataclass(frozen=True)
class _SampleImage:
    """An image of a sample."""

    name: str
    size: ImageSize
    has_more_frames: bool
    stored: StoredImage

    def open(self) -> Image.Image:
        return open_stored(self.stored)


class OwnQuestions:
    """Questions of a data file.

    Args:
        path: The file, folder or shards.
        metric: Key of `METRICS`; None chooses one by the answers.
        image_folder: Folder of its images; by default that of the file.
        format: Name of its format; by default it is recognized.

    Attributes:
        metric: Key of `METRICS`.
        reason: The reason for the metric; empty if it was given.
        title: Title of the format.
        num_images: Number of images of all records.

    Raises:
        ValueError: The file cannot be read, or has a record that cannot be used.
    """

    def __init__(
        self,
        path: Path | str,
        metric: str | None = None,
        *,
        image_folder: Path | None = None,
        format: str | None = None,
    ) -> None:
        self._source: FileDataset = open_file(path, image_folder, format=format)
        self.title = getattr(self._source.format, "title", "tars")
        self._turns: list[tuple[int, int]] = []
        ids: list[str] = []
        self._folder = getattr(self._source, "image_folder", None)
        digest = hashlib.md5(usedforsecurity=False)
        names: set[str] = set()
        rows: list[Row] = []
        for index in range(len(self._source)):
            sample = self._source[index]
            shown = [self._name_of(image) for image in sample.images]
            names.update(shown)
            digest.update(json.dumps([sample.sample_id, sample.messages, sample.references, shown]).encode())
            for turn, message in enumerate(sample.messages):
                if message["role"] == "assistant" and message.get("weight") != 0:
                    self._turns.append((index, turn))
                    ids.append(sample.sample_id)
                    rows.append(_row(sample, turn))
        self.ids: Sequence[str] = _numbered(ids)
        self.num_images = len(names)
        self.metric, self.reason = (metric, "") if metric else _default_metric(rows)
        _check_answers(self.metric, rows, self.ids)
        file = Path(str(path)).name
        self.source = {
            "path": str(path) if "://" in str(path) else os.path.abspath(path),
            "image_folder": None if image_folder is None else os.path.abspath(image_folder),
            "format": format,
        }
        self.data = {"file": file, "md5": digest.hexdigest(), "metric": self.metric, "questions": len(rows)}
        self.warnings: list[str] = []

    def __len__(self) -> int:
        return len(self._turns)

    def __getitem__(self, index: int) -> EvalSample:
        record, turn = self._turns[index]
        sample = self._source[record]
        row = _row(sample, turn)
        shown = sum(part["type"] == "image" for message in row["messages"] for part in message["content"])
        images = tuple(_image(image, self._name_of(image)) for image in sample.images[:shown])
        if len(images) == 1 and images[0].size is not None:
            row["height"], row["width"] = images[0].size
        return EvalSample(self.ids[index], row, images)

    def image_sizes(self, index: int) -> list[ImageSize]:
        """Return (height, width) of each readable image of a question's record."""
        return list(self._source.image_sizes(self._turns[index][0]))

    def _name_of(self, image: StoredImage) -> str:
        """Return a name that is equal for equal images, and for the same file wherever the data are."""
        if isinstance(image, Path):
            return str(image) if self._folder is None else Path(os.path.relpath(image, self._folder)).as_posix()
        return digest_of(image.data if isinstance(image, EncodedImage) else image.tobytes())


def _numbered(ids: Sequence[str]) -> list[str]:
    """Return ids that differ: the questions of a record, and records of one id, are numbered."""
    counts, last = Counter(ids), Counter[str]()
    unique = []
    for name in ids:
        unique.append(f"{name}/{last[name]}" if counts[name] > 1 else name)
        last[name] += 1
    return unique


def _row(sample: Sample, turn: int) -> Row:
    """Return the question that one turn of the assistant answers; ``answers`` are all accepted ones."""
    answer = _text(sample.messages[turn])
    answers = list(sample.references) if turn == len(sample.messages) - 1 else []
    if answer not in answers:
        answers.insert(0, answer)
    question = _text(sample.messages[turn - 1])
    before = [{"role": message["role"], "content": message["content"]} for message in sample.messages[:turn]]
    return {"question": question, "answer": answer, "answers": answers, "messages": before}


def _text(message: Message) -> str:
    return "".join(part["text"] for part in message["content"] if part["type"] == "text")


def _image(image: StoredImage, name: str) -> BenchmarkImage:
    if isinstance(image, Image.Image):
        return LoadedImage(image)
    try:
        with undecoded(image if isinstance(image, Path) else image.data, limits=DATA_SET_LIMITS) as opened:
            return _SampleImage(name, upright_size(opened), num_frames(opened) > 1, image)
    except ImageError as error:
        return DamagedImage(name, str(error))


def _default_metric(rows: Sequence[Row]) -> tuple[str, str]:
    """Return the metric that fits the answers, and the reason."""
    answers = [row["answers"] for row in rows]
    if all(find_boxes(members[0]) for members in answers):
        return "iou", "the answers are boxes"
    if all(members[0] in options_in(row["question"]) for row, members in zip(rows, answers, strict=True)):
        return "choice", "the answers are letters of options"
    if mean(len(members) for members in answers) >= _ANNOTATORS:
        return "vqa", "the questions have the answers of several annotators"
    if any(len(members) > 1 for members in answers):
        return "anls", "some questions have several accepted answers"
    name = choose_metric([members[0] for members in answers]).name
    lengths = {"exact": "short", "anls": "sentences", "cer": "passages", "iou": "boxes"}
    return name, f"the answers are {lengths[name]}"


def _check_answers(metric: str, rows: Sequence[Row], ids: Sequence[str]) -> None:
    """Check that a metric can score the answers.

    Raises:
        ValueError: An answer is no box, or no letter of an option.
    """
    for row, name in zip(rows, ids, strict=True):
        if metric == "iou" and not find_boxes(row["answer"]):
            raise ValueError(f"--metric iou: the answer to {name} has no box [x0, y0, x1, y1]: {row['answer'][:80]!r}")
        if metric == "choice" and row["answer"] not in options_in(row["question"]):
            raise ValueError(
                f"--metric choice: the answer to {name} is no option of its question: {row['answer'][:80]!r}"
            )


def open_own_data(
    path: Path | str, metric: str | None = None, *, image_folder: Path | None = None, format: str | None = None
) -> "tuple[OwnData, OwnQuestions]":
    """Open a data file as a benchmark, named after the file or its folder, and its questions.

    Args:
        path: The file, folder or shards.
        metric: Key of `METRICS`; None chooses one by the answers.
        image_folder: Folder of its images; by default that of the file.
        format: Name of its format; by default it is recognized.

    Raises:
        ValueError: The metric is unknown, or the file cannot be used.
    """
    if metric is not None and metric not in METRICS:
        raise ValueError(f"--metric must be one of {', '.join(METRICS)}, got {metric!r}")
    questions = OwnQuestions(path, metric, image_folder=image_folder, format=format)
    place = Path(os.path.abspath(path)) if "://" not in str(path) else Path(str(path))
    stem = place.name.partition(".")[0]
    stem = place.parent.name if stem in _NAMELESS else stem
    name = re.sub(r"[^\w+-]", "-", stem).strip("-") or "data"
    own = OwnData(f"{name}-data" if name.lower() in {known.lower() for known in ALL} else name, questions.metric)
    own.questions = questions
    return own, questions


def benchmark_of(name: str, run: Mapping[str, Any] | None) -> Benchmark:
    """Return the benchmark of predictions: own data by the metric in their protocol, any other by its name.

    Raises:
        ValueError: The name is unknown.
    """
    metric = (run or {}).get("protocol", {}).get("data", {}).get("metric")
    return find_benchmark(name) if metric is None else OwnData(name, metric)
