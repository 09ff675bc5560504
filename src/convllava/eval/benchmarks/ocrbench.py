"""OCRBench (arXiv 2305.07895): a thousand questions about text in images, in ten categories.

An answer is correct if it contains one of the references. The figure is the share of correct answers; the published
score is their number, at most 1000.
"""

from collections.abc import Sequence
from dataclasses import replace

from ..benchmark import Benchmark, LoadOptions
from ..outcome import Outcome, Prediction, Row, Scoring, Verdict, failed_verdict
from ..prompts import PromptPart, images_first
from ..table import parse_answers

FORMULAS = "Handwritten Mathematical Expression Recognition"
"""The category in which blanks do not count, and case does."""

_RECOGNITION = "Recognition"
TEXT_RECOGNITION = "Text Recognition"
"""The published sum of the six categories of single words and numbers."""


class OCRBench(Benchmark):
    """1000 questions; 300 of them are for the text alone."""

    name = "ocrbench"
    title = "OCRBench"
    file = "OCRBench"
    hub = "echo840/OCRBench"
    columns = ("question", "answer", "category")
    size = 1000
    known_md5 = frozenset({"e953d98a987cc6e26ef717b61260b778"})
    metric = "accuracy"

    def from_hub(self, row: Row) -> Row | None:
        return {"question": row["question"], "answer": list(row["answer"]), "category": row["question_type"]}

    def prompt(self, row: Row, num_images: int, options: LoadOptions) -> list[PromptPart]:
        return images_first(str(row["question"]), num_images)

    def verdict(self, prediction: Prediction, scoring: Scoring) -> Verdict:
        if prediction.error is not None:
            return failed_verdict()
        answers = parse_answers(prediction.row["answer"])
        correct = contains_answer(prediction.text, answers, is_formula=prediction.row["category"] == FORMULAS)
        said = prediction.text.strip()
        return Verdict(float(correct), said, resolved=bool(said))

    def categories(self, row: Row) -> Sequence[str]:
        category = str(row["category"])
        is_text = category.endswith(_RECOGNITION) and category != FORMULAS
        return [category, TEXT_RECOGNITION] if is_text else [category]

    def outcome(self, predictions: Sequence[Prediction], scoring: Scoring) -> Outcome:
        outcome = super().outcome(predictions, scoring)
        return replace(outcome, figures={"final_score": sum(verdict.credit for verdict in outcome.verdicts)})


def contains_answer(prediction: str, answers: Sequence[str], *, is_formula: bool) -> bool:
    """Return whether an answer contains one of the references.

    Args:
        prediction: The model's answer.
        answers: The references.
        is_formula: Whether blanks are removed and case counts, as for formulas.
    """
    return any(_plain(answer, is_formula) in _plain(prediction, is_formula) for answer in answers)


def _plain(text: str, is_formula: bool) -> str:
    line = text.strip().replace("\n", " ")
    return line.replace(" ", "") if is_formula else line.lower()
