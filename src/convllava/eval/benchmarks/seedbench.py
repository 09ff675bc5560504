"""SEED-Bench, the questions about single images."""

from .base import KIT_URL, Row
from .choice import ChoiceBenchmark

_KINDS = (
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
"""Names of the hub's question types 1 to 9 (SEED-Bench, Table 1)."""


class SeedBench(ChoiceBenchmark):
    """14232 questions of nine kinds."""

    name = "seedbench"
    title = "SEED-Bench image"
    file = "SEEDBench_IMG"
    hub = "lmms-lab/SEED-Bench"
    size = 14232
    known_md5 = frozenset({"68017231464752261a2526d6ca3a10c0"})
    url = f"{KIT_URL.replace('VLMEval', 'benchmarks')}/SEEDBench/SEEDBench_IMG.tsv"

    def from_hub(self, row: Row) -> Row | None:
        if row["data_type"] != "image":
            return None
        kind = row["question_type_id"]
        return {
            "index": row.get("question_id", row.get("index")),
            "question": row["question"],
            **{letter: row[f"choice_{letter.lower()}"] for letter in "ABCD"},
            "answer": row["answer"],
            "category": _KINDS[kind - 1] if 1 <= kind <= len(_KINDS) else f"type {kind}",
        }
