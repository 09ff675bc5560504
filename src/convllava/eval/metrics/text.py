"""Edit distance, and what is made of it."""

from collections.abc import Sequence

ANLS_THRESHOLD = 0.5
"""Similarity below which an answer counts nothing."""


def edit_distance(prediction: str, truth: str) -> int:
    """Return the insertions, deletions and substitutions of single characters between two texts."""
    if prediction == truth:
        return 0
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
    return _plain(prediction) == _plain(truth)


def anls(prediction: str, answers: Sequence[str]) -> float:
    """Return the average normalized Levenshtein similarity of one question, from 0 to 1.

    The best of all references counts. Case and the amount of white space do not matter to the distance; the
    length it is divided by is that of the longer text as it was given, in capitals (so that a sharp s counts
    twice), as VLMEvalKit has it. Below one half nothing counts; no references give 0.
    """
    if not answers:
        return 0.0
    similarity = 1 - min(_relative_distance(prediction, answer) for answer in answers)
    return similarity if similarity >= ANLS_THRESHOLD else 0.0


def _relative_distance(prediction: str, answer: str) -> float:
    length = max(len(prediction.upper()), len(answer.upper()))
    return edit_distance(_collapsed(prediction), _collapsed(answer)) / length if length else 0.0


def _collapsed(text: str) -> str:
    return " ".join(text.lower().split())


def _plain(text: str) -> str:
    return text.strip().removesuffix(".").casefold()
