"""Metrics of short answers, which evaluation and training share: exact match, ANLS, edits per character, boxes.

They need neither torch nor numpy. ``eval.metrics`` has those that reproduce a published script.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Literal

from .geometry import Box, box_iou, find_boxes

MetricName = Literal["exact", "anls", "cer", "iou"]

ANLS_THRESHOLD = 0.5
"""Similarity below which an answer scores 0."""

BOX_IOU = 0.5
"""Intersection over union from which on two boxes are the same."""

SHORT = 24
"""Length in characters of answers that are right or wrong as they are; longer ones may be right in part."""

PASSAGE = 100
"""Length in characters from which on an answer is a passage, whose edits are counted."""


@dataclass(frozen=True)
class Metric:
    """A figure over answers: a sum of credits divided by a sum of weights.

    Attributes:
        name: Name in recipes and options.
        title: Name in prose.
        higher_is_better: Whether larger values are better.
        credit: Function of an answer and its truth that returns credit and weight.
    """

    name: MetricName
    title: str
    higher_is_better: bool
    credit: Callable[[str, str], tuple[float, float]]

    def value(self, pairs: Sequence[tuple[str, str]]) -> float:
        """Return the figure of (answer, truth) pairs.

        Raises:
            ValueError: There are no pairs.
        """
        if not pairs:
            raise ValueError(f"{self.title} needs at least one answer")
        credits, weights = zip(*(self.credit(answer, truth) for answer, truth in pairs), strict=True)
        return sum(credits) / sum(weights)


def choose_metric(truths: Sequence[str]) -> Metric:
    """Return the metric that fits true answers: boxes, short answers, sentences or passages.

    Raises:
        ValueError: There are no answers.
    """
    if not truths:
        raise ValueError("a metric is chosen from true answers, and there are none")
    if all(find_boxes(truth) for truth in truths):
        return METRICS["iou"]
    lengths = sorted(len(truth) for truth in truths)
    typical = lengths[len(lengths) * 9 // 10]  # nine in ten are at most as long
    return METRICS["exact" if typical <= SHORT else "anls" if typical <= PASSAGE else "cer"]


def edit_distance(prediction: Sequence[Hashable], truth: Sequence[Hashable]) -> int:
    """Return the Levenshtein distance of two texts in characters, or of two lists in members.

    It keeps a column of the table of distances as bits of two integers, one bit for each step up and each step down
    (Myers 1999): the arithmetic of long integers does in one step what a loop over the column does in many.
    """
    if prediction == truth:
        return 0
    if not prediction or not truth:
        return len(prediction) + len(truth)
    places: dict[Hashable, int] = {}
    for number, member in enumerate(truth):
        places[member] = places.get(member, 0) | 1 << number
    size = len(truth)
    full, top = (1 << size) - 1, 1 << (size - 1)
    up, down, distance = full, 0, size  # steps of +1 and -1 from one row of the column to the next
    for member in prediction:
        equal = places.get(member, 0)
        diagonal = (((equal & up) + up) ^ up) | equal
        right, left = down | ~(diagonal | up) & full, up & diagonal
        distance += bool(right & top) - bool(left & top)
        vertical = equal | down
        right, left = (right << 1 | 1) & full, left << 1 & full
        up, down = left | ~(vertical | right) & full, right & vertical
    return distance


def character_error_rate(pairs: Sequence[tuple[str, str]]) -> float:
    """Return edits per true character over all (prediction, truth) pairs; may exceed 1."""
    edits = sum(edit_distance(prediction, truth) for prediction, truth in pairs)
    return edits / sum(len(truth) for _, truth in pairs)


def exact_match(prediction: str, truth: str) -> bool:
    """Return whether two short answers are equal, ignoring case, outer blanks and a final period."""
    return _plain(prediction) == _plain(truth)


def anls(prediction: str, answers: Sequence[str]) -> float:
    """Return the average normalized Levenshtein similarity of one question, from 0 to 1, as VLMEvalKit computes it.

    The most similar reference counts. The distance ignores case and the amount of white space. It is divided by the
    length of the longer text as given, in capitals, so that a sharp s counts twice. A similarity below one half
    scores 0, and so does a question without references.
    """
    if not answers:
        return 0.0
    similarity = 1 - min(_relative_distance(prediction, answer) for answer in answers)
    return similarity if similarity >= ANLS_THRESHOLD else 0.0


def box_accuracy(prediction: str, truth: str) -> float:
    """Return the share of boxes, of the longer list of an answer's and the true ones, that overlap one of the other.

    Two boxes overlap with an intersection over union of at least one half, as in RefCOCO. The share is 0 without boxes.
    Boxes in thousandths are read like fractions.
    """
    remaining, expected = boxes_as_fractions(prediction), boxes_as_fractions(truth)
    if not remaining or not expected:
        return 0.0
    longest, hits = max(len(remaining), len(expected)), 0
    for box in expected:
        overlaps = [box_iou(box, other) for other in remaining]
        if overlaps and max(overlaps) >= BOX_IOU:
            del remaining[overlaps.index(max(overlaps))]
            hits += 1
    return hits / longest


def boxes_as_fractions(text: str) -> list[Box]:
    """Return the boxes in a text as fractions, also where a model writes thousandths."""
    boxes = find_boxes(text)
    return [tuple(edge / 1000 for edge in box) if max(box) > 1 else box for box in boxes]  # type: ignore[misc]


def _relative_distance(prediction: str, answer: str) -> float:
    length = max(len(prediction.upper()), len(answer.upper()))
    return edit_distance(_collapsed(prediction), _collapsed(answer)) / length if length else 0.0


def _collapsed(text: str) -> str:
    return " ".join(text.lower().split())


def _plain(text: str) -> str:
    return text.strip().removesuffix(".").casefold()


METRICS: dict[MetricName, Metric] = {
    "exact": Metric("exact", "exact match", True, lambda text, truth: (float(exact_match(text, truth)), 1.0)),
    "anls": Metric("anls", "ANLS", True, lambda text, truth: (anls(text, [truth]), 1.0)),
    "cer": Metric(
        "cer", "character error rate", False, lambda text, truth: (edit_distance(text, truth), max(len(truth), 1))
    ),
    "iou": Metric("iou", "boxes with IoU >= 0.5", True, lambda text, truth: (box_accuracy(text, truth), 1.0)),
}
"""Every metric by name."""
