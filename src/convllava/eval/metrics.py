"""Metrics as pure functions of a prediction and the truth."""

from collections.abc import Sequence

from ..geometry import box_from_square, box_iou, find_boxes


def edit_distance(prediction: str, truth: str) -> int:
    """Return the insertions, deletions and substitutions of single characters between two texts."""
    previous = list(range(len(truth) + 1))
    for row, predicted in enumerate(prediction, start=1):
        current = [row]
        for column, wanted in enumerate(truth, start=1):
            substituted = previous[column - 1] + (predicted != wanted)
            current.append(min(previous[column] + 1, current[-1] + 1, substituted))
        previous = current
    return previous[-1]


def character_error_rate(pairs: Sequence[tuple[str, str]]) -> float:
    """Return edits per true character over all (prediction, truth) pairs; may exceed 1."""
    edits = sum(edit_distance(prediction, truth) for prediction, truth in pairs)
    return edits / sum(len(truth) for _, truth in pairs)


def exact_match(prediction: str, truth: str) -> bool:
    """Return whether two short answers agree, apart from case, outer blanks and a final full stop."""
    return _normalised(prediction) == _normalised(truth)


def grounding_hit(text: str, gt_xyxy: Sequence[float], width: int, height: int, *, threshold: float = 0.5) -> bool:
    """Return whether the first box written in ``text`` overlaps the true one.

    Args:
        text: An answer with a box in fractions of the padded square.
        gt_xyxy: The true box in pixels of the ``width`` x ``height`` picture.
        threshold: Smallest intersection over union that counts.
    """
    boxes = find_boxes(text)
    if not boxes:
        return False
    return box_iou(box_from_square(boxes[0], width, height), gt_xyxy) >= threshold


def _normalised(text: str) -> str:
    return text.strip().removesuffix(".").casefold()
