"""Formats of single questions: Alpaca, question and answer, multiple choice, captions.

The Alpaca format is LlamaFactory's, with ``input``, ``history``, ``system`` and ``images``. The other records have no
fixed names: the usual ones of the Hub and of tables are known.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from ..faults import RecordError
from ..images import shortened
from .record_format import IMAGE_KEYS, Record, RecordFormat, dialogue, first_value, images_of, question_turn, text_of

QUESTION_KEYS = ("question", "query", "prompt", "problem", "instruction")
ANSWER_KEYS = ("answers", "answer", "label", "response", "output", "completion", "multiple_choice_answer", "solution")
CAPTION_KEYS = ("caption", "captions", "text", "description", "transcription", "transcript")
CHOICE_KEYS = ("choices", "options")
_HINT_KEYS = frozenset(("hint", "context", "lecture"))
_CHOICE_KEYS = frozenset(("choices", "options", "A"))


def _is_alpaca(record: Record) -> bool:
    return isinstance(record.get("instruction"), str) and "output" in record


def read_alpaca(record: Record, _: Path) -> dict[str, Any]:
    """Return the dialogue of a record of LlamaFactory's Alpaca format."""
    images = images_of(record)
    asked = [text_of(record["instruction"], "instruction")]
    if first_value(record, ("input",)) is not None:
        asked.append(text_of(record["input"], "input"))
    pairs = [_pair(pair) for pair in record.get("history") or []]
    pairs.append(("\n".join(asked), text_of(first_value(record, ("output",)) or "", "output")))
    turns: list[dict[str, Any]] = []
    for number, (question, answer) in enumerate(pairs):
        turns.append(question_turn(question, len(images) if number == 0 and not _is_placed(pairs) else 0))
        turns.append({"role": "assistant", "content": answer})
    return dialogue(record, turns, images)


def _is_placed(pairs: Sequence[tuple[str, str]]) -> bool:
    return any("<image>" in question for question, _ in pairs)


def _pair(pair: Any) -> tuple[str, str]:
    if not isinstance(pair, list) or len(pair) != 2:
        raise RecordError("malformed", f"'history' must be pairs of question and answer, got {shortened(pair)}")
    return text_of(pair[0], "history"), text_of(pair[1], "history")


def choices_of(record: Record) -> list[str]:
    """Return the options of a multiple choice question: a list, or the columns A, B, ..."""
    given = first_value(record, CHOICE_KEYS)
    if isinstance(given, list):
        return [text_of(one, "choices") for one in given]
    if first_value(record, ("A",)) is None or first_value(record, ("B",)) is None:
        return []
    columns = [record.get(letter) for letter in ascii_uppercase]
    count = next(number for number, value in enumerate([*columns, None]) if value in (None, ""))
    return [text_of(value, "A") for value in columns[:count]]


def _is_qa(record: Record) -> bool:
    return isinstance(first_value(record, QUESTION_KEYS), str) and any(key in record for key in ANSWER_KEYS)


def _read_qa(record: Record, _: Path) -> dict[str, Any]:
    images = images_of(record)
    question = text_of(first_value(record, QUESTION_KEYS), "question")
    choices = [] if _CHOICE_KEYS.isdisjoint(record) else choices_of(record)
    answers = _answers(record)
    if choices:
        question = with_choices(question, choices)
        answers = [letter_of(answer, choices) for answer in answers]
    hint = None if _HINT_KEYS.isdisjoint(record) else first_value(record, ("hint", "context", "lecture"))
    text = f"{hint}\n{question}" if isinstance(hint, str) else question
    if not answers:
        raise RecordError("no_answer", "the answer is empty: there is nothing to learn from")
    most = answers[0] if len(answers) == 1 else Counter(answers).most_common(1)[0][0]
    turns = [question_turn(text, len(images)), {"role": "assistant", "content": most}]
    return dialogue(record, turns, images, answers)


def with_choices(question: str, choices: Sequence[str]) -> str:
    """Return a question with its options, one a line."""
    return "\n".join([question, *(f"{letter}. {choice}" for letter, choice in zip(ascii_uppercase, choices))])  # noqa: B905


def letter_of(answer: str, choices: Sequence[str]) -> str:
    """Return the letter of the right option, which a record may give as letter, number from 0, or text.

    Raises:
        RecordError: The answer is none of the options.
    """
    if len(answer) == 1 and answer.upper() in ascii_uppercase[: len(choices)]:
        return answer.upper()
    if answer in choices:
        return ascii_uppercase[list(choices).index(answer)]
    if answer.isdecimal() and int(answer) < len(choices):
        return ascii_uppercase[int(answer)]
    raise RecordError("malformed", f"the answer {shortened(answer)} is none of the options {shortened(list(choices))}")


def _answers(record: Record) -> list[str]:
    """Return the accepted answers; of VQA's records of annotators, the answer of each."""
    given = first_value(record, ANSWER_KEYS)
    members = given if isinstance(given, list) else [given]
    texts = (one.get("answer") if isinstance(one, dict) else one for one in members)
    return [text_of(one, "answer") for one in texts if one is not None and one != ""]


def _is_caption(record: Record) -> bool:
    return first_value(record, IMAGE_KEYS) is not None and any(key in record for key in CAPTION_KEYS)


def _read_caption(record: Record, _: Path) -> dict[str, Any]:
    images = images_of(record)
    given = first_value(record, CAPTION_KEYS)
    captions = [text_of(one, "caption") for one in (given if isinstance(given, list) else [given or ""])]
    turns = [question_turn("", len(images)), {"role": "assistant", "content": captions[0]}]
    return dialogue(record, turns, images, captions)


QUESTIONS = (
    RecordFormat("alpaca", "Alpaca", _is_alpaca, read_alpaca),
    RecordFormat("qa", "question and answer", _is_qa, _read_qa),
    RecordFormat("caption", "captions", _is_caption, _read_caption),
)
"""Formats of single questions, the most specific first."""
