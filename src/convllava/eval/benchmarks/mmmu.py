"""MMMU, validation split (arXiv 2311.16502): 30 subjects, some questions with several images or without options.

VLMEvalKit reads the answer to an open question as a choice between the reference and all other answers, and finds the
reference anywhere in it: with the reference 5, "15" and "A" are correct. The paper's figures are read in this way, and
so is profile ``paper``; profile ``current`` compares the whole answer.
"""

import re
from collections.abc import Sequence
from dataclasses import replace

from ..benchmark import LoadOptions
from ..metrics import exact_match
from ..multiple_choice import ChoiceBenchmark, choice_text, options_of
from ..outcome import Outcome, Prediction, Row, Scoring, Verdict
from ..prompts import PromptPart, images_first
from ..table import parse_answers, parse_list

OTHER_ANSWERS = "Other Answers"
"""Text of option B of an open question in VLMEvalKit; option A is the correct answer."""

_DISCIPLINES = {
    "Art & Design": "Art Art_Theory Design Music",
    "Business": "Accounting Economics Finance Manage Marketing",
    "Science": "Biology Chemistry Geography Math Physics",
    "Health & Medicine": (
        "Basic_Medical_Science Clinical_Medicine Diagnostics_and_Laboratory_Medicine Pharmacy Public_Health"
    ),
    "Humanities & Social Science": "History Literature Sociology Psychology",
    "Tech & Engineering": (
        "Agriculture Architecture_and_Engineering Computer_Science Electronics Energy_and_Power Materials "
        "Mechanical_Engineering"
    ),
}
_DISCIPLINE_OF = {subject: name for name, subjects in _DISCIPLINES.items() for subject in subjects.split()}
_LEAD_IN = re.compile(r"^.*(?:\banswer(?: is|:)|=)\s*", re.IGNORECASE | re.DOTALL)
_IMAGE_TAG = re.compile(r"<image (\d)>")
_HUB_ID = re.compile(r"^(?P<split>[a-z]+)_(?P<subject>.+)_(?P<number>\d+)$")


class MMMU(ChoiceBenchmark):
    """900 questions of the validation split; the 150 of dev in the same file are left out.

    Args:
        kit_reading: Whether open questions are read as VLMEvalKit reads them under every profile.
    """

    name = "mmmu"
    title = "MMMU val"
    file = "MMMU_DEV_VAL"
    hub = "lmms-lab/MMMU"
    hub_split = "validation"
    size = 900
    columns = ("question", "answer", "A", "B", "split")
    known_md5 = frozenset({"521afc0f3bf341e6654327792781644d", "585e8ad75e73f75dcad265dfd0417d64"})

    def __init__(self, *, kit_reading: bool = False) -> None:
        self.kit_reading = kit_reading

    def includes(self, row: Row) -> bool:
        return bool(row["split"] == "validation")

    def from_hub(self, row: Row) -> Row | None:
        found = _HUB_ID.match(row["id"])
        if not found:
            raise ValueError(f"MMMU id {row['id']!r} is not SPLIT_SUBJECT_NUMBER")
        options = parse_list(row["options"]) or []
        return {
            "index": row["id"],
            "question": row["question"],
            **dict(zip("ABCDEFGHI", map(str, options), strict=False)),
            "answer": row["answer"],
            "category": found["subject"],
            "l2-category": _DISCIPLINE_OF.get(found["subject"]),
            "split": found["split"],
        }

    def prompt(self, row: Row, num_images: int, options: LoadOptions) -> list[PromptPart]:
        text = choice_text(row, options.prompts)
        return images_first(text, num_images) if options.prompts == "current" else interleaved(text, num_images)

    def categories(self, row: Row) -> list[str]:
        discipline = row.get("l2-category")
        return [*super().categories(row), *([f"l2: {discipline}"] if discipline is not None else [])]

    def outcome(self, predictions: Sequence[Prediction], scoring: Scoring) -> Outcome:
        plain = super().outcome(predictions, scoring)
        is_open = [_is_open(prediction.row) for prediction in predictions]
        figures: dict[str, int] = {"open_questions": sum(is_open)}
        warnings = []
        if self._reads_loosely(scoring):
            pairs = zip(predictions, plain.verdicts, is_open, strict=True)
            affected = sum(
                open_ and bool(verdict.credit) != _is_correct(prediction) for prediction, verdict, open_ in pairs
            )
            figures["open_questions_read_loosely"] = affected
            if affected:
                warnings.append(
                    f"{affected} of {sum(is_open)} open questions have another result if the whole answer must equal "
                    "the reference: this profile finds the reference anywhere in it, as VLMEvalKit did for the paper"
                )
        return replace(plain, figures=figures, warnings=warnings)

    def verdict(self, prediction: Prediction, scoring: Scoring) -> Verdict:
        """Score a prediction; in profile ``current``, an answer to an open question must equal the reference."""
        if self._reads_loosely(scoring) or not _is_open(prediction.row) or prediction.error is not None:
            return super().verdict(prediction, scoring)
        is_correct = _is_correct(prediction)
        is_resolved = is_correct or prediction.judgment is not None
        return Verdict(float(is_correct), _final_answer(prediction.text), is_resolved)

    def _reads_loosely(self, scoring: Scoring) -> bool:
        return self.kit_reading or scoring.profile == "paper"

    def choices(self, row: Row) -> dict[str, str]:
        """Return the options; an open question is a choice between its answer and all others."""
        return {"A": str(row["answer"]), "B": OTHER_ANSWERS} if _is_open(row) else options_of(row)

    def correct_letter(self, row: Row) -> str:
        answer = str(row["answer"])
        is_letter = len(answer) == 1 and answer.isascii() and answer.isupper()
        return "A" if _is_open(row) and not is_letter else answer


def interleaved(text: str, num_images: int) -> list[PromptPart]:
    """Return a prompt with image k in place of each ``<image k>``, as often as it is mentioned.

    Raises:
        ValueError: The text mentions an image that the question does not have.
    """
    pieces = _IMAGE_TAG.split(text)  # text, number, text, number, ..., text
    prompt: list[PromptPart] = []
    for position, piece in enumerate(pieces):
        if position % 2 == 0:
            prompt.append(piece)
        elif not 1 <= int(piece) <= num_images:
            raise ValueError(f"the text mentions <image {piece}> but there are {num_images} images")
        else:
            prompt.append(int(piece) - 1)
    return prompt


def _is_open(row: Row) -> bool:
    return row.get("A") is None


def _is_correct(prediction: Prediction) -> bool:
    """Return whether the whole answer to an open question equals a reference, or a judge says that it means it."""
    answer = _final_answer(prediction.text)
    references = parse_answers(prediction.row["answer"])
    return prediction.judgment == "A" or any(_is_same_answer(answer, reference) for reference in references)


def _final_answer(text: str) -> str:
    """Return the part of an answer behind "the answer is" or the last equals sign, or all of it."""
    return _LEAD_IN.sub("", text, count=1).strip().strip("*$").strip()


def _is_same_answer(answer: str, reference: str) -> bool:
    """Return whether two answers are equal: as numbers, or as texts without case and a final period."""
    first, second = _number(answer), _number(reference)
    return exact_match(answer, reference) if first is None or second is None else first == second


def _number(text: str) -> float | None:
    try:
        return float(text.strip().rstrip(".").removeprefix("$").replace(",", ""))
    except ValueError:
        return None
