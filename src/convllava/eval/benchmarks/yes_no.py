"""Questions to be answered by yes or no."""

from ..metrics import extract_yes_no
from ..metrics.yes_no import UNKNOWN
from ..prompts import Part, images_first, yes_no_text
from .base import Benchmark, LoadOptions, Record, Row, Scoring, Verdict, kit_prediction


class YesNoBenchmark(Benchmark):
    """A benchmark whose answers are Yes or No."""

    judge = "yes_no"
    drops_request = False

    def parts(self, row: Row, images: int, options: LoadOptions) -> list[Part]:
        return images_first(yes_no_text(row, options.prompts, drops_request=self.drops_request), images)

    def verdict(self, record: Record, scoring: Scoring) -> Verdict:
        answer = self.answer(record, scoring)
        return Verdict(float(answer == record.row["answer"]), answer, answer != UNKNOWN)

    def answer(self, record: Record, scoring: Scoring) -> str:
        """Return Yes, No or Unknown; a judge's word stands where it would be Unknown."""
        if record.error is not None:
            return UNKNOWN
        found = extract_yes_no(kit_prediction(record, scoring), profile=scoring.profile)
        return str(record.judgment) if found == UNKNOWN and record.judgment is not None else found
