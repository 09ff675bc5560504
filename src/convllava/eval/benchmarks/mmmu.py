"""MMMU, validation split: questions of 30 subjects, some with several images, some without options."""

import re

from ..prompts import Part, choice_text, images_first, interleaved, options_of
from ..sources.cells import parse_list
from .base import LoadOptions, Row
from .choice import ChoiceBenchmark

OTHER_ANSWERS = "Other Answers"

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
_HUB_ID = re.compile(r"^(?P<split>[a-z]+)_(?P<subject>.+)_(?P<number>\d+)$")


class MMMU(ChoiceBenchmark):
    """900 questions of the validation split; the 150 of dev in the same file are left out."""

    name = "mmmu"
    title = "MMMU val"
    file = "MMMU_DEV_VAL"
    hub = "lmms-lab/MMMU"
    hub_split = "validation"
    size = 900
    columns = ("question", "answer", "A", "B", "split")
    known_md5 = frozenset({"521afc0f3bf341e6654327792781644d", "585e8ad75e73f75dcad265dfd0417d64"})

    def keeps(self, row: Row) -> bool:
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

    def parts(self, row: Row, images: int, options: LoadOptions) -> list[Part]:
        text = choice_text(row, options.prompts)
        return images_first(text, images) if options.prompts == "current" else interleaved(text, images)

    def categories(self, row: Row) -> list[str]:
        discipline = row.get("l2-category")
        return [*super().categories(row), *([f"l2: {discipline}"] if discipline is not None else [])]

    def choices(self, row: Row) -> dict[str, str]:
        """An open question is scored as a choice between its answer and all others."""
        return {"A": str(row["answer"]), "B": OTHER_ANSWERS} if _is_open(row) else options_of(row)

    def key(self, row: Row) -> str:
        answer = str(row["answer"])
        is_letter = len(answer) == 1 and answer.isascii() and answer.isupper()
        return "A" if _is_open(row) and not is_letter else answer


def _is_open(row: Row) -> bool:
    return row.get("A") is None
