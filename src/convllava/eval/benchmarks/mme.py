"""MME (arXiv 2306.13394): two yes/no questions about each image, one of each answer.

A subtask scores 100 times the share of correct answers plus 100 times the share of images with both correct. The
figure is the sum over the ten perception subtasks, which papers call MME.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from ..benchmark import Benchmark, LoadOptions
from ..metrics import Profile, extract_yes_no
from ..outcome import Outcome, Prediction, Row, Scoring, Verdict, yes_no_verdict
from ..prompts import SINGLE_WORD, PromptPart, images_first

PERCEPTION = (
    "existence",
    "count",
    "position",
    "color",
    "posters",
    "celebrity",
    "scene",
    "landmark",
    "artwork",
    "OCR",
)
COGNITION = ("commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning")

_REQUEST = " Please answer yes or no."
_NUM_COUNTS = 4  # columns of a subtask: correct answers, questions, images with both correct, images


class MME(Benchmark):
    """2374 questions of 14 subtasks: at most 2000 points for perception and 800 for cognition."""

    name = "mme"
    title = "MME"
    file = "MME"
    hub = "lmms-lab/MME"
    columns = ("question", "answer", "category", "image_path")
    size = 2374
    known_md5 = frozenset({"b36b43c3f09801f5d368627fb92187c3"})
    metric = "perception points"
    unit = "images"  # a subtask counts an image whose two questions are both correct
    judge = "yes_no"

    def from_hub(self, row: Row) -> Row | None:
        question_id = row["question_id"]
        return {
            "index": f"{row['category']}/{question_id}/{row['answer']}",
            "question": row["question"],
            "answer": row["answer"],
            "category": row["category"],
            "image_path": question_id,
        }

    def prompt(self, row: Row, num_images: int, options: LoadOptions) -> list[PromptPart]:
        question = str(row["question"])
        if options.prompts == "llava":
            question = f"{question.removesuffix(_REQUEST)}\n{SINGLE_WORD}"
        return images_first(question, num_images)

    def verdict(self, prediction: Prediction, scoring: Scoring) -> Verdict:
        return yes_no_verdict(prediction, scoring)

    def unit_of(self, prediction: Prediction) -> str:
        """Return the subtask and the image."""
        return f"{prediction.row['category']}/{prediction.row['image_path']}"

    def outcome(self, predictions: Sequence[Prediction], scoring: Scoring) -> Outcome:
        verdicts = self.verdicts(predictions, scoring)
        pairs = zip(predictions, verdicts, strict=True)
        rows = [{**prediction.row, "prediction": verdict.extracted} for prediction, verdict in pairs]
        scores = mme_scores(rows, profile=scoring.profile)
        units, columns = _counts_per_image(predictions, [bool(verdict.credit) for verdict in verdicts])
        figures = {name: scores[name] for name in ("perception", "cognition", "accuracy", "accuracy_plus")}
        return Outcome(verdicts, units, columns, partial(_points, PERCEPTION), scores["per_category"], figures)


def mme_scores(rows: Iterable[Mapping[str, Any]], *, profile: Profile = "paper") -> dict[str, Any]:
    """Return MME's points.

    Args:
        rows: Rows with category (the subtask), image_path, answer ("Yes" or "No") and prediction.
        profile: Version of the yes/no extraction.

    Returns:
        ``per_category``: points of each subtask, at most 200. ``perception``: sum over ten subtasks, at most 2000.
        ``cognition``: sum over the other four, at most 800. ``accuracy`` and ``accuracy_plus``: the two shares of
        each subtask in percent. Subtasks without rows are left out and add nothing.
    """
    images: dict[str, dict[Any, list[bool]]] = {}
    for row in rows:
        correct = extract_yes_no(str(row["prediction"] or ""), profile=profile) == row["answer"]
        images.setdefault(row["category"], {}).setdefault(_image_key(row["image_path"]), []).append(correct)
    accuracy = {name: _accuracy(groups) for name, groups in images.items()}
    accuracy_plus = {name: _accuracy_plus(groups) for name, groups in images.items()}
    points = {name: accuracy[name] + accuracy_plus[name] for name in images}
    return {
        "per_category": points,
        "perception": sum(points[name] for name in PERCEPTION if name in points),
        "cognition": sum(points[name] for name in COGNITION if name in points),
        "accuracy": accuracy,
        "accuracy_plus": accuracy_plus,
    }


def _accuracy(images: Mapping[Any, list[bool]]) -> float:
    answers = [correct for group in images.values() for correct in group]
    return 100 * sum(answers) / len(answers)


def _accuracy_plus(images: Mapping[Any, list[bool]]) -> float:
    """Return the share of images with both correct; the first two rows of an image are its pair."""
    return 100 * sum(_both_correct(group) for group in images.values()) / len(images)


def _both_correct(answers: Sequence[bool]) -> bool:
    return len(answers) > 1 and all(answers[:2])


def _image_key(image_path: Any) -> Any:
    return tuple(image_path) if isinstance(image_path, list) else image_path


def _counts_per_image(predictions: Sequence[Prediction], correct: Sequence[bool]) -> tuple[list[str], np.ndarray]:
    """Return the names of the images and their counts of shape (images, subtasks x 4)."""
    images: dict[tuple[str, str], list[bool]] = {}
    for prediction, is_correct in zip(predictions, correct, strict=True):
        key = prediction.row["category"], str(prediction.row["image_path"])
        images.setdefault(key, []).append(is_correct)
    subtasks = (*PERCEPTION, *COGNITION)
    columns = np.zeros((len(images), len(subtasks) * _NUM_COUNTS))
    for counts, ((category, _), answers) in zip(columns, images.items(), strict=True):
        if category in subtasks:
            start = subtasks.index(category) * _NUM_COUNTS
            counts[start : start + _NUM_COUNTS] = sum(answers), len(answers), _both_correct(answers), 1
    return [f"{category}/{path}" for category, path in images], columns


def _points(subtasks: Sequence[str], sums: np.ndarray) -> np.ndarray:
    """Return the points of the first subtasks, from sums (..., subtasks x 4) to (...)."""
    counts = sums.reshape(*sums.shape[:-1], -1, _NUM_COUNTS)[..., : len(subtasks), :]
    correct, questions, both, images = (counts[..., number] for number in range(_NUM_COUNTS))
    shares = correct / np.maximum(questions, 1) + both / np.maximum(images, 1)
    points: np.ndarray = 100 * shares.sum(axis=-1)
    return points
