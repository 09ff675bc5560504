"""Division into training and held-out samples: no image on both sides, by content or by path, in whatever order."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from convllava.data.conversations import ConversationDataset
from convllava.data.splitting import split_sources


def _record(number: int, image: str | list[str] | None, question: str = "What?") -> dict[str, Any]:
    images = [] if image is None else [image] if isinstance(image, str) else image
    asked = "<image>\n" * len(images) + question
    turns = [{"from": "human", "value": asked}, {"from": "gpt", "value": f"answer {number}"}]
    return {"id": str(number), "conversations": turns} | ({"image": image} if image else {})


def _write(folder: Path, records: list[dict[str, Any]], name: str = "data.json") -> ConversationDataset:
    (folder / name).write_text(json.dumps(records))
    return ConversationDataset(folder / name)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(40):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(tmp_path / f"{number}.png")
    return tmp_path


def _images(part: Any) -> set[bytes]:
    return {image.read_bytes() for index in range(len(part)) for image in part[index].images}


def test_no_image_is_on_both_sides(folder: Path) -> None:
    shutil.copy(folder / "3.png", folder / "copy.png")
    records = [_record(number, f"{number % 40}.png") for number in range(120)] + [_record(120, "copy.png")]
    source = _write(folder, records)
    ((training, held_out),) = split_sources([source], fraction=0.25)
    assert len(_images(held_out)) == 10 and len(_images(training)) == 30
    assert not _images(training) & _images(held_out)
    assert len(training) + len(held_out) == len(source)


def test_a_source_is_told_apart_from_another_by_images_alone(folder: Path) -> None:
    one = _write(folder, [_record(number, f"{number}.png") for number in range(40)], "one.json")
    two = _write(folder, [_record(number, f"{number}.png", "Which?") for number in range(20)], "two.json")
    parts = split_sources([one, two], images=4)
    held_out = _images(parts[0][1]) | _images(parts[1][1])
    assert not held_out & (_images(parts[0][0]) | _images(parts[1][0]))
    assert len(_images(parts[0][1])) >= 4 and len(_images(parts[1][1])) >= 4


def test_the_choice_follows_the_images_not_the_records(folder: Path) -> None:
    records = [_record(number, f"{number}.png") for number in range(40)]
    first = split_sources([_write(folder, records, "a.json")], fraction=0.2)[0][1]
    again = split_sources([_write(folder, records[::-1], "b.json")], fraction=0.2)[0][1]
    other = split_sources([_write(folder, records, "c.json")], fraction=0.2, seed=1)[0][1]
    assert _images(first) == _images(again) != _images(other)


def test_samples_with_several_images_stay_together(folder: Path) -> None:
    records = [_record(number, [f"{number}.png", f"{number + 1}.png"]) for number in range(20)]
    records += [_record(number, f"{number}.png") for number in range(30, 40)]
    ((training, held_out),) = split_sources([_write(folder, records)], images=5)
    assert not _images(training) & _images(held_out)


def test_equal_texts_without_images_stay_together(folder: Path) -> None:
    records = [_record(number % 4, None) for number in range(12)]
    ((training, held_out),) = split_sources([_write(folder, records)], images=1)
    assert len(held_out) == 3 and len(training) == 9


def test_by_path_reads_no_image(folder: Path) -> None:
    source = _write(folder, [_record(number, f"{number % 10}.png") for number in range(40)])
    for path in folder.glob("*.png"):
        path.unlink()
    ((training, held_out),) = split_sources([source], fraction=0.1, by="path")
    assert {image.name for index in range(4) for image in held_out[index].images} == {held_out[0].images[0].name}
    assert len(training) == 36


def test_nothing_left_is_an_error(folder: Path) -> None:
    source = _write(folder, [_record(number, "1.png") for number in range(5)])
    with pytest.raises(ValueError, match="of 5 samples with 1 different images, 5 would be held out and 0 left"):
        split_sources([source], fraction=0.1)
