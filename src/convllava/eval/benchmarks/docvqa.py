"""DocVQA, validation split (the test split has no public answers); the figure is ANLS."""

from ..metrics import anls
from ..prompts import Part, images_first, short_answer_text
from ..sources import parse_answers
from .base import Benchmark, LoadOptions, Record, Row, Scoring, Verdict, kit_prediction


class DocVQA(Benchmark):
    """5349 questions about scanned pages."""

    name = "docvqa"
    title = "DocVQA val"
    file = "DocVQA_VAL"
    hub = "lmms-lab/DocVQA"
    hub_config = "DocVQA"
    hub_split = "validation"
    size = 5349
    known_md5 = frozenset({"d5ee77e1926ff10690d469c56b73eabf"})
    metric = "ANLS"

    def from_hub(self, row: Row) -> Row | None:
        return {"index": row["questionId"], "question": row["question"], "answer": list(row["answers"])}

    def parts(self, row: Row, images: int, options: LoadOptions) -> list[Part]:
        return images_first(short_answer_text(row, options.prompts), images)

    def verdict(self, record: Record, scoring: Scoring) -> Verdict:
        if record.error is not None:
            return Verdict(0.0, None, resolved=False)
        prediction = kit_prediction(record, scoring)
        credit = anls(prediction, parse_answers(record.row["answer"]))
        return Verdict(credit, prediction.strip(), bool(prediction.strip()))
