"""ChartQA, test split (arXiv 2203.10244): questions about charts, by people and generated.

The figure is relaxed accuracy: a number within 5 percent of the reference, or the same text but for case.
"""

from collections.abc import Sequence

from ..benchmark import Benchmark, LoadOptions
from ..outcome import Prediction, Row, Scoring, Verdict, failed_verdict
from ..prompts import PromptPart, images_first, short_answer_text
from ..table import parse_answers

TOLERANCE = 0.05
"""Largest relative difference of a number that counts as correct."""


class ChartQA(Benchmark):
    """2500 questions, half of them by people."""

    name = "chartqa"
    title = "ChartQA test"
    file = "ChartQA_TEST"
    hub = "lmms-lab/ChartQA"
    size = 2500
    known_md5 = frozenset({"c902e0aa9be5582a7aad6dcf52734b42"})
    metric = "relaxed accuracy"

    def from_hub(self, row: Row) -> Row | None:
        return {"question": row["question"], "answer": row["answer"], "split": row["type"]}

    def prompt(self, row: Row, num_images: int, options: LoadOptions) -> list[PromptPart]:
        return images_first(short_answer_text(str(row["question"]), options.prompts), num_images)

    def verdict(self, prediction: Prediction, scoring: Scoring) -> Verdict:
        if prediction.error is not None:
            return failed_verdict()
        said = prediction.text.strip()
        correct = any(relaxed_match(said, answer) for answer in parse_answers(prediction.row["answer"]))
        return Verdict(float(correct), said, resolved=bool(said))

    def categories(self, row: Row) -> Sequence[str]:
        return [str(row["split"])] if row.get("split") is not None else []


def relaxed_match(prediction: str, answer: str) -> bool:
    """Return whether an answer is the reference: as a number within 5 percent, else as a text without case.

    ``12%`` is read as 0.12, so that it is not the same as 12. A reference of 0 is compared as a text.
    """
    number, expected = _number(prediction), _number(answer)
    if number is None or not expected:
        return prediction.lower() == answer.lower()
    return abs(number - expected) / abs(expected) <= TOLERANCE


def _number(text: str) -> float | None:
    try:
        return float(text.rstrip("%")) / 100 if text.endswith("%") else float(text)
    except ValueError:
        return None
