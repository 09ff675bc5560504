"""LLaVA files: the sample of a record, and the message for a faulty one."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from convllava.data import json_records
from convllava.data.conversations import ConversationDataset

IMAGE = {"type": "image"}


def _text(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}


def _record(*turns: str, **values: Any) -> dict[str, Any]:
    sides = ("human", "gpt")
    conversations = [{"from": sides[n % 2], "value": value} for n, value in enumerate(turns)]
    return {"id": "r1", "conversations": conversations, **values}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, size in {"a.png": (30, 20), "b.png": (8, 9)}.items():
        Image.new("RGB", size).save(tmp_path / name)
    return tmp_path


def _open(folder: Path, *records: Any, name: str = "data.json") -> ConversationDataset:
    lines = "\n".join(json.dumps(record) for record in records)
    (folder / name).write_text(lines if name.endswith("l") else json.dumps(list(records)))
    return ConversationDataset(folder / name)


@pytest.mark.parametrize(
    ("question", "images", "content"),
    [
        ("<image>\nWhat?", "a.png", [IMAGE, _text("What?")]),
        ("What?\n<image>", "a.png", [IMAGE, _text("What?")]),
        ("Look: <image> What?", ["a.png"], [IMAGE, _text("Look:  What?")]),
        ("<image>\n<image>\nSame?", ["a.png", "b.png"], [IMAGE, IMAGE, _text("Same?")]),
        ("First <image> then\n<image>", ["a.png", "b.png"], [_text("First "), IMAGE, _text(" then\n"), IMAGE]),
        ("No image", [], [_text("No image")]),
    ],
)
def test_placeholders_become_image_parts(
    folder: Path, question: str, images: Any, content: list[dict[str, str]]
) -> None:
    sample = _open(folder, _record(question, "yes", image=images))[0]
    assert sample.messages[0] == {"role": "user", "content": content}
    assert sample.messages[1] == {"role": "assistant", "content": [_text("yes")]}
    assert len(sample.images) == sum(part == IMAGE for part in content)


def test_jsonl_many_turns_and_sizes(folder: Path) -> None:
    first = _record("<image>\nOne?", "1", "Two?", "2", image="a.png")
    dataset = _open(folder, first, _record("Hi", "Hello"), name="data.jsonl")
    assert len(dataset) == 2
    assert [message["role"] for message in dataset[0].messages] == ["user", "assistant"] * 2
    assert dataset.image_sizes(0) == [(20, 30)]
    assert dataset.image_sizes(1) == []
    assert dataset.text_length(1) == len("HiHello")


def test_image_folder_may_be_elsewhere(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    path = tmp_path / "elsewhere" / "data.json"
    path.write_text(json.dumps([_record("<image>", "x", image="a.png")]))
    assert ConversationDataset(path, folder)[0].images == (folder / "a.png",)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (_record("<image>\nWhat?", "x"), "1 <image> placeholders but 0 images"),
        (_record("What?", "x", image="a.png"), "0 <image> placeholders but 1 images"),
        (_record("<image>", "x", image="missing.png"), "no image .*missing.png; set image_folder"),
        (_record("What?"), r"roles out of order \(user\)"),
        ({"id": "r1", "conversations": [{"from": "gpt", "value": "x"}]}, "roles out of order"),
        ({"id": "r1", "conversations": [{"from": "bot", "value": "x"}]}, "turn 0: expected 'from'"),
        ({"id": "r1"}, "'conversations' must be a list of turns, got None"),
        (_record("<image>", "x", image=7), "'image' must be a file name"),
        ("text", "expected an object, got str"),
    ],
)
def test_a_faulty_record_is_named(folder: Path, record: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"data.json, record 1.*{message}"):
        _open(folder, _record("Hi", "Hello"), record)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("x.json", "[", "not valid JSON"),
        ("x.json", "{}", "expected a list of records"),
        ("x.json", "[]", "holds no records"),
        ("x.jsonl", '{"id": 1}\n{', "x.jsonl, line 2: not valid JSON|record 0"),
    ],
)
def test_a_faulty_file_is_named(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        ConversationDataset(tmp_path / name)
    with pytest.raises(ValueError, match="no data file"):
        ConversationDataset(tmp_path / "absent.json")


@pytest.mark.parametrize("chunk", [1, 3, 7, 1000])
@pytest.mark.parametrize("indent", [None, 2])
def test_a_list_is_read_in_chunks(folder: Path, chunk: int, indent: int | None, monkeypatch: Any) -> None:
    monkeypatch.setattr(json_records, "_CHUNK", chunk)
    records = [_record(f'say "]" {number} \u00e9\u6f22', f"{{[{number},", meta=[1.5, None]) for number in range(9)]
    (folder / "data.json").write_text(f" \n{json.dumps(records, indent=indent)}\n")
    dataset = ConversationDataset(folder / "data.json")
    assert [dataset[index].messages[1]["content"][0]["text"] for index in range(9)] == [f"{{[{n}," for n in range(9)]
    (folder / "data.json").write_text(json.dumps(records)[:-30])
    with pytest.raises(ValueError, match=r"data\.json: not valid JSON behind its first 8 records"):
        ConversationDataset(folder / "data.json")


def test_a_folder_of_many_images_is_listed_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    is_file = os.path.isfile
    monkeypatch.setattr(os.path, "isfile", lambda path: asked.append(str(path)) or is_file(path))
    records = [_record("<image>", "x", image="a.png" if number != 150 else "gone.png") for number in range(200)]
    (folder / "data.json").write_text(json.dumps(records))
    dataset = ConversationDataset(folder / "data.json", on_bad_sample="skip")
    assert [fault.record for fault in dataset.faults] == [150]
    assert sum(path.endswith("a.png") for path in asked) < 100
    assert [dataset[index].origin.record for index in (149, 150)] == [149, 151]  # type: ignore[union-attr]


def test_all_faults_are_counted_and_other_lines_are_kept(folder: Path) -> None:
    good, bad = json.dumps(_record("Hi", "Hello")), json.dumps(_record("Hi"))
    (folder / "data.jsonl").write_text(f"{good}\n{{broken\n{bad}\n\n{good}\n")
    with pytest.raises(ValueError, match=r"record 1 .*not valid JSON.*; 1 more records of .*data.jsonl cannot be used"):
        ConversationDataset(folder / "data.jsonl")
    dataset = ConversationDataset(folder / "data.jsonl", on_bad_sample="skip")
    assert [fault.kind for fault in dataset.faults] == ["malformed", "role_order"]
    assert [type(entry).__name__ for entry in dataset.records()] == ["Sample", "Fault", "Fault", "Sample"]
    (folder / "data.jsonl").write_text(bad)
    with pytest.raises(ValueError, match="holds no records that can be used"):
        ConversationDataset(folder / "data.jsonl", on_bad_sample="skip")
    assert len(ConversationDataset(folder / "data.jsonl", on_bad_sample="list")) == 0
