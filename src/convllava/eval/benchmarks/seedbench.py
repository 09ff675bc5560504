"""SEED-Bench (arXiv 2307.16125): multiple choice, the questions about single images."""

from ..benchmark import KIT_URL
from ..multiple_choice import ChoiceBenchmark
from ..outcome import Row

QUESTION_TYPES = (
    "Scene Understanding",
    "Instance Identity",
    "Instance Attribute",
    "Instance Location",
    "Instances Counting",
    "Spatial Relation",
    "Instance Interaction",
    "Visual Reasoning",
    "Text Understanding",
)
"""Names of the question types 1 to 9 (SEED-Bench, Table 1); the hub has only their numbers."""


class SeedBench(ChoiceBenchmark):
    """14232 questions of nine types."""

    name = "seedbench"
    title = "SEED-Bench image"
    file = "SEEDBench_IMG"
    hub = "lmms-lab/SEED-Bench"
    size = 14232
    known_md5 = frozenset({"68017231464752261a2526d6ca3a10c0"})
    url = f"{KIT_URL.replace('VLMEval', 'benchmarks')}/SEEDBench/SEEDBench_IMG.tsv"

    def from_hub(self, row: Row) -> Row | None:
        """Return a row of the hub; questions about videos are left out."""
        if row["data_type"] != "image":
            return None
        number = row["question_type_id"]
        return {
            "index": row.get("question_id", row.get("index")),
            "question": row["question"],
            **{letter: row[f"choice_{letter.lower()}"] for letter in "ABCD"},
            "answer": row["answer"],
            "category": QUESTION_TYPES[number - 1] if 1 <= number <= len(QUESTION_TYPES) else f"type {number}",
        }
