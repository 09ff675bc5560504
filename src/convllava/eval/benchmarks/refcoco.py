"""RefCOCO, RefCOCO+ and RefCOCOg: the box of the object that an expression refers to, in eight splits.

The data are the JSONL of the authors' script (``image``, ``sent``, ``bbox`` x0, y0, x1, y1 in pixels, ``width``,
``height``; one line an expression), or the hub's parquet (``bbox`` x, y, width, height; several expressions a row).
The figure is the share of boxes with an IoU of at least 0.5.
"""

from dataclasses import replace
from pathlib import Path

from ..benchmark import Benchmark, EvalSample, LoadOptions
from ..metrics import grounding_hit, parse_box
from ..outcome import Prediction, Row, Scoring, Verdict, failed_verdict
from ..parquet import read_parquet
from ..prompts import PromptPart, PromptProfile, images_first
from ..table import BenchmarkImage, Table, read_jsonl

IOU_THRESHOLD = 0.5
LOCATE = "Please provide the bounding box coordinate of the region this sentence describes: {sentence}."


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
        candidates = [data / folder / f"{self.file}.jsonl" for folder in ("refcoco", "RefCOCO")]
        return super().paths(data) or [path for path in candidates if path.is_file()][:1]

    def read(self, data: Path) -> Table:
        """Return one row for each expression."""
        paths = self.paths(data)
        if not paths:
            raise ValueError(self.missing_data(data))
        if paths[0].suffix == ".jsonl":
            folders = [data, paths[0].parent, data.parent, data.parent.parent]
            return read_jsonl(paths[0], self.columns, folders)
        if paths[0].suffix == ".tsv":
            raise ValueError(f"{paths[0]}: grounding is read from JSONL or parquet, not TSV")
        return self._split_expressions(read_parquet(paths, lambda row: row))

    def _split_expressions(self, table: Table) -> Table:
        """Return one row for each expression of each row of the hub."""
        rows: list[Row] = []
        images: list[tuple[BenchmarkImage, ...]] = []
        for row, row_images in zip(table.rows, table.images, strict=True):
            x, y, width, height = row["bbox"]
            for number, sentence in enumerate(row["answer"]):
                index = f"{row['question_id']}/{len(rows)}/{number}"
                rows.append({"index": index, "sent": sentence, "bbox": [x, y, x + width, y + height]})
                images.append(row_images[:1])
        warnings = list(table.warnings)
        if self.name == "refcoco-val":
            warnings.append(
                "the hub's val split of RefCOCO mixes the google and the UNC split: figures on it are not comparable"
            )
        return replace(table, rows=rows, images=images, warnings=warnings)

    def make_sample(self, row: Row, images: tuple[BenchmarkImage, ...]) -> EvalSample:
        # a damaged image, an error in the predictions, has the recorded size or none
        height, width = images[0].size or (row.get("height", 0), row.get("width", 0))
        recorded = (row.get("width", width), row.get("height", height))
        if recorded != (width, height):
            raise ValueError(
                f"{self.title}, index {row['index']}: the file says {recorded[0]} x {recorded[1]} pixels, the image "
                f"has {width} x {height}"
            )
        _check_box(self.title, row)
        return super().make_sample({**row, "width": width, "height": height}, images)

    def prompt(self, row: Row, num_images: int, options: LoadOptions) -> list[PromptPart]:
        return images_first(LOCATE.format(sentence=row["sent"]), num_images)

    def max_new_tokens(self, prompts: PromptProfile) -> int | None:
        return 100

    def prompt_format(self, prompts: PromptProfile) -> str:
        return "vicuna_v1"

    def verdict(self, prediction: Prediction, scoring: Scoring) -> Verdict:
        box = None if prediction.error is not None else parse_box(prediction.text)
        if box is None:
            return failed_verdict()
        row = prediction.row
        hit = grounding_hit(prediction.text, row["bbox"], row["width"], row["height"], threshold=IOU_THRESHOLD)
        return Verdict(float(hit), str(list(box)))


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
"""Number of expressions in each split of the usual conversions."""


def all_splits() -> list[RefCOCO]:
    """Return the eight splits in the order of the paper's Table 6."""
    return [RefCOCO(name, split, size) for name, splits in SPLITS.items() for split, size in splits.items()]
