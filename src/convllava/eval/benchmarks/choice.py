"""Multiple choice: SEED-Bench, MMMU and RealWorldQA directly, MMBench in rotations."""

from collections.abc import Sequence

from ..metrics import extract_choice
from ..prompts import Part, choice_text, images_first, options_of
from .base import Benchmark, LoadOptions, Record, Row, Scoring, Verdict, kit_prediction


class ChoiceBenchmark(Benchmark):
    """A benchmark whose answers are letters; the figure is the share of right ones."""

    columns: tuple[str, ...] = ("question", "answer", "A", "B")
    judge = "choice"

    def parts(self, row: Row, images: int, options: LoadOptions) -> list[Part]:
        return images_first(choice_text(row, options.prompts), images)

    def choices(self, row: Row) -> dict[str, str]:
        """Return the options that an answer may name."""
        return options_of(row)

    def key(self, row: Row) -> str:
        """Return the right letter."""
        return str(row["answer"])

    def verdict(self, record: Record, scoring: Scoring) -> Verdict:
        """Judge one answer."""
        letter = self.letter(record, scoring)
        return Verdict(float(letter == self.key(record.row)), letter, letter is not None)

    def letter(self, record: Record, scoring: Scoring) -> str | None:
        """Return the letter that an answer names, or else a judge has found in it; None after an error."""
        if record.error is not None:
            return None
        prediction = kit_prediction(record, scoring)
        found = extract_choice(prediction, self.choices(record.row), profile=scoring.profile)
        return found or (str(record.judgment) if record.judgment is not None else None)

    def categories(self, row: Row) -> Sequence[str]:
        return [row["category"]] if row.get("category") is not None else []
