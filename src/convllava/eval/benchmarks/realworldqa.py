"""RealWorldQA (xAI): multiple choice about photographs, many of them from cars."""

import re
from typing import Any

from ..multiple_choice import ChoiceBenchmark
from ..outcome import Prediction, Row, Scoring
from ..table import Table

OPEN = "open"
"""Value of ``question_type`` for questions of the hub that have no options."""

_OPTION = re.compile(r"\s*([A-Z])\.\s*(.*?)\s*")
# Instructions at the end of the hub's questions.
_CHOOSE_LETTER = "Please answer directly with only the letter of the correct option and nothing else."
_SINGLE_WORD = "Please answer directly with a single word or number."


class RealWorldQA(ChoiceBenchmark):
    """765 questions. The TSV was published in several versions, which the MD5 sum tells apart.

    In the TSV every question has options. On the hub, options are part of the text, and many questions have none but
    ask for a word or a number. Their answers must be equal to the reference, ignoring case and a final period, as
    lmms-eval scores them.
    """

    name = "realworldqa"
    title = "RealWorldQA"
    file = "RealWorldQA"
    hub = "lmms-lab/RealWorldQA"
    size = 765
    known_md5 = frozenset(
        {
            "b7fc0bee84d301627cf37581ef139035",
            "92321028d2bc29040284b6674721e48f",
            "4de008f55dc4fd008ca9e15321dc44b7",
        }
    )

    def from_hub(self, row: Row) -> Row | None:
        """Return a row of the hub, with question, options and instruction separated as in the TSV."""
        text = str(row["question"])
        lines = text.replace(_CHOOSE_LETTER, "").replace(_SINGLE_WORD, "").rstrip().split("\n")
        found = [(number, match) for number, line in enumerate(lines) if (match := _OPTION.fullmatch(line))]
        answer = str(row["answer"]).strip()
        if not lines[0].strip():
            raise ValueError(f"a question is empty but for its options and instruction: {text!r}")
        if not found:
            if _CHOOSE_LETTER in text:
                raise ValueError(f"a question asks for a letter and has no options such as 'A. left': {text!r}")
            return {"question": "\n".join(lines), "answer": answer, "question_type": OPEN}
        options = {match[1]: match[2] for _, match in found}
        if answer not in options:
            raise ValueError(f"the answer {answer!r} is none of the options {', '.join(options)} of {text!r}")
        return {"question": "\n".join(lines[: found[0][0]]).rstrip(), **options, "answer": answer}

    def extract(self, prediction: Prediction, scoring: Scoring) -> str | None:
        if prediction.row.get("question_type") != OPEN:
            return super().extract(prediction, scoring)
        return None if prediction.error is not None else _plain(prediction.text)

    def correct_letter(self, row: Row) -> str:
        """Return the letter of the correct option, or the answer to a question without options."""
        return _plain(row["answer"]) if row.get("question_type") == OPEN else super().correct_letter(row)

    def data_warnings(self, table: Table, num_questions: int) -> list[str]:
        warnings = super().data_warnings(table, num_questions)
        num_open = sum(row.get("question_type") == OPEN for row in table.rows)
        if num_open:
            warnings.append(
                f"{num_open} of {num_questions} questions of {table.path.name} have no options and are scored by the "
                "exact word, as lmms-eval does; in VLMEvalKit's TSV every question has options, so figures of the two "
                "differ"
            )
        return warnings


def _plain(text: Any) -> str:
    return str(text).strip().rstrip(".").lower()
