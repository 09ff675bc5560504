"""Data sets by name: the content of their cards, and opening them from a folder."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from convllava.data import catalog
from convllava.data.sources import open_source

TURNS = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "This."}]


def _lay_out(root: Path, name: str, records: list[dict[str, Any]]) -> None:
    """Put a few records where the data set expects them, with every folder of images it names."""
    known = catalog.card(name)
    for folder in known.images:
        (root / folder).mkdir(parents=True, exist_ok=True)
    for image in [record["image"] for record in records if "image" in record]:
        path = root / known.image_folder / image
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 6)).save(path)
    (root / known.annotations).parent.mkdir(parents=True, exist_ok=True)
    (root / known.annotations).write_text(json.dumps(records))


@pytest.mark.parametrize("name", catalog.names())
def test_every_card_is_complete(name: str) -> None:
    known = catalog.card(name)
    assert known.samples > 10_000 and known.text_only < known.samples
    assert known.source.startswith("https://") and known.license and known.used_in and known.title
    assert known.images and all(url.startswith("http") for url in known.images.values())
    assert not Path(known.annotations).is_absolute()
    assert known.asked > 0 and known.answered > 0


@pytest.mark.parametrize(
    ("name", "image"),
    [
        ("lcs-558k", "00453/004539375.jpg"),
        ("sharegpt4v-pt", "llava/llava_pretrain/images/00453/004539375.jpg"),
        ("sharegpt4v", "web-landmark/images/a.jpg"),
        ("allava-caption-laion", "allava_laion/images/100277305.jpeg"),
        ("allava-instruct-vflan", "allava_vflan/images/images_191task_1k/VQA-E+574.jpg"),
        ("vision-flan", "Caltech101+1.jpg"),
        ("llava-mix-665k", "ocr_vqa/images/1.jpg"),
    ],
)
def test_a_data_set_is_opened_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, image: str) -> None:
    """Names of images as in the data sets' cards."""
    _lay_out(tmp_path, name, [{"id": "7", "image": image, "conversations": TURNS}])
    opened = open_source(name=name, data_root=tmp_path)
    assert [opened[0].sample_id, len(opened)] == ["7", 1]
    assert list(opened.image_sizes(0)) == [(6, 8)]
    monkeypatch.setenv(catalog.ROOT_VARIABLE, str(tmp_path))
    assert len(open_source(name=name)) == 1


def test_grounding_has_the_records_with_boxes_on_coco_images(tmp_path: Path) -> None:
    box = "<image>\nPlease provide the bounding box coordinate of the region this sentence describes: the dog."
    region = "Please provide a short description for this region: [0.1, 0.2, 0.3, 0.4]."

    def record(number: int, image: str, *asked: str) -> dict[str, Any]:
        turns = [turn for text in asked for turn in ({"from": "human", "value": text}, TURNS[1])]
        return {"id": str(number), "image": image, "conversations": turns}

    records = [
        record(1, "coco/train2017/1.jpg", box, region),
        record(2, "coco/train2017/2.jpg", "<image>\nWhat is this?"),
        record(3, "vg/VG_100K/3.jpg", box),
        record(4, "coco/train2017/4.jpg", "<image>\n" + region),
    ]
    _lay_out(tmp_path, "refcoco", records)
    opened = open_source(name="refcoco", data_root=tmp_path)
    assert [opened[index].sample_id for index in range(len(opened))] == ["1", "4"]
    assert opened.text_length(0) > opened.text_length(1)


def test_missing_files_are_named_with_their_download_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(catalog.ROOT_VARIABLE, raising=False)
    with pytest.raises(
        ValueError, match=r"data_root in the recipe.*CONVLLAVA_DATA.*huggingface\.co/datasets/liuhaotian"
    ):
        open_source(name="lcs-558k")
    with pytest.raises(
        ValueError, match=r"missing: llava/.*558k\.json \(https://.*images \(https://.*License: "
    ) as caught:
        open_source(name="lcs-558k", data_root=tmp_path)
    assert "\n" not in str(caught.value)
    _lay_out(tmp_path, "lcs-558k", [{"id": "7", "image": "a/7.jpg", "conversations": TURNS}])
    (tmp_path / "llava/llava_pretrain/images/a/7.jpg").unlink()
    with pytest.raises(ValueError, match=r"no image .*a/7\.jpg"):
        open_source(name="lcs-558k", data_root=tmp_path)


def test_the_nearest_name_is_suggested() -> None:
    with pytest.raises(ValueError, match=r"called 'sharegpt4-pt'; did you mean 'sharegpt4v-pt'\?"):
        open_source(name="sharegpt4-pt")


def test_an_unexpected_number_of_samples_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    _lay_out(tmp_path, "vision-flan", [{"id": "7", "image": "7.jpg", "conversations": TURNS}])
    open_source(name="vision-flan", data_root=tmp_path)
    assert "has 1 samples, the known one 186103" in caplog.text
