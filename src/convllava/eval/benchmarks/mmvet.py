"""MM-Vet: open questions whose answers a judge gives points for."""

from collections.abc import Sequence
from dataclasses import replace

from ..metrics.mmvet import capabilities_of, mmvet_scores
from ..prompts import Part, images_first
from .base import Benchmark, LoadOptions, Outcome, Record, Row, Scoring, Verdict


class MMVet(Benchmark):
    """218 questions; no figure without a judge."""

    name = "mmvet"
    title = "MM-Vet"
    file = "MMVet"
    hub = "lmms-lab/MMVet"
    columns = ("question", "answer", "category")
    size = 218
    known_md5 = frozenset({"748aa6d4aa9d4de798306a63718455e3"})
    metric = "judge's points"
    judge = "points"
    needs_judge = True

    def from_hub(self, row: Row) -> Row | None:
        return {
            "index": row["question_id"],
            "question": row["question"],
            "answer": row["answer"],
            "category": row["capability"],
        }

    def parts(self, row: Row, images: int, options: LoadOptions) -> list[Part]:
        return images_first(str(row["question"]), images)

    def verdict(self, record: Record, scoring: Scoring) -> Verdict:
        """Return a judge's points; none for an error.

        Raises:
            ValueError: The answer has not been judged.
        """
        if record.error is not None:
            return Verdict(0.0, None, resolved=False)
        if record.judgment is None:
            raise ValueError(
                f"MM-Vet, sample {record.sample_id}: there are no points without a judge; give --judge-url and "
                "--judge-model"
            )
        points = float(record.judgment)
        return Verdict(points, f"{points:g}")

    def categories(self, row: Row) -> Sequence[str]:
        return capabilities_of(row["category"])

    def outcome(self, records: Sequence[Record], scoring: Scoring) -> Outcome:
        plain = super().outcome(records, scoring)
        pairs = zip(records, plain.verdicts, strict=True)
        rows = [{"category": record.row["category"], "score": verdict.credit} for record, verdict in pairs]
        scores = mmvet_scores(rows, kit_compatible=scoring.kit_compatible)
        figures = {"per_combination": scores["per_combination"]}
        return replace(plain, per_category=scores["per_capability"], figures=figures)
