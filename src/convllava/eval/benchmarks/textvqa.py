"""TextVQA, validation split, without OCR tokens unless they are asked for."""

from ..metrics import normalize_vqa_answer, vqa_accuracy
from ..prompts import Part, images_first, short_answer_text
from ..sources import parse_answers
from .base import Benchmark, LoadOptions, Record, Row, Scoring, Verdict, kit_prediction


class TextVQA(Benchmark):
    """5000 questions with ten answers each; soft accuracy."""

    name = "textvqa"
    title = "TextVQA val"
    file = "TextVQA_VAL"
    hub = "lmms-lab/textvqa"
    hub_split = "validation"
    size = 5000
    known_md5 = frozenset({"b233b31f551bbf4056f2f955da3a92cd"})
    metric = "VQA accuracy"

    def from_hub(self, row: Row) -> Row | None:
        return {
            "index": row["question_id"],
            "question": row["question"],
            "answer": list(row["answers"]),
            "ocr_tokens": list(row["ocr_tokens"]),
        }

    def parts(self, row: Row, images: int, options: LoadOptions) -> list[Part]:
        tokens = _ocr_tokens(row) if options.ocr_tokens else None
        return images_first(short_answer_text(row, options.prompts, tokens), images)

    def verdict(self, record: Record, scoring: Scoring) -> Verdict:
        if record.error is not None:
            return Verdict(0.0, None, resolved=False)
        prediction = kit_prediction(record, scoring)
        credit = vqa_accuracy(prediction, parse_answers(record.row["answer"]), profile=scoring.profile)
        return Verdict(credit, normalize_vqa_answer(prediction, profile=scoring.profile), bool(prediction.strip()))


def _ocr_tokens(row: Row) -> list[str]:
    if row.get("ocr_tokens") is None:
        raise ValueError(
            "OCR tokens are wanted but the data have no column ocr_tokens: VLMEvalKit's TSV has none, the hub's "
            "parquet does"
        )
    return parse_answers(row["ocr_tokens"])
