"""Small benchmark files in the formats of VLMEvalKit; sizes are (height, width)."""

import base64
import csv
import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from convllava.eval import Prediction


def image_bytes(color: str = "red", size: tuple[int, int] = (64, 96), format_: str = "PNG") -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", size[::-1], color).save(stream, format_)
    return stream.getvalue()


def image_text(color: str = "red", size: tuple[int, int] = (64, 96)) -> str:
    return base64.b64encode(image_bytes(color, size)).decode()


def write_tsv(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    rows = list(rows)
    names = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, names, delimiter="\t", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return path


def yes_no_rows(count: int) -> list[dict[str, Any]]:
    """Return rows like those of MME: two questions an image, images of two shapes."""
    rows = []
    for number in range(count):
        size = ((64, 96), (96, 64))[number // 2 % 2]
        rows.append(
            {
                "index": number,
                "image": image_text(f"rgb({number}, 0, 0)", size) if number % 2 == 0 else str(number - 1),
                "image_path": f"count/{number // 2}.png",
                "question": f"Is there number {number}? Please answer yes or no.",
                "answer": ("Yes", "No")[number % 2],
                "category": "count",
            }
        )
    return rows


def predict(rows: list[dict[str, Any]], predictions: list[str], **more: Any) -> list[Prediction]:
    """Return predictions for rows, in order."""
    return [
        Prediction(str(number), row, prediction, **more)
        for number, (row, prediction) in enumerate(zip(rows, predictions, strict=True))
    ]


def write_parquet(path: Path, columns: dict[str, list[Any]]) -> None:
    """Write a parquet file; skip the test if pyarrow is missing."""
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pyarrow.table(columns), path)


def parquet_image(size: tuple[int, int] = (64, 96)) -> dict[str, Any]:
    """Return an image as the hub's parquet stores it."""
    return {"bytes": image_bytes(size=size), "path": None}
