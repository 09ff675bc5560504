"""DocVQA, validation split (arXiv 2007.00398); the answers of the test split are not public. The figure is ANLS."""

from collections.abc import Sequence

from ..benchmark import Benchmark, LoadOptions
from ..metrics import anls
from ..outcome import Prediction, Row, Scoring, Verdict, failed_verdict
from ..prompts import PromptPart, images_first, short_answer_text
from ..table import parse_answers


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
        answered = {"index": row["questionId"], "question": row["question"], "answer": list(row["answers"])}
        document = row.get("ucsf_document_id")
        return answered if document is None else {**answered, "document": document}

    def shared_by(self, prediction: Prediction) -> dict[str, Sequence[str]]:
        """Return the images and, for data of the hub, the document, several of whose pages may be asked about."""
        document = prediction.row.get("document")
        return super().shared_by(prediction) | ({} if document is None else {"documents": [str(document)]})

    def prompt(self, row: Row, num_images: int, options: LoadOptions) -> list[PromptPart]:
        return images_first(short_answer_text(str(row["question"]), options.prompts), num_images)

    def verdict(self, prediction: Prediction, scoring: Scoring) -> Verdict:
        if prediction.error is not None:
            return failed_verdict()
        credit = anls(prediction.text, parse_answers(prediction.row["answer"]))
        answer = prediction.text.strip()
        return Verdict(credit, answer, resolved=bool(answer))
