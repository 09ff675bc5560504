"""Receipts of a user's own, or SROIE's: cut-out lines to read and key fields to find.

The files come from ``convllava data import-sroie``: ``receipts_lines.jsonl`` and ``receipts_fields.jsonl``, with
``image``, ``question``, ``answer`` and, for fields, ``field``.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..metrics import anls, edit_distance
from ..prompts import Part, PromptProfile, images_first
from ..sources import Table
from .base import Benchmark, LoadOptions, Outcome, Record, Row, Scoring, Verdict, mean_outcome, ratio


class _Receipts(Benchmark):
    """What both have in common: data of one's own, asked in the model's own format."""

    own_prompt_format = True
    answer_limit = 256

    def parts(self, row: Row, images: int, options: LoadOptions) -> list[Part]:
        return images_first(str(row["question"]), images)

    def max_new_tokens(self, prompts: PromptProfile) -> int | None:
        return self.answer_limit

    def check(self, table: Table, count: int) -> list[str]:
        return list(table.warnings)

    def missing(self, data: Path) -> str:
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

    def verdict(self, record: Record, scoring: Scoring) -> Verdict:
        if record.error is not None:
            return Verdict(0.0, None, resolved=False)
        edits, length = _edits(record)
        return Verdict(max(0.0, 1 - edits / length), record.prediction, bool(record.prediction.strip()))

    def outcome(self, records: Sequence[Record], scoring: Scoring) -> Outcome:
        columns = np.array([_edits(record) for record in records], dtype=float).reshape(-1, 2)
        with_case = np.array([_edits(record, with_case=True) for record in records], dtype=float).reshape(-1, 2)
        verdicts = [self.verdict(record, scoring) for record in records]
        figures = {"character error rate with case": float(ratio(with_case.sum(axis=0)))}
        return Outcome(verdicts, [record.sample_id for record in records], columns, ratio, {}, figures)


class ReceiptFields(_Receipts):
    """Company, date, address and total of whole receipts; the figure is ANLS, from 0 to 1."""

    name = "receipts-fields"
    title = "Receipts, fields"
    file = "receipts_fields"
    columns = ("question", "answer", "field")
    metric = "ANLS"

    def categories(self, row: Row) -> Sequence[str]:
        return (str(row["field"]),)

    def verdict(self, record: Record, scoring: Scoring) -> Verdict:
        if record.error is not None:
            return Verdict(0.0, None, resolved=False)
        credit = anls(record.prediction, [str(record.row["answer"])])
        return Verdict(credit, record.prediction.strip(), bool(record.prediction.strip()))

    def outcome(self, records: Sequence[Record], scoring: Scoring) -> Outcome:
        verdicts = [self.verdict(record, scoring) for record in records]
        return mean_outcome(records, verdicts, self.categories, statistic=ratio)


class ReceiptTotal(ReceiptFields):
    """The total alone."""

    name = "receipts-total"
    title = "Receipts, total"

    def keeps(self, row: Row) -> bool:
        return row["field"] == "total"


def _edits(record: Record, *, with_case: bool = False) -> tuple[int, int]:
    """Return the edits that turn an answer into the truth, and the length of the truth; white space is one blank."""
    given, truth = (" ".join(str(text).split()) for text in (record.prediction, record.row["answer"]))
    if not with_case:
        given, truth = given.upper(), truth.upper()
    return edit_distance(given, truth), len(truth)


def all_receipts() -> list[_Receipts]:
    """Return the benchmarks; a file's own name finds the last that reads it."""
    return [ReceiptLines(), ReceiptTotal(), ReceiptFields()]
