"""Export of a data set in the LLaVA format: images and ``data.jsonl``."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..data.conversion import llava_record
from ..data.images import EncodedImage, StoredImage
from ..data.samples import Sample, SampleSource
from ..support import atomic_directory


def write_dataset(
    dataset: SampleSource, directory: Path | str, progress: Callable[[int, int], None] | None = None
) -> Path:
    """Write every sample: images as ``images/0000000.png``, dialogues as lines of ``data.jsonl``.

    A record and its image read::

        {"id": "synthetic/line/train/0/17", "image": "images/0000017.png",
         "conversations": [{"from": "human", "value": "<image>\\nRead the text."},
                           {"from": "gpt", "value": "Total: 12.50"}]}

    ``image`` is a list where a sample has several, and absent where it has none. An interrupted export leaves nothing
    behind.

    Args:
        dataset: The data set.
        directory: A path that does not exist yet, or an empty directory.
        progress: Called after each sample with the number written and the total.

    Raises:
        ValueError: The destination is a file or a directory that is not empty.
    """
    target = Path(directory)
    with atomic_directory(target) as draft:
        _write_all(dataset, draft, progress)
    return target


def _write_all(dataset: SampleSource, draft: Path, progress: Callable[[int, int], None] | None) -> None:
    (draft / "images").mkdir(parents=True)
    count = len(dataset)
    with (draft / "data.jsonl").open("w", encoding="utf-8") as lines:
        for index in range(count):
            record = _write_sample(dataset[index], index, draft)
            lines.write(json.dumps(record, ensure_ascii=False) + "\n")
            if progress is not None:
                progress(index + 1, count)


def _write_sample(sample: Sample, index: int, draft: Path) -> dict[str, Any]:
    several = len(sample.images) > 1
    images = []
    for number, image in enumerate(sample.images):
        name = f"images/{index:07d}-{number}" if several else f"images/{index:07d}"
        images.append(_write_image(image, draft, name))
    return llava_record(sample, images)


def _write_image(image: StoredImage, draft: Path, name: str) -> str:
    """Save a drawing as PNG, or copy a file unchanged; return the path within the data set."""
    if isinstance(image, EncodedImage):
        (draft / f"{name}{image.suffix}").write_bytes(image.data)
        return f"{name}{image.suffix}"
    if isinstance(image, Path):
        path = name + image.suffix
        shutil.copyfile(image, draft / path)
    else:
        path = f"{name}.png"
        image.save(draft / path)
    return path
