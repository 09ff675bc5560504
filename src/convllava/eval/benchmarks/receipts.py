"""Receipts of a user's own, or SROIE's: cut-out lines to read and key fields to find.

The files come from ``convllava data import-sroie``: ``receipts_lines.jsonl`` and ``receipts_fields.jsonl``, with
``image``, ``question``, ``answer`` and, for fields, ``field``.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .. import (
    Benchmark,
    LoadOptions,
    Outcome,
    Prediction,
    PromptPart,
    PromptProfile,
    Row,
    Scoring,
    Table,
    Verdict,
    anls,
    edit_distance,
    images_first,
    mean_outcome,
    ratio,
)


class _Receipts(Benchmark):
    """What both have in common: data of one's own, asked in the model's own format."""

    keeps_prompt_format = True
    answer_limit = 256

    def prompt(self, row: Row, num_images: int, options: LoadOptions) -> list[PromptPart]:
        return images_first(str(row["question"]), num_images)

    def max_new_tokens(self, prompts: PromptProfile) -> int | None:
        return self.answer_limit

    def data_warnings(self, table: Table, num_questions: int) -> list[str]:
        return list(table.warnings)

    def missing_data(self, data: Path) -> str:
        return (
            f"no {self.file}.jsonl in {data}: make it with `convllava data import-sroie SOURCE FOLDER` and give FOLDER "
            "as --data"
        )


class ReceiptLines(_Receipts):
    """Cut-out lines. SROIE writes all text in capitals, whatever is printed, so case does not count.

    The figure is edits per true character over all lines; ``figures`` has the same with case.
    """

    name = "receipts-lines"
    title = "Receipts, lines"
    file = "receipts_lines"
    metric = "character error rate"
    higher_is_better = False
    answer_limit = 160

    def verdict(self, prediction: Prediction, scoring: Scoring) -> Verdict:
        if prediction.error is not None:
            return Verdict(0.0, None, resolved=False)
        edits, length = _edits(prediction)
        return Verdict(max(0.0, 1 - edits / length), prediction.text, bool(prediction.text.strip()))

    def outcome(self, predictions: Sequence[Prediction], scoring: Scoring) -> Outcome:
        columns = np.array([_edits(prediction) for prediction in predictions], dtype=float).reshape(-1, 2)
        with_case = np.array([_edits(prediction, with_case=True) for prediction in predictions], dtype=float).reshape(
            -1, 2
        )
        verdicts = [self.verdict(prediction, scoring) for prediction in predictions]
        figures = {"character error rate with case": float(ratio(with_case.sum(axis=0)))}
        return Outcome(verdicts, [prediction.sample_id for prediction in predictions], columns, ratio, {}, figures)


class ReceiptFields(_Receipts):
    """Company, date, address and total of whole receipts; the figure is ANLS, from 0 to 1."""

    name = "receipts-fields"
    title = "Receipts, fields"
    file = "receipts_fields"
    columns = ("question", "answer", "field")
    metric = "ANLS"

    def categories(self, row: Row) -> Sequence[str]:
        return (str(row["field"]),)

    def verdict(self, prediction: Prediction, scoring: Scoring) -> Verdict:
        if prediction.error is not None:
            return Verdict(0.0, None, resolved=False)
        credit = anls(prediction.text, [str(prediction.row["answer"])])
        return Verdict(credit, prediction.text.strip(), bool(prediction.text.strip()))

    def outcome(self, predictions: Sequence[Prediction], scoring: Scoring) -> Outcome:
        verdicts = [self.verdict(prediction, scoring) for prediction in predictions]
        return mean_outcome(predictions, verdicts, self.categories, statistic=ratio)


class ReceiptTotal(ReceiptFields):
    """The total alone."""

    name = "receipts-total"
    title = "Receipts, total"

    def includes(self, row: Row) -> bool:
        return row["field"] == "total"


def _edits(prediction: Prediction, *, with_case: bool = False) -> tuple[int, int]:
    """Return the edits that turn an answer into the truth, and the length of the truth; white space is one blank."""
    given, truth = (" ".join(str(text).split()) for text in (prediction.text, prediction.row["answer"]))
    if not with_case:
        given, truth = given.upper(), truth.upper()
    return edit_distance(given, truth), len(truth)


def all_receipts() -> list[_Receipts]:
    """Return the benchmarks; a file's own name finds the last that reads it."""
    return [ReceiptLines(), ReceiptTotal(), ReceiptFields()]
