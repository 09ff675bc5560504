"""RefCOCO, RefCOCO+ and RefCOCOg: the box of what a sentence describes, in eight splits.

Read from the JSONL of the authors' script (``image``, ``sent``, ``bbox`` x0, y0, x1, y1 in pixels, ``width``,
``height``; one line a sentence), or from the hub's parquet (``bbox`` x, y, width, height; several sentences a row).
"""

from dataclasses import replace
from pathlib import Path

from ..metrics import grounding_hit, parse_box
from ..prompts import Part, PromptProfile, images_first, locate_text
from ..sources import BenchmarkImage, Table, read_jsonl, read_parquet
from .base import Benchmark, EvalSample, LoadOptions, Record, Row, Scoring, Verdict, kit_prediction

THRESHOLD = 0.5


class RefCOCO(Benchmark):
    """One split of one of the three sets."""

    metric = "precision at IoU 0.5"
    columns = ("sent", "bbox")

    def __init__(self, dataset: str, split: str, size: int) -> None:
        hub_names = {"refcoco": "RefCOCO", "refcoco+": "RefCOCOplus", "refcocog": "RefCOCOg"}
        self.name = f"{dataset}-{split}"
        self.title = f"{hub_names[dataset].replace('plus', '+')} {split}"
        self.file = f"{dataset}_{split}"
        self.hub = f"lmms-lab/{hub_names[dataset]}"
        self.hub_split = split
        self.size = size
        self.url = "the JSONL files of InternVL's or Qwen-VL's grounding evaluation and COCO train2014"

    def paths(self, data: Path) -> list[Path]:
        beside = [data / folder / f"{self.file}.jsonl" for folder in ("refcoco", "RefCOCO")]
        return super().paths(data) or [path for path in beside if path.is_file()][:1]

    def read(self, data: Path, options: LoadOptions) -> Table:
        """Return one row a sentence."""
        paths = self.paths(data)
        if not paths:
            raise ValueError(self.missing(data))
        if paths[0].suffix == ".jsonl":
            folders = [data, paths[0].parent, data.parent, data.parent.parent]
            return read_jsonl(paths[0], self.columns, folders)
        if paths[0].suffix == ".tsv":
            raise ValueError(f"{paths[0]}: grounding is read from JSONL or parquet, not TSV")
        return self._exploded(read_parquet(paths, lambda row: row))

    def _exploded(self, table: Table) -> Table:
        """Return one row for each sentence of each row of the hub."""
        rows: list[Row] = []
        images: list[tuple[BenchmarkImage, ...]] = []
        for row, own in zip(table.rows, table.images, strict=True):
            x, y, width, height = row["bbox"]
            for number, sentence in enumerate(row["answer"]):
                index = f"{row['question_id']}/{len(rows)}/{number}"
                rows.append({"index": index, "sent": sentence, "bbox": [x, y, x + width, y + height]})
                images.append(own[:1])
        warnings = list(table.warnings)
        if self.name == "refcoco-val":
            warnings.append(
                "the hub's val split of RefCOCO mixes the google and the UNC split: figures on it are not comparable"
            )
        return replace(table, rows=rows, images=images, warnings=warnings)

    def sample(self, row: Row, images: tuple[BenchmarkImage, ...]) -> EvalSample:
        width, height = images[0].size
        own = (row.get("width", width), row.get("height", height))
        if own != (width, height):
            raise ValueError(
                f"{self.title}, index {row['index']}: {own} pixels are noted, the image has {(width, height)}"
            )
        _check_box(self.title, row)
        return super().sample({**row, "width": width, "height": height}, images)

    def parts(self, row: Row, images: int, options: LoadOptions) -> list[Part]:
        return images_first(locate_text(str(row["sent"])), images)

    def max_new_tokens(self, prompts: PromptProfile) -> int | None:
        return 100

    def prompt_format(self, prompts: PromptProfile) -> str:
        return "vicuna_v1"

    def verdict(self, record: Record, scoring: Scoring) -> Verdict:
        row, prediction = record.row, kit_prediction(record, scoring)
        box = None if record.error is not None else parse_box(prediction)
        hit = box is not None and grounding_hit(
            prediction, row["bbox"], row["width"], row["height"], threshold=THRESHOLD
        )
        return Verdict(float(hit), str(list(box)) if box else None, box is not None)


def _check_box(title: str, row: Row) -> None:
    box = row["bbox"]
    if not isinstance(box, list) or len(box) != 4 or not (box[0] < box[2] and box[1] < box[3]):
        raise ValueError(
            f"{title}, index {row['index']}: bbox must be [x0, y0, x1, y1] with x0 < x1, y0 < y1, got {box}"
        )


SPLITS = {
    "refcoco": {"val": 10834, "testA": 5657, "testB": 5095},
    "refcoco+": {"val": 10758, "testA": 5726, "testB": 4889},
    "refcocog": {"val": 4896, "test": 9602},
}
"""Sentences of each split, as the usual conversions have them."""


def all_splits() -> list[RefCOCO]:
    """Return the eight splits in the order of the paper's Table 6."""
    return [RefCOCO(name, split, size) for name, splits in SPLITS.items() for split, size in splits.items()]
