"""Data as other programs write it: every format is recognized by its content and becomes the same sample."""

import base64
import io
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from convllava.data.conversations import ConversationDataset
from convllava.data.faults import Fault
from convllava.data.files import open_file
from convllava.data.sharded import ShardedDataset


def _png(size: tuple[int, int] = (40, 20)) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", size, "red").save(stream, "png")
    return stream.getvalue()


BASE64 = base64.b64encode(_png()).decode()
DATA_URL = f"data:image/png;base64,{BASE64}"
ASK, SAY = {"role": "user", "content": "<image>\nTotal?"}, {"role": "assistant", "content": "12.50"}
SYSTEM = {"role": "system", "content": "Be brief."}
ALPACA = {"instruction": "Total?", "output": "12.50", "images": ["a.png"]}


def _turn(role: str, *parts: Any) -> dict[str, Any]:
    return {"role": role, "content": list(parts)}


def _text(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}


def _url(url: Any) -> dict[str, Any]:
    return {"type": "image_url", "image_url": url}


def _answer(text: str = "12.50") -> dict[str, Any]:
    return _turn("assistant", _text(text))


ONE_RECORD: dict[str, tuple[str, dict[str, Any]]] = {
    "llava": (
        "LLaVA",
        {
            "image": "a.png",
            "conversations": [{"from": "human", "value": "<image>\nTotal?"}, {"from": "gpt", "value": "12.50"}],
        },
    ),
    "sharegpt roles": (
        "LLaVA",
        {
            "image": "a.png",
            "conversations": [{"from": "user", "value": "<image>\nTotal?"}, {"from": "assistant", "value": "12.50"}],
        },
    ),
    "llamafactory": ("LlamaFactory ShareGPT", {"messages": [ASK, SAY], "images": ["a.png"]}),
    "openai path": ("OpenAI messages", {"messages": [_turn("user", _url({"url": "a.png"}), _text("Total?")), SAY]}),
    "openai text": ("OpenAI messages", {"messages": [_turn("user", _url("a.png"), _text("Total?")), _answer()]}),
    "openai nulls": (
        "OpenAI messages",
        {
            "messages": [
                _turn(
                    "user",
                    {**_url({"url": "a.png", "detail": None}), "text": None},
                    {**_text("Total?"), "image_url": None},
                ),
                SAY,
            ],
            "tools": None,
        },
    ),
    "responses": (
        "OpenAI messages",
        {
            "messages": [
                _turn("user", {"type": "input_image", "image_url": "a.png"}, {"type": "input_text", "text": "Total?"}),
                SAY,
            ]
        },
    ),
    "qwen": (
        "messages with parts (TRL, Qwen)",
        {"messages": [_turn("user", {"type": "image", "image": "a.png"}, _text("Total?")), SAY]},
    ),
    "trl": (
        "messages with parts (TRL, Qwen)",
        {"images": ["a.png"], "messages": [_turn("user", {"type": "image"}, _text("Total?")), SAY]},
    ),
    "trl prompt": (
        "TRL prompt and completion",
        {"images": ["a.png"], "prompt": [_turn("user", {"type": "image"}, _text("Total?"))], "completion": [_answer()]},
    ),
    "cauldron": (
        "texts of the Cauldron",
        {"images": ["a.png"], "texts": [{"user": "Total?", "assistant": "12.50", "source": "x"}]},
    ),
    "alpaca": ("Alpaca", ALPACA),
    "alpaca placed": ("Alpaca", {"instruction": "<image>\nTotal?", "input": "", "output": "12.50", "images": "a.png"}),
    "question": ("question and answer", {"image": "a.png", "question": "Total?", "answer": "12.50"}),
    "number": ("question and answer", {"image_path": "a.png", "query": "Total?", "label": ["12.50"]}),
    "annotators": (
        "question and answer",
        {
            "image": "a.png",
            "question": "Total?",
            "answers": [{"answer": "12"}, {"answer": "12.50"}, {"answer": "12.50"}],
        },
    ),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(_png())
    return tmp_path


def _write(folder: Path, name: str, *records: Any) -> ConversationDataset:
    text = "\n".join(json.dumps(record) for record in records)
    (folder / name).write_text(text if name.endswith("l") else json.dumps(list(records)))
    return ConversationDataset(folder / name, on_bad_sample="list")


def _only(dataset: Any) -> Any:
    [sample] = dataset.records()
    assert not isinstance(sample, Fault), sample
    return sample


def _dialogue(sample: Any) -> list[tuple[str, str]]:
    def written(part: dict[str, str]) -> str:
        return part.get("text", "[image]")

    return [(message["role"], "".join(map(written, message["content"]))) for message in sample.messages]


TOTAL = [("user", "[image]Total?"), ("assistant", "12.50")]


@pytest.mark.parametrize("name", ["x.json", "x.jsonl"])
@pytest.mark.parametrize(("title", "record"), ONE_RECORD.values(), ids=ONE_RECORD.keys())
def test_formats_of_records(folder: Path, name: str, title: str, record: dict[str, Any]) -> None:
    dataset = _write(folder, name, record)
    sample = _only(dataset)
    assert dataset.format.title == title
    assert sample.images == (folder / "a.png",)
    assert _dialogue(sample) == TOTAL
    assert sample.sample_id == "0"
    assert _dialogue(pickle.loads(pickle.dumps(dataset))[0]) == TOTAL


def _for_arrow(key: str, value: Any) -> Any:
    """Return a value with the image inside, and with parts in all turns if one has them, as one type needs."""
    image = {"bytes": _png(), "path": None}
    if value in ("a.png", ["a.png"]):
        return image if value == "a.png" else [image]
    if key == "messages" and any(isinstance(turn["content"], list) for turn in value):
        return [
            turn if isinstance(turn["content"], list) else _turn(turn["role"], _text(turn["content"])) for turn in value
        ]
    return value


@pytest.mark.parametrize("record", [record for _, record in ONE_RECORD.values()], ids=ONE_RECORD.keys())
def test_formats_of_records_in_parquet(folder: Path, record: dict[str, Any]) -> None:
    import pyarrow
    from pyarrow import parquet

    held = {key: _for_arrow(key, value) for key, value in record.items()}
    parquet.write_table(pyarrow.Table.from_pylist([held, held]), folder / "x.parquet")
    for streaming in (True, False) if "question" in record else (True,):  # storing takes half a second each
        dataset = ShardedDataset(folder / "x.parquet", streaming=streaming)
        sample = list(dataset.records())[1]
        assert not isinstance(sample, Fault), sample
        assert _dialogue(sample) == TOTAL
        assert [dataset.image_sizes(1), len(sample.images)] == [[(20, 40)], 1]


def test_data_urls_and_urls(folder: Path) -> None:
    ask = [_turn("user", _url({"url": DATA_URL}), _text("Total?")), SAY]
    sample = _only(_write(folder, "x.jsonl", {"messages": ask}))
    assert sample.images[0].data == _png()
    for url, reason in (("https://x.org/a.png", "download the image"), ("data:image/png;base64,@", "not valid base64")):
        [fault] = _write(folder, "x.jsonl", {"messages": [_turn("user", _url(url), _text("x")), SAY]}).records()
        assert isinstance(fault, Fault) and reason in fault.message
    local = _turn("user", _url(f"file://{folder}/a.png"), _text("Total?"))
    assert _only(_write(folder, "x.jsonl", {"messages": [local, SAY]})).images == (folder / "a.png",)


def test_text_and_image_of_a_user_in_two_turns(folder: Path) -> None:
    record = {"messages": [SYSTEM, {"role": "user", "content": "Total?"}, _turn("user", _url({"url": "a.png"})), SAY]}
    assert _dialogue(_only(_write(folder, "x.jsonl", record))) == [
        ("system", "Be brief."),
        ("user", "Total?[image]"),
        ("assistant", "12.50"),
    ]


def test_alpaca_with_input_history_and_system(folder: Path) -> None:
    record = {
        **ALPACA,
        "instruction": "Sum",
        "input": "of all?",
        "history": [["What?", "A bill."]],
        "system": "Be brief.",
    }
    assert _dialogue(_only(_write(folder, "x.json", record))) == [
        ("system", "Be brief."),
        ("user", "[image]What?"),
        ("assistant", "A bill."),
        ("user", "Sum\nof all?"),
        ("assistant", "12.50"),
    ]


def test_answers_are_references(folder: Path) -> None:
    sample = _only(_write(folder, "x.jsonl", ONE_RECORD["annotators"][1]))
    assert sample.references == ("12", "12.50", "12.50")
    assert _only(_write(folder, "x.jsonl", ONE_RECORD["question"][1])).references == ()


@pytest.mark.parametrize("answer", [1, "1", "B", "b", "blue"])
@pytest.mark.parametrize("options", [{"choices": ["red", "blue"]}, {"A": "red", "B": "blue", "C": None}])
def test_multiple_choice(folder: Path, answer: Any, options: dict[str, Any]) -> None:
    record = {"image": "a.png", "question": "Color?", "hint": "Look.", **options, "answer": answer}
    sample = _only(_write(folder, "x.jsonl", record))
    assert _dialogue(sample) == [("user", "[image]Look.\nColor?\nA. red\nB. blue"), ("assistant", "B")]
    [fault] = _write(folder, "x.jsonl", {**record, "answer": "green"}).records()
    assert isinstance(fault, Fault) and "'green' is none of the options" in fault.message


def test_captions(folder: Path) -> None:
    dataset = _write(folder, "metadata.jsonl", {"file_name": "a.png", "text": "A bill."})
    assert _dialogue(_only(dataset)) == [("user", "[image]"), ("assistant", "A bill.")]
    assert _dialogue(_only(open_file(folder))) == [("user", "[image]"), ("assistant", "A bill.")]


INFO = {
    "mine": {
        "file_name": "x.json",
        "formatting": "sharegpt",
        "columns": {"messages": "talk", "images": "shots", "system": "rule"},
        "tags": {"role_tag": "who", "content_tag": "said", "user_tag": "U", "assistant_tag": "A", "system_tag": "S"},
    },
    "plain": {"file_name": "y.json", "columns": {"prompt": "q", "response": "a", "images": "shots", "query": "more"}},
}


def test_dataset_info_of_llamafactory(folder: Path) -> None:
    (folder / "dataset_info.json").write_text(json.dumps(INFO))
    talk = [{"who": "U", "said": "<image>Total?"}, {"who": "A", "said": "12.50"}]
    dataset = _write(folder, "x.json", {"talk": talk, "shots": ["a.png"], "rule": "Be brief."})
    assert dataset.format.title == "LlamaFactory ShareGPT (dataset_info.json: mine)"
    assert _dialogue(_only(dataset)) == [("system", "Be brief."), *TOTAL]
    dataset = _write(folder, "y.json", {"q": "Total", "more": "?", "a": "12.50", "shots": ["a.png"]})
    assert dataset.format.title == "LlamaFactory Alpaca (dataset_info.json: plain)"
    assert _dialogue(_only(dataset)) == [("user", "[image]Total\n?"), ("assistant", "12.50")]
    [fault] = _write(folder, "x.json", {"talk": [*talk, {"who": "observation", "said": "x"}]}).records()
    assert isinstance(fault, Fault) and "tools are not read" in fault.message
    (folder / "dataset_info.json").write_text(json.dumps({**INFO, "other": {**INFO["plain"], "file_name": "x.json"}}))
    with pytest.raises(ValueError, match=r"describes x.json in several ways \(mine, other\)"):
        _write(folder, "x.json", {"talk": talk})


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("x.csv", "image,question,answer\na.png,Total?,12.50\n"),
        ("x.csv", "\ufeffimage;question;answer;note\na.png;Total?;12.50;\n"),
        ("x.tsv", 'index\timage\tquestion\tanswer\n0\ta.png\tTotal?\t"12.50"\n'),
        ("x.tsv", f"index\timage\tquestion\tanswer\n0\t{BASE64}\tTotal?\t['12.50', '12.5']\n"),
        ("x.csv", 'images,question,answers\n"[""a.png""]",Total?,"[""12.50""]"\n'),
        ("x.csv", "instruction,output,images\nTotal?,12.50,a.png\n"),
    ],
)
def test_tables(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(text)
    sample = _only(ConversationDataset(folder / name))
    assert _dialogue(sample) == TOTAL
    assert len(sample.images) == 1


def test_a_damaged_table(folder: Path) -> None:
    (folder / "x.csv").write_text("image,question,answer\na.png,a,b,c\na.png,Total?,12.50\n")
    faulty, _ = ConversationDataset(folder / "x.csv", on_bad_sample="list").records()
    assert isinstance(faulty, Fault) and "1 more cells than the header" in faulty.message
    (folder / "x.csv").write_bytes(b"image,question,answer\na.png,\xff,c\n")
    with pytest.raises(ValueError, match="not UTF-8 text"):
        ConversationDataset(folder / "x.csv")


def test_images_with_texts(folder: Path) -> None:
    (folder / "sub").mkdir()
    (folder / "sub" / "c.png").write_bytes(_png())
    (folder / "sub" / "c.txt").write_text("See\n")
    (folder / "a.txt").write_text("One")
    dataset = ConversationDataset(folder, on_bad_sample="list")
    first, fault, last = dataset.records()
    assert dataset.format.title == "images with texts"
    assert [first.sample_id, last.sample_id] == ["a", "sub/c"]  # type: ignore[union-attr]
    assert _dialogue(last) == [("user", "[image]"), ("assistant", "See")]
    assert isinstance(fault, Fault) and "there is no b.txt" in fault.message
    (folder / "a.txt").unlink()
    (folder / "sub" / "c.txt").unlink()
    with pytest.raises(ValueError, match="neither shards, nor images with a"):
        open_file(folder)
    (folder / "x.jsonl").write_text(json.dumps(ONE_RECORD["question"][1]))
    assert _dialogue(_only(open_file(folder))) == TOTAL


COCO = {
    "images": [
        {"id": 7, "file_name": "a.png", "width": 40, "height": 20},
        {"id": 8, "file_name": "b.png", "width": 40, "height": 20},
    ],
    "categories": [{"id": 1, "name": "dog"}, {"id": 2, "name": "cat"}],
    "annotations": [
        {"id": 1, "image_id": 7, "category_id": 1, "bbox": [10, 5, 20, 10], "iscrowd": 0},
        {"id": 2, "image_id": 7, "category_id": 2, "bbox": [0, 0, 4, 20]},
        {"id": 3, "image_id": 7, "category_id": 1, "bbox": [0, 0, 40, 20]},
        {"id": 4, "image_id": 7, "category_id": 1, "bbox": [0, 0, 1, 1], "iscrowd": 1},
    ],
}


def _whole(folder: Path, content: Any, indent: int | None = None) -> ConversationDataset:
    (folder / "x.json").write_text(json.dumps(content, indent=indent))
    return ConversationDataset(folder / "x.json", on_bad_sample="list")


@pytest.mark.parametrize("indent", [None, 1])
def test_coco(folder: Path, indent: int | None) -> None:
    dataset = _whole(folder, COCO, indent)
    sample = _only(dataset)
    assert (dataset.format.title, sample.sample_id) == ("COCO annotations", "7")
    assert _dialogue(sample) == [
        ("user", "[image]Where is the dog?"),
        ("assistant", "[0.25, 0.38, 0.75, 0.62], [0.00, 0.25, 1.00, 0.75]"),
        ("user", "Where is the cat?"),
        ("assistant", "[0.00, 0.25, 0.10, 0.75]"),
    ]
    stray = {"id": 9, "image_id": 99, "category_id": 1, "bbox": [0, 0, 1, 1]}
    nameless = {**COCO["annotations"][1], "category_id": 5}
    first, second = _whole(folder, {**COCO, "annotations": [nameless, stray]}).records()
    assert isinstance(first, Fault) and "category 5 is not among" in first.message
    assert isinstance(second, Fault) and "of the unknown image 99" in second.message


def test_coco_captions(folder: Path) -> None:
    annotations = [{"image_id": 7, "id": 1, "caption": "A dog."}, {"image_id": 7, "id": 2, "caption": "A puppy."}]
    sample = _only(_whole(folder, {**COCO, "annotations": annotations}))
    assert _dialogue(sample) == [("user", "[image]"), ("assistant", "A dog.")]
    assert sample.references == ("A dog.", "A puppy.")


@pytest.mark.parametrize(
    "record",
    [
        {"image": "a.png", "sent": "the left dog", "bbox": [10, 5, 30, 15], "width": 40, "height": 20},
        {"image_path": "a.png", "sentences": [{"raw": "Left dog", "sent": "left dog"}], "bbox": [10, 5, 30, 15]},
    ],
)
def test_refcoco(folder: Path, record: dict[str, Any]) -> None:
    dataset = _write(folder, "x.jsonl", record)
    assert dataset.format.title == "referring expressions with boxes"
    assert _dialogue(_only(dataset)) == [
        ("user", "[image]Where is the left dog?"),
        ("assistant", "[0.25, 0.38, 0.75, 0.62]"),
    ]
    [fault] = _write(folder, "x.jsonl", {**record, "bbox": [10, 5, 3, 15]}).records()
    assert isinstance(fault, Fault) and "'bbox' must be x0, y0, x1, y1" in fault.message


RECT = {"name": "rect", "x": 10, "y": 5, "width": 20, "height": 10}
POLYGON = {"name": "polygon", "all_points_x": [0, 40, 3], "all_points_y": [0, 20, 5]}


@pytest.mark.parametrize("is_project", [False, True])
@pytest.mark.parametrize("is_first_version", [False, True])
def test_via(folder: Path, is_project: bool, is_first_version: bool) -> None:
    regions = [
        {"shape_attributes": RECT, "region_attributes": {"name": "dog", "color": "red"}},
        {"shape_attributes": POLYGON, "region_attributes": {"name": {"dog": True, "cat": False}}},
        {"shape_attributes": {"name": "circle", "cx": 5, "cy": 5, "r": 5}, "region_attributes": {"name": "cat"}},
    ]
    held: Any = dict(enumerate(regions)) if is_first_version else regions
    entries = {
        "a.png123": {"filename": "a.png", "size": 123, "regions": held, "file_attributes": {}},
        "b.png9": {"filename": "b.png", "size": 9, "regions": []},
    }
    content = {"_via_settings": {}, "_via_img_metadata": entries} if is_project else entries
    dataset = _whole(folder, content)
    assert dataset.format.title == "VGG Image Annotator"
    assert _dialogue(_only(dataset)) == [
        ("user", "[image]Where is the dog?"),
        ("assistant", "[0.25, 0.38, 0.75, 0.62], [0.00, 0.25, 1.00, 0.75]"),
        ("user", "Where is the cat?"),
        ("assistant", "[0.00, 0.25, 0.25, 0.50]"),
    ]
    point = {"shape_attributes": {"name": "point", "cx": 1, "cy": 1}, "region_attributes": {"name": "dog"}}
    [fault] = _whole(folder, {"k": {"filename": "a.png", "regions": [point]}}).records()
    assert isinstance(fault, Fault) and "shape 'point' has no box" in fault.message


def test_files_of_one_object_and_lines_in_json(folder: Path) -> None:
    record = ONE_RECORD["question"][1]
    assert _dialogue(_only(_whole(folder, {"version": 1, "data": [record]}, 1))) == TOTAL
    assert _dialogue(_only(_whole(folder, record))) == TOTAL
    (folder / "x.json").write_text("\n".join([json.dumps(record)] * 3))
    assert len(ConversationDataset(folder / "x.json")) == 3


def test_format_is_forced_and_other_records_are_named(folder: Path) -> None:
    both = {
        **ONE_RECORD["question"][1],
        "conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}],
    }
    (folder / "x.jsonl").write_text(json.dumps(both))
    with pytest.raises(ValueError, match="0 <image> placeholders but 1 images"):
        ConversationDataset(folder / "x.jsonl")
    assert _dialogue(_only(ConversationDataset(folder / "x.jsonl", format="qa"))) == TOTAL
    with pytest.raises(ValueError, match="no format 'alpacca'; did you mean 'alpaca'"):
        ConversationDataset(folder / "x.jsonl", format="alpacca")
    with pytest.raises(ValueError, match="is not of the format 'coco'"):
        ConversationDataset(folder / "x.jsonl", format="coco")
    *_, fault = _write(folder, "x.jsonl", ONE_RECORD["question"][1], {"talk": 1}).records()
    assert isinstance(fault, Fault) and "expected the format question and answer, got the keys talk" in fault.message


def test_formats_in_tars(folder: Path) -> None:
    import tarfile

    with tarfile.open(folder / "x.tar", "w") as archive:
        for key, record in (("0", ALPACA), ("1", ONE_RECORD["question"][1]), ("2", ONE_RECORD["openai path"][1])):
            for name, data in ((f"{key}.png", _png()), (f"{key}.json", json.dumps(record).encode())):
                member = tarfile.TarInfo(name)
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
    samples = list(ShardedDataset(folder / "x.tar", streaming=True).records())
    assert [_dialogue(sample) for sample in samples] == [TOTAL] * 3


@pytest.mark.parametrize("streaming", [False, True])
def test_images_inside_the_parts_of_parquet(folder: Path, streaming: bool) -> None:
    import pyarrow
    from pyarrow import parquet

    shown = {"type": "image", "image": {"bytes": _png(), "path": None}}
    messages = [_turn("user", shown, _text("Total?")), _answer()]
    parquet.write_table(pyarrow.Table.from_pylist([{"messages": messages}]), folder / "x.parquet")
    [sample] = ShardedDataset(folder / "x.parquet", streaming=streaming).records()
    assert not isinstance(sample, Fault), sample
    assert _dialogue(sample) == TOTAL and sample.images[0].data == _png()  # type: ignore[union-attr]
