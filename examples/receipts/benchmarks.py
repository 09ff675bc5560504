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
    Prediction,
    PromptPart,
    PromptProfile,
    Row,
    Scoring,
    Table,
    Verdict,
    anls,
    edit_distance,
    failed_verdict,
    images_first,
    mean_outcome,
    ratio,
    register_benchmark,
)


class _Receipts(Benchmark):
    """The common part: questions from a file, asked in the model's own prompt format."""

    keeps_prompt_format = True
    answer_limit = 256

    def prompt(self, row: Row, num_images: int, options: LoadOptions) -> list[PromptPart]:
        return images_first(str(row["question"]), num_images)

    def max_new_tokens(self, prompts: PromptProfile) -> int | None:
        return self.answer_limit

    def shared_by(self, prediction: Prediction) -> dict[str, Sequence[str]]:
        """Return the receipt: its lines and fields are not independent, and are drawn together in a bootstrap."""
        return {"receipts": [str(prediction.row["index"]).split("/")[0]]}

    def data_warnings(self, table: Table, num_questions: int) -> list[str]:
        return list(table.warnings)

    def missing_data(self, data: Path) -> str:
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

    def verdict(self, prediction: Prediction, scoring: Scoring) -> Verdict:
        if prediction.error is not None:
            return failed_verdict()
        edits, length = _edits(prediction)
        return Verdict(max(0.0, 1 - edits / length), prediction.text, bool(prediction.text.strip()))

    def outcome(self, predictions: Sequence[Prediction], scoring: Scoring) -> Outcome:
        columns = np.array([_edits(prediction) for prediction in predictions], dtype=float).reshape(-1, 2)
        with_case = np.array([_edits(prediction, with_case=True) for prediction in predictions], dtype=float).reshape(
            -1, 2
        )
        verdicts = self.verdicts(predictions, scoring)
        figures = {"character error rate with case": float(ratio(with_case.sum(axis=0)))}
        return Outcome(verdicts, [prediction.sample_id for prediction in predictions], columns, ratio, {}, figures)


class ReceiptFields(_Receipts):
    """Company, date, address and total of complete receipts; the figure is ANLS, from 0 to 1."""

    name = "receipts-fields"
    title = "Receipts, fields"
    file = "receipts_fields"
    columns = ("question", "answer", "field")
    metric = "ANLS"

    def categories(self, row: Row) -> Sequence[str]:
        return (str(row["field"]),)

    def verdict(self, prediction: Prediction, scoring: Scoring) -> Verdict:
        if prediction.error is not None:
            return failed_verdict()
        credit = anls(prediction.text, [str(prediction.row["answer"])])
        return Verdict(credit, prediction.text.strip(), bool(prediction.text.strip()))

    def outcome(self, predictions: Sequence[Prediction], scoring: Scoring) -> Outcome:
        verdicts = self.verdicts(predictions, scoring)
        return mean_outcome(predictions, verdicts, self.categories, statistic=ratio)


class ReceiptTotal(ReceiptFields):
    """The total alone."""

    name = "receipts-total"
    title = "Receipts, total"

    def includes(self, row: Row) -> bool:
        return row["field"] == "total"


def _edits(prediction: Prediction, *, with_case: bool = False) -> tuple[int, int]:
    """Return the edits from an answer to the truth, and the length of the truth; runs of white space count as one."""
    answer, truth = (" ".join(str(text).split()) for text in (prediction.text, prediction.row["answer"]))
    if not with_case:
        answer, truth = answer.upper(), truth.upper()
    return edit_distance(answer, truth), len(truth)


for benchmark in (ReceiptLines(), ReceiptTotal(), ReceiptFields()):
    register_benchmark(benchmark)
