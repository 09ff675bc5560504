"""MME: two questions about each image, one to be answered yes and one no."""

from collections.abc import Iterable, Mapping
from typing import Any

from .profiles import Profile
from .yes_no import extract_yes_no

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


def mme_scores(rows: Iterable[Mapping[str, Any]], *, profile: Profile = "paper") -> dict[str, Any]:
    """Return MME's points.

    Args:
        rows: With category, image_path, answer ("Yes" or "No") and prediction.
        profile: Of the yes/no extraction.

    Returns:
        ``per_category``: points of each subtask, 100 times the share of right answers plus 100 times the share
        of images with both right (at most 200); ``perception``: sum of ten subtasks, the number that is
        called MME in papers (at most 2000); ``cognition``: sum of the other four (at most 800); ``accuracy`` and
        ``accuracy_plus`` by subtask. Subtasks without rows are left out and add nothing.
    """
    images: dict[str, dict[Any, list[bool]]] = {}
    for row in rows:
        right = extract_yes_no(text_of(row["prediction"]), profile=profile) == row["answer"]
        images.setdefault(row["category"], {}).setdefault(_key(row["image_path"]), []).append(right)
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


def text_of(prediction: object) -> str:
    """Return a prediction as text; none at all is an empty one."""
    return "" if prediction is None else str(prediction)


def _accuracy(images: Mapping[Any, list[bool]]) -> float:
    answers = [right for own in images.values() for right in own]
    return 100 * sum(answers) / len(answers)


def _accuracy_plus(images: Mapping[Any, list[bool]]) -> float:
    """The first two rows of an image are its pair."""
    return 100 * sum(len(own) > 1 and own[0] and own[1] for own in images.values()) / len(images)


def _key(image_path: Any) -> Any:
    return tuple(image_path) if isinstance(image_path, list) else image_path
