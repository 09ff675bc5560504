"""Receipts drawn by the generator and written in a layout of the SROIE data set."""

import json
from pathlib import Path

from convllava.synthetic import Example, SyntheticDataset

KEYS = {"the name of the shop": "company", "the date": "date", "the street": "address", "the total": "total"}


def draw_receipts(count: int) -> list[Example]:
    """Return drawn receipts; the boxes of their fields are among their facts."""
    dataset = SyntheticDataset("document", count=count, layouts=["receipt"], sizes=[[384, 256]], noise=0.2)
    return [dataset.example(index) for index in range(count)]


def box_lines(example: Example) -> list[str]:
    """Return the lines of a box file."""
    lines = []
    for field in example.facts["page"].fields:
        x0, y0, x1, y1 = field.box
        lines.append(f"{x0},{y0},{x1},{y0},{x1},{y1},{x0},{y1},{field.text}")
    return lines


def keys(example: Example) -> dict[str, str]:
    """Return the key fields."""
    return {KEYS[field.fact.phrase]: field.text for field in example.facts["page"].fields if field.fact.phrase in KEYS}


def write_sroie(folder: Path, count: int, names: tuple[str, str, str] = ("img", "box", "key")) -> list[Example]:
    """Write receipts as images, boxes and keys in three folders; return them in the order of their names."""
    images, boxes, fields = (folder / name for name in names)
    for path in (images, boxes, fields):
        path.mkdir(parents=True, exist_ok=True)
    examples = draw_receipts(count)
    for number, example in enumerate(examples):
        name = f"{number:03d}"
        example.image.save(images / f"{name}.jpg", quality=95)
        (boxes / f"{name}.csv").write_text("\r\n".join(box_lines(example)) + "\r\n", encoding="utf-8")
        (fields / f"{name}.json").write_text(json.dumps(keys(example)), encoding="utf-8")
    return examples
