"""Records as other programs write them: nulls, keys with another meaning, and JSON that cannot be read."""

import io
import json
import re
import tarfile
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from convllava.data.conversations import ConversationDataset
from convllava.data.faults import Fault
from convllava.data.sharded import ShardedDataset

ASKED = [{"from": "human", "value": "What?"}, {"from": "gpt", "value": "yes"}]
SHOWN = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "yes"}]
PARTS = [
    {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What?"}]},
    {"role": "assistant", "content": "yes"},
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    Image.new("RGB", (30, 20)).save(tmp_path / "a.png")
    return tmp_path


def _records(folder: Path, *records: Any, name: str = "data.jsonl") -> list[Any]:
    text = "\n".join(record if isinstance(record, str) else json.dumps(record) for record in records)
    (folder / name).write_text(text if name.endswith("l") else f"[{text.replace(chr(10), ',')}]")
    return list(ConversationDataset(folder / name, on_bad_sample="list").records())


def _tar(folder: Path, record: Any) -> Any:
    with tarfile.open(folder / "x.tar", "w") as archive:
        for name, data in (("1.png", (folder / "a.png").read_bytes()), ("1.json", json.dumps(record).encode())):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return next(ShardedDataset(folder / "x.tar", streaming=True, on_bad_sample="list").records())


def _parquet(folder: Path, streaming: bool, **record: Any) -> Any:
    import pyarrow
    from pyarrow import parquet

    parquet.write_table(pyarrow.table({key: [value] for key, value in record.items()}), folder / "x.parquet")
    return next(ShardedDataset(folder / "x.parquet", streaming=streaming, on_bad_sample="list").records())


@pytest.mark.parametrize(
    "record",
    [
        {"images": ["a.png"], "conversations": SHOWN},
        {"image": None, "images": "a.png", "conversations": SHOWN},
        {"image": "a.png", "image_url": "https://example.com/a.png", "conversations": SHOWN},
        {"image": [None, "a.png"], "messages": PARTS, "conversations": []},
        {"image": "a.png", "conversations": None, "videos": [], "tools": None, "messages": PARTS},
        {"image": "a.png", "conversations": [{**turn, "role": None, "content": None} for turn in SHOWN]},
        {"image": "a.png", "messages": [{**turn, "from": None, "value": None} for turn in PARTS]},
    ],
)
def test_null_is_absent_and_images_is_image(folder: Path, record: Any) -> None:
    [sample] = _records(folder, record)
    assert not isinstance(sample, Fault), sample
    assert sample.images == (folder / "a.png",)
    in_tar = _tar(folder, {key: value for key, value in record.items() if key not in ("image", "images")})
    assert not isinstance(in_tar, Fault), in_tar
    assert in_tar.messages == sample.messages and len(in_tar.images) == 1


@pytest.mark.parametrize("record", [{"image": ""}, {"image": []}, {"images": [None]}, {"image": [""]}])
def test_an_empty_image_is_none(folder: Path, record: Any) -> None:
    [sample] = _records(folder, {**record, "conversations": ASKED})
    assert not isinstance(sample, Fault) and sample.images == ()


@pytest.mark.parametrize("streaming", [False, True])
def test_structs_of_nulls_in_parquet_are_no_images(folder: Path, streaming: bool) -> None:
    image = {"bytes": (folder / "a.png").read_bytes(), "path": None}
    absent = {"bytes": None, "path": None}
    for images in ([image, absent], [None, image]):
        sample = _parquet(folder, streaming, images=images, conversations=SHOWN)
        assert not isinstance(sample, Fault), sample
        assert len(sample.images) == 1


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"videos": ["a.mp4"]}, "key 'videos' is not read here"),
        ({"image_path": "a.png"}, "key 'image_path' is not read here; images belong under 'image'"),
        ({"tools": [{"name": "f"}]}, "key 'tools' is not read here"),
        ({"image": "a.png"}, "0 <image> placeholders but 1 images"),
        ({"conversations": [*ASKED[:1], {**ASKED[1], "tool_calls": [{"id": "1"}]}]}, "key 'tool_calls'.*turn 1"),
        ({"system": ["x"]}, "'system' must be a text"),
        ({"system": "x", "conversations": [{"from": "system", "value": "y"}, *ASKED]}, "'system' must be given once"),
        (
            {"conversations": [ASKED[0], {**ASKED[1], "reasoning_content": "hm"}]},
            "'reasoning_content'.*turn 1.*remove",
        ),
        (
            {"conversations": [ASKED[0], {**ASKED[1], "weight": 0.5}]},
            r"'weight' must be 0 .* or 1, got 0\.5",
        ),
        ({"conversations": [ASKED[0], {**ASKED[1], "loss": False}]}, "key 'loss' is not read.*turn 1.*'weight': 0"),
        ({"conversations": [ASKED[0], {**ASKED[1], "weight": 0}]}, "every answer that is not empty has weight 0"),
        ({"conversations": SHOWN}, r"1 <image> placeholders but 0 images.*written as a part: \{\"type\": \"text\""),
        ({"conversations": None, "messages": PARTS}, "Images are read from the record's 'image'"),
    ],
)
def test_what_would_be_lost_is_refused(folder: Path, values: dict[str, Any], message: str) -> None:
    [fault] = _records(folder, {"id": "r", "conversations": ASKED, **values})
    assert isinstance(fault, Fault)
    assert re.search(message, str(fault)), str(fault)


def test_an_image_that_a_tar_does_not_hold_is_missed(folder: Path) -> None:
    (folder / "a.png").write_bytes(b"")
    with tarfile.open(folder / "x.tar", "w") as archive:
        data = json.dumps({"image": "1.png", "conversations": ASKED}).encode()
        member = tarfile.TarInfo("1.json")
        member.size = len(data)
        archive.addfile(member, io.BytesIO(data))
    fault = next(ShardedDataset(folder / "x.tar", streaming=True, on_bad_sample="list").records())
    assert isinstance(fault, Fault) and "the shard has no image '1.png'" in str(fault)


def test_system_is_the_system_message(folder: Path) -> None:
    [sample] = _records(folder, {"system": "In French.", "conversations": ASKED})
    assert sample.messages[0] == {"role": "system", "content": [{"type": "text", "text": "In French."}]}
    assert len(sample.messages) == 3


@pytest.mark.parametrize("streaming", [False, True])
def test_an_answer_of_weight_0_is_context(folder: Path, streaming: bool) -> None:
    """As in OpenAI's and ShareGPT's files; null and 1 are the usual weight, also as a column of Arrow."""
    turns = [{**turn, "weight": weight} for turn, weight in zip(ASKED * 2, (None, 0, 0, 1), strict=True)]
    turns[2]["loss"] = False  # of a question
    for sample in (_records(folder, {"conversations": turns})[0], _parquet(folder, streaming, conversations=turns)):
        assert [message.get("weight") for message in sample.messages] == [None, 0, None, None]


@pytest.mark.parametrize("name", ["data.json", "data.jsonl"])
def test_bytes_that_are_not_utf8_are_a_fault_of_their_record(folder: Path, name: str) -> None:
    good = json.dumps({"id": "good", "conversations": ASKED, "note": "ż"}, ensure_ascii=False)
    bad = json.dumps({"id": "bad", "conversations": ASKED, "note": "caf\udce9"}, ensure_ascii=False)  # Latin-1
    lines = f"{good}\n{bad}\n{good}".encode(errors="surrogateescape")
    (folder / name).write_bytes(lines if name.endswith("l") else b"[" + lines.replace(b"\n", b",") + b"]")
    first, fault, last = ConversationDataset(folder / name, on_bad_sample="list").records()
    assert first.sample_id == last.sample_id == "good"
    assert fault.record == 1 and f"{name}, record 1" in str(fault)
    assert "not UTF-8 text: byte 0xe9 after" in fault.message and "caf" in fault.message
    with pytest.raises(ValueError, match=r"record 1 .*not UTF-8 text"):
        ConversationDataset(folder / name)
    (folder / name).write_text("[1]" if name.endswith("n") else "1", encoding="utf-16")
    with pytest.raises(ValueError, match=r"not UTF-8 text"):
        ConversationDataset(folder / name)


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("ending", ["json", "txt"])
def test_bytes_that_are_not_utf8_are_a_fault_of_their_record_in_a_tar(
    folder: Path, ending: str, streaming: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", folder / "cache")
    good = json.dumps({"conversations": SHOWN}).encode() if ending == "json" else b"caption"
    files: dict[str, bytes] = {}
    for number, text in enumerate((b"\xef\xbb\xbf" + good, good.replace(b"a", b"\xe9"), good)):
        files |= {f"{number}.png": (folder / "a.png").read_bytes(), f"{number}.{ending}": text}
    files |= {"b\udcff.png": files["0.png"], f"b\udcff.{ending}": good}
    with tarfile.open(folder / "x.tar", "w") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    opened = ShardedDataset(folder / "x.tar", streaming=streaming, on_bad_sample="list")
    first, fault, last, named = opened.records()
    assert not any(isinstance(entry, Fault) for entry in (first, last, named)), (first, last, named)
    assert first.messages == last.messages  # the mark at the start of the file is not text
    assert named.sample_id == "b\\udcff"
    assert isinstance(fault, Fault) and fault.record == 1 and fault.sample_id == "1"
    assert re.search(rf"x\.tar, record 1 \(id 1\): 1\.{ending} is not UTF-8 text .*0xe9", str(fault))


@pytest.mark.parametrize("streaming", [False, True])
def test_text_of_parquet_that_is_not_utf8_is_a_fault_of_its_record(
    folder: Path, streaming: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parquet's writers check no text."""
    import pyarrow
    from pyarrow import parquet

    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", folder / "cache")
    notes = pyarrow.array([b"a", b"caf\xe9", b"c"]).cast(pyarrow.binary()).view(pyarrow.string())
    parquet.write_table(pyarrow.table({"note": notes, "conversations": [ASKED] * 3}), folder / "x.parquet")
    opened = ShardedDataset(folder / "x.parquet", streaming=streaming, on_bad_sample="list")
    first, fault, last = opened.records()
    assert not isinstance(first, Fault) and not isinstance(last, Fault)
    assert isinstance(fault, Fault) and re.search(r"x\.parquet, record 1 .*not UTF-8 text .*0xe9", str(fault))


NESTED = {
    "deep": '{"id": "bad", "conversations": ' + "[" * 100_000 + "]" * 100_000 + "}",
    "nested": '{"id": "bad", "image": ' + "[" * 700 + "]" * 700 + ', "conversations": ' + "[" * 700 + "]" * 700 + "}",
    "huge number": '{"id": ' + "9" * 5000 + ', "conversations": [{"value": "a ] } , [ \\" b"}]}',
    "surrogate": json.dumps({"id": "bad", "conversations": [ASKED[0], {"from": "gpt", "value": "ok \ud83d"}]}),
    "surrogate in system": json.dumps({"id": "bad", "system": "\udcff", "conversations": ASKED}),
    "surrogate in the id": json.dumps({"id": "bad\ud83d", "conversations": []}),
    "surrogate in the image's name": json.dumps({"id": "bad", "image": "\ud83d.png", "conversations": SHOWN}),
}


@pytest.mark.parametrize("name", ["data.json", "data.jsonl"])
@pytest.mark.parametrize("bad", NESTED.values(), ids=NESTED.keys())
def test_json_that_cannot_be_read_is_a_fault_of_its_record(folder: Path, name: str, bad: str) -> None:
    good = json.dumps({"id": "good", "conversations": ASKED})
    first, fault, last = _records(folder, good, bad, good, name=name)
    assert isinstance(fault, Fault) and fault.record == 1
    f"{fault} {fault.sample_id}".encode()
    assert len(str(fault)) < 2000
    assert first.sample_id == last.sample_id == "good"


def test_json_that_cannot_be_read_is_a_fault_of_its_record_in_a_tar(folder: Path) -> None:
    assert _tar(folder, "x").kind == "malformed"
    with tarfile.open(folder / "x.tar", "w") as archive:
        member = tarfile.TarInfo("1.json")
        member.size = len(NESTED["deep"])
        archive.addfile(member, io.BytesIO(NESTED["deep"].encode()))
    fault = next(ShardedDataset(folder / "x.tar", streaming=True, on_bad_sample="list").records())
    assert isinstance(fault, Fault) and fault.kind == "malformed"


def test_names_stay_inside_the_folder_of_the_images(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "outside.png")
    folder = tmp_path / "images"
    (folder / "inner").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(folder / "a.png")
    inside = ("a.png", "inner/../a.png", str(folder / "a.png"), "./a.png")
    escaping = ("../outside.png", str(tmp_path / "outside.png"), "inner/../../outside.png", "/etc/passwd")
    found = _records(folder, *({"image": name, "conversations": SHOWN} for name in (*inside, *escaping)))
    assert [isinstance(entry, Fault) for entry in found] == [False] * 4 + [True] * 4
    assert all("is outside image_folder" in str(fault) for fault in found[4:])
    record = json.dumps({"image": str(tmp_path / "outside.png"), "conversations": SHOWN})
    (folder / "data.jsonl").write_text(record)
    assert len(ConversationDataset(folder / "data.jsonl", "/")) == 1
    fault = _parquet(folder, True, image="../outside.png", conversations=SHOWN)
    assert isinstance(fault, Fault) and "is outside image_folder" in str(fault)


@pytest.mark.parametrize(
    ("stored", "written", "hint"),
    [
        ("a b.png", "a%20b.png", "the path has percent escapes"),
        ("A.png", "a.PNG", "letters of another case"),
        ("a.png", "a.png ", "blanks at its ends"),
        ("other.png", "x.png", "set image_folder to the folder of the images"),
    ],
)
def test_a_name_that_is_nearly_right_is_told_apart(tmp_path: Path, stored: str, written: str, hint: str) -> None:
    (tmp_path / stored).parent.mkdir(exist_ok=True)
    Image.new("RGB", (8, 8)).save(tmp_path / stored)
    [fault] = _records(tmp_path, {"image": written, "conversations": SHOWN})
    assert isinstance(fault, Fault) and hint in fault.message


@pytest.mark.parametrize(
    ("stored", "written"),
    [
        ("e\u0301.png", "\u00e9.png"),
        ("\u00e9.png", "e\u0301.png"),
        ("sub/x.png", "sub\\x.png"),
        ("sub/e\u0301.png", ".\\sub\\\u00e9.png"),
    ],
)
def test_backslashes_and_unicode_forms_mean_the_same_file(tmp_path: Path, stored: str, written: str) -> None:
    (tmp_path / stored).parent.mkdir(exist_ok=True)
    Image.new("RGB", (8, 9)).save(tmp_path / stored)
    (tmp_path / "data.jsonl").write_text(json.dumps({"image": written, "conversations": SHOWN}))
    dataset = ConversationDataset(tmp_path / "data.jsonl")
    assert dataset[0].images == (tmp_path / stored,)
    assert dataset.image_sizes(0) == [(9, 8)]
    sample = _parquet(tmp_path, True, image=written, conversations=SHOWN)
    assert not isinstance(sample, Fault) and sample.images == (tmp_path / stored,)
    outside = {"image": "..\\" + written, "conversations": SHOWN}
    (tmp_path / "inner").mkdir()
    [fault] = _records(tmp_path / "inner", outside)
    assert isinstance(fault, Fault) and fault.kind == "missing_image"


@pytest.mark.parametrize("role", ["tool", "function_call", "observation"])
def test_tool_turns_are_refused_by_name(folder: Path, role: str) -> None:
    turns = [{"role": "user", "content": "x"}, {"role": role, "content": "{}"}, {"role": "assistant", "content": "y"}]
    [fault] = _records(folder, {"messages": turns})
    assert isinstance(fault, Fault) and f"turn 1 is a '{role}' turn: tools are not read" in fault.message
