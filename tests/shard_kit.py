"""The same small data set in every format, for tests."""

import io
import json
import tarfile
from pathlib import Path
from typing import Any

from PIL import Image


def encoded_image(number: int, kind: str = "PNG") -> bytes:
    """Return the file of a small image whose width encodes its number."""
    stream = io.BytesIO()
    Image.new("RGB", (16 + number, 20), (number, 0, 0)).save(stream, kind)
    return stream.getvalue()


def record(number: int, images: int = 1) -> dict[str, Any]:
    """Return a LLaVA record without its images' names."""
    question = "<image>\n" * images + f"What is {number}?"
    turns = [{"from": "human", "value": question}, {"from": "gpt", "value": f"it is {number}"}]
    return {"id": f"s{number}", "conversations": turns}


def write_parquet(path: Path, numbers: list[int], **columns: list[Any]) -> Path:
    """Write records as one shard, with images as ``datasets`` stores them."""
    import pyarrow as pa
    from pyarrow import parquet

    rows = [record(number) for number in numbers]
    images = [{"bytes": encoded_image(number), "path": f"{number}.png"} for number in numbers]
    values = {"id": [row["id"] for row in rows], "image": images, "conversations": [r["conversations"] for r in rows]}
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pa.table({**values, **columns}), path, row_group_size=7)
    return path


def write_tar(path: Path, files: dict[str, bytes | str | dict[str, Any]]) -> Path:
    """Write a WebDataset shard; dictionaries become JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in files.items():
            text = json.dumps(content) if isinstance(content, dict) else content
            data = text.encode() if isinstance(text, str) else text
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def tar_files(numbers: list[int]) -> dict[str, bytes | str | dict[str, Any]]:
    """Return the files of records, every third with a JPEG, every fifth with two images."""
    files: dict[str, bytes | str | dict[str, Any]] = {}
    for number in numbers:
        two = number % 5 == 0
        kind, ending = ("JPEG", "jpg") if number % 3 == 0 else ("PNG", "png")
        files[f"{number:04d}.{'0.' * two}{ending}"] = encoded_image(number, kind)
        if two:
            files[f"{number:04d}.1.png"] = encoded_image(number + 1)
        files[f"{number:04d}.json"] = record(number, 1 + two)
    return files
