"""Conversion between formats: what is written reads back as the same samples, byte by byte."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from convllava.data.conversations import ConversationDataset
from convllava.data.conversion import TARGETS, convert
from convllava.data.faults import BadSampleError
from convllava.data.files import open_file
from convllava.data.images import EncodedImage
from convllava.data.samples import Sample

TARGET = {"llava": "out/x.jsonl", "openai": "out/x.json", "parquet": "out/x.parquet", "webdataset": "out/shards"}
IMAGE = {"type": "image"}


def _text(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}


def _record(number: int, *content: dict[str, str], images: list[str], **values: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": list(content)}, {"role": "assistant", "content": "yes \u017a"}]
    return {"id": f"r/{number} \u00e9", "images": images, "messages": messages, **values}


RECORDS = [
    _record(0, IMAGE, _text("What?"), images=["a.png"]),
    _record(1, IMAGE, IMAGE, _text("Same?"), images=["a.png", "b.jpg"], system="Be brief."),
    _record(2, _text("First "), IMAGE, _text(" then\n"), IMAGE, images=["b.jpg", "b.jpg"]),
    _record(3, _text("Behind"), IMAGE, images=["a.png"]),
    _record(4, _text("about the word <image>, \n\n"), images=[]),
    _record(5, IMAGE, _text("\nA line"), images=["a.png"], answers=["yes \u017a", "y"]),
    _record(6, IMAGE, images=["a.png"]),
    _record(7, IMAGE, _text("a"), _text("b"), images=["a.png"]),
    {
        "id": "w",
        "image": "a.png",
        "conversations": [
            {"from": "human", "value": "<image>\n1?"},
            {"from": "gpt", "value": "no", "weight": 0},
            {"from": "human", "value": "2?"},
            {"from": "gpt", "value": "yes"},
        ],
    },
]


@pytest.fixture
def source(tmp_path: Path) -> ConversationDataset:
    folder = tmp_path / "source"
    folder.mkdir()
    for name, color in (("a.png", "red"), ("b.jpg", "blue")):
        Image.new("RGB", (20, 10), color).save(folder / name)
    (folder / "x.jsonl").write_text("\n".join(map(json.dumps, RECORDS)))
    return ConversationDataset(folder / "x.jsonl")


def _content(sample: Any) -> tuple[Any, ...]:
    assert isinstance(sample, Sample), sample
    images = [image.data if isinstance(image, EncodedImage) else image.read_bytes() for image in sample.images]  # type: ignore[union-attr]
    return sample.sample_id, sample.messages, sample.references, images


@pytest.mark.parametrize("embed", [False, True])
@pytest.mark.parametrize("to", TARGETS)
def test_a_round_trip_loses_nothing(source: ConversationDataset, tmp_path: Path, to: str, embed: bool) -> None:
    target = tmp_path / TARGET[to]
    if embed and to != "openai":
        with pytest.raises(ValueError, match="--embed is for --to openai"):
            convert(source, target, to, embed=True)
        return
    result = convert(source, target, to, embed=embed)
    assert (result.records, result.images) == (9, 10)
    streaming = to in ("parquet", "webdataset")
    back = open_file(target, streaming=streaming)
    assert [_content(sample) for sample in back.records()] == [_content(sample) for sample in source.records()]
    again = tmp_path / "again.json"
    convert(back, again, "llava")
    assert [_content(sample)[1:] for sample in open_file(again).records()] == [
        _content(sample)[1:] for sample in source.records()
    ]


def test_images_below_the_file_stay_and_others_are_copied_once(source: ConversationDataset, tmp_path: Path) -> None:
    result = convert(source, tmp_path / "here.jsonl", "llava")
    assert result.image_folder is None
    assert json.loads((tmp_path / "here.jsonl").read_text().splitlines()[0])["image"] == "source/a.png"
    result = convert(source, tmp_path / "out" / "there.jsonl", "llava")
    assert result.image_folder == tmp_path / "out" / "there-images"
    assert len(list(result.image_folder.iterdir())) == 2


def test_drawn_images_become_png(tmp_path: Path) -> None:
    from convllava.synthetic import SyntheticDataset

    drawn = SyntheticDataset("scene", count=2, seed=0, split="train", sizes=[[128, 128]])
    convert(drawn, tmp_path / "x.parquet", "parquet")
    first = next(iter(open_file(tmp_path / "x.parquet", streaming=True).records()))
    assert isinstance(first, Sample) and isinstance(first.images[0], EncodedImage)
    assert Image.open(io.BytesIO(first.images[0].data)).tobytes() == drawn[0].images[0].tobytes()  # type: ignore[union-attr]


def test_records_that_cannot_be_used_stop_or_are_listed(source: ConversationDataset, tmp_path: Path) -> None:
    path = source.path
    path.write_text(path.read_text() + "\n{}")
    faulty = ConversationDataset(path, on_bad_sample="list")
    with pytest.raises(BadSampleError, match="record 9"):
        convert(faulty, tmp_path / "out" / "x.jsonl", "llava")
    assert not any((tmp_path / "out").iterdir())
    result = convert(faulty, tmp_path / "out" / "x.jsonl", "llava", on_bad_sample="skip")
    assert (result.records, [fault.record for fault in result.faults]) == (9, [9])


@pytest.mark.parametrize(
    ("to", "name", "message"),
    [
        ("llava", "x.parquet", r"must end in \.json or \.jsonl for --to llava"),
        ("webdataset", "x.tar", "must be a folder"),
        ("coco", "x.json", "--to must be one of llava, openai, parquet, webdataset, got 'coco'"),
        ("llava", "source/x.jsonl", "exists; give a new path"),
    ],
)
def test_a_target_that_does_not_fit(
    source: ConversationDataset, tmp_path: Path, to: str, name: str, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        convert(source, tmp_path / name, to)
