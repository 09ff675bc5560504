"""Soft accuracy of visual question answering, with the kit's normalization of answers."""

import re
from collections.abc import Sequence

from .profiles import Profile, check_profile
from .vqa_words import ARTICLES, CONTRACTIONS, NUMBER_WORDS

_MARKS = ';/[]"{}()=+\\_->' + "<@`,?!"
_THOUSANDS = re.compile(r"\d,\d")
_STOP_BEFORE_NO_DIGIT = re.compile(r"\.(?!\d)")
_STOP_BESIDE_NO_DIGIT = re.compile(r"(?<!\d)\.(?!\d)")
_MOST_STOPS = 32
"""Full stops that the kit removes at most: there, a flag stands where a count is expected."""

ENOUGH_MATCHES = 3
"""Annotators who must have given the same answer for the full score."""


def normalize_vqa_answer(text: str, *, profile: Profile = "paper") -> str:
    """Return an answer as it is compared: no marks, lower case, digits for number words, no articles.

    Args:
        text: An answer, predicted or annotated.
        profile: ``paper`` removes a full stop unless a digit follows, ``current`` also keeps it behind a digit.
    """
    check_profile(profile)
    line = text.replace("\n", " ").replace("\t", " ").strip()
    return _normalize_words(strip_marks(line, profile=profile))


def vqa_accuracy(prediction: str, answers: Sequence[str], *, profile: Profile = "paper") -> float:
    """Return the soft accuracy, from 0 to 1, of an answer that several people were asked for.

    For each annotator: matches among all others over three, at most 1; then the mean. Ten annotators of whom
    k agree with the prediction give 0, 0.3, 0.6, 0.9 and, from four on, 1. No annotators give 0.
    """
    wanted = normalize_vqa_answer(prediction, profile=profile)
    matches = [normalize_vqa_answer(answer, profile=profile) == wanted for answer in answers]
    scores = [min(1.0, (sum(matches) - own) / ENOUGH_MATCHES) for own in matches]
    return sum(scores) / len(scores) if scores else 0.0


def strip_marks(text: str, *, profile: Profile = "paper") -> str:
    """Remove punctuation or put a blank in its place, all marks of a kind alike, then remove full stops."""
    has_thousands = _THOUSANDS.search(text) is not None
    stripped = text
    for mark in _MARKS:
        dropped = has_thousands or mark + " " in text or " " + mark in text
        stripped = stripped.replace(mark, "" if dropped else " ")
    stop = _STOP_BEFORE_NO_DIGIT if profile == "paper" else _STOP_BESIDE_NO_DIGIT
    return stop.sub("", stripped, count=_MOST_STOPS)


def _normalize_words(text: str) -> str:
    words = (NUMBER_WORDS.get(word, word) for word in text.lower().split())
    return " ".join(CONTRACTIONS.get(word, word) for word in words if word not in ARTICLES)
