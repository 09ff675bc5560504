"""Three benchmarks on receipts: lines to read, and key fields to find in complete receipts.

The files come from ``import_sroie.py``: ``receipts_lines.jsonl`` and ``receipts_fields.jsonl``, with ``image``,
``question``, ``answer`` and, for fields, ``field``. The evaluation loads this file as a plugin::

    convllava eval --plugin examples/receipts/benchmarks.py run nano --benchmark receipts-lines --data FOLDER
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from convllava.eval import (
    Benchmark,
    LoadOptions,
    Outcome,
    Part,
    PromptProfile,
    Record,
    Row,
    Scoring,
    Table,
    Verdict,
    anls,
    edit_distance,
    images_first,
    mean_outcome,
    ratio,
    register_benchmark,
)


class _Receipts(Benchmark):
    """The common part: questions from a file, asked in the model's own prompt format."""

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
            f"no {self.file}.jsonl in {data}: make it with `python examples/receipts/import_sroie.py SOURCE FOLDER` "
            "and give FOLDER as --data"
        )


class ReceiptLines(_Receipts):
    """Cropped lines. SROIE annotates all text in capitals, whatever is printed, so case does not count.

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
    """Company, date, address and total of complete receipts; the figure is ANLS, from 0 to 1."""

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
    """Return the edits from an answer to the truth, and the length of the truth; runs of white space count as one."""
    answer, truth = (" ".join(str(text).split()) for text in (record.prediction, record.row["answer"]))
    if not with_case:
        answer, truth = answer.upper(), truth.upper()
    return edit_distance(answer, truth), len(truth)


for benchmark in (ReceiptLines(), ReceiptTotal(), ReceiptFields()):
    register_benchmark(benchmark)
