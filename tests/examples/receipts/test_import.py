"""Receipts in SROIE's layouts become training data and benchmarks; unusable ones are named."""

import json
import shutil
from pathlib import Path
from typing import Any

import import_sroie
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from receipt_files import box_lines, keys, write_sroie
from sroie import ConversionOptions, Receipt, TextLine, convert_receipts, read_receipts, reading_rows
from sroie.crops import cut_line
from sroie.receipt import row_text, rows_of_field
from sroie.split import split_receipts

from convllava.data.conversations import ConversationDataset

# The published split: another one would train on test receipts.
FIRST_OF_THE_TEST = ["024", "031", "392", "404", "057", "282"]
FIRST_OF_TRAINING = ["403", "066", "449"]

TASKS = ("train_lines", "train_bands", "train_fields", "train_pages")


def records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def text_line(x: int, y: int, text: str, width: int = 30, height: int = 20) -> TextLine:
    return TextLine((x, y, x + width, y + height), text)


def different(count: int) -> list[Receipt]:
    """Receipts named 001, 002 and so on, of different images."""
    names = [f"{number + 1:03d}" for number in range(count)]
    return [Receipt(name, Path(name), (1, 1), {}, (), fingerprint=name) for name in names]


@pytest.fixture
def sroie(tmp_path: Path) -> Path:
    write_sroie(tmp_path / "sroie", 6)
    return tmp_path / "sroie"


def test_every_layout_gives_the_same_receipts(tmp_path: Path) -> None:
    examples = write_sroie(tmp_path / "github", 3)
    kaggle, official = tmp_path / "kaggle", tmp_path / "official"
    boxes, fields = official / "0325updated.task1train(626p)", official / "0325updated.task2train(626p)"
    for folder in (kaggle / "img", kaggle / "box", kaggle / "entities", boxes, fields):
        folder.mkdir(parents=True)
    listed = tmp_path / "github" / "all.jsonl"
    lines = []
    for number, example in enumerate(examples):
        image = tmp_path / "github" / "img" / f"{number:03d}.jpg"
        for folder in (kaggle / "img", boxes, fields):
            shutil.copy(image, folder)
        for folder in (kaggle / "box", boxes):
            text = "\n".join(box_lines(example))
            (folder / f"{number:03d}.txt").write_bytes(text.encode("cp1252"))  # a pound sign is not UTF-8 then
        for folder in (kaggle / "entities", fields):
            (folder / f"{number:03d}.txt").write_text(json.dumps(keys(example)))
        pieces = [{"box": list(receipt.box), "text": receipt.text} for receipt in example.facts["page"].fields]
        lines.append(json.dumps({"image": f"img/{number:03d}.jpg", "fields": keys(example), "lines": pieces}))
    listed.write_text("\n".join(lines))
    first, *others = [read_receipts(source) for source in (tmp_path / "github", kaggle, official, listed)]
    assert first[1] == []
    assert [receipt.fields for receipt in first[0]] == [keys(example) for example in examples]
    known = [(receipt.name, receipt.size, receipt.fields, receipt.lines) for receipt in first[0]]
    for receipts, problems in others:
        assert problems == []
        assert [(receipt.name, receipt.size, receipt.fields, receipt.lines) for receipt in receipts] == known


def test_written_data_can_be_trained_on(sroie: Path, tmp_path: Path) -> None:
    report = convert_receipts(sroie, tmp_path / "out", ConversionOptions(test=2, test_lines=3))
    assert (len(report["train"]), len(report["test"])) == (4, 2)
    assert {*report["train"], *report["test"]} == {f"{number:03d}" for number in range(6)}
    receipts = {receipt.name: receipt for receipt in read_receipts(sroie)[0]}
    for task in TASKS:
        dataset = ConversationDataset(tmp_path / "out" / f"{task}.jsonl")
        assert len(dataset) == report["records"][task]
        used = {
            Path(str(sample.images[0])).stem.split("-")[0] for sample in map(dataset.__getitem__, range(len(dataset)))
        }
        assert used == set(report["train"]), task
    fields = {Path(receipt["image"]).stem: receipt for receipt in records(tmp_path / "out" / "train_fields.jsonl")}
    for name, record in fields.items():
        turns = record["conversations"]
        assert sorted(turn["value"] for turn in turns[1::2]) == sorted(receipts[name].fields.values())
        assert [turn["value"].startswith("<image>\n") for turn in turns[0::2]] == [True] + [False] * (
            len(turns) // 2 - 1
        )
        assert (tmp_path / "out" / record["image"]).read_bytes() == receipts[name].image.read_bytes()


def test_lines_are_cropped_at_their_boxes(sroie: Path, tmp_path: Path) -> None:
    """Each crop shows its box of the page."""
    convert_receipts(sroie, tmp_path / "out", ConversionOptions(test=1))
    receipts = {receipt.name: receipt for receipt in read_receipts(sroie)[0]}
    for record in records(tmp_path / "out" / "train_lines.jsonl")[:6]:
        name, number = Path(record["image"]).stem.split("-")
        receipt = receipts[name]
        line = receipt.lines[int(number)]
        assert record["conversations"][1]["value"] == line.text
        with Image.open(tmp_path / "out" / record["image"]) as crop, Image.open(receipt.image) as page:
            assert crop.height == 64
            assert crop.width % 64 == 0
            x0, y0, x1, y1 = line.box
            margin = round(0.12 * (y1 - y0))
            width = round(64 * (x1 - x0 + 2 * margin) / (y1 - y0 + 2 * margin))
            box = (x0 - margin, y0 - margin, x1 + margin, y1 + margin)
            wanted = page.crop(box).resize((width, 64), Image.Resampling.BICUBIC)
            assert np.array_equal(np.asarray(crop)[:, :width], np.asarray(wanted))
            assert np.ptp(np.asarray(crop)[:, width:], axis=(0, 1)).max(initial=0) == 0, "only paper to its right"


def test_the_test_has_fixed_questions(sroie: Path, tmp_path: Path) -> None:
    report = convert_receipts(sroie, tmp_path / "out", ConversionOptions(test=2, test_lines=3))
    lines, fields = (records(tmp_path / "out" / f"receipts_{name}.jsonl") for name in ("lines", "fields"))
    assert len(lines) == 2 * 3
    assert {row["index"].split("/")[0] for row in (*lines, *fields)} == set(report["test"])
    assert {row["question"] for row in fields if row["field"] == "total"} == {"What is the total?"}
    receipts = {receipt.name: receipt for receipt in read_receipts(sroie)[0]}
    for row in fields:
        assert row["answer"] == receipts[row["index"].split("/")[0]].fields[row["field"]]


def test_the_same_import_twice(sroie: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        convert_receipts(sroie, tmp_path / name, ConversionOptions(test=2))
    files = [sorted(path.relative_to(tmp_path / name) for path in (tmp_path / name).rglob("*.*")) for name in "ab"]
    assert files[0] == files[1]
    assert all((tmp_path / "a" / path).read_bytes() == (tmp_path / "b" / path).read_bytes() for path in files[0])


def test_wide_pages_are_scaled_with_their_boxes(sroie: Path, tmp_path: Path) -> None:
    convert_receipts(sroie, tmp_path / "out", ConversionOptions(test=1, page_width=128))
    for record in records(tmp_path / "out" / "train_pages.jsonl"):
        with Image.open(tmp_path / "out" / record["image"]) as page:
            assert page.size == (128, 192)
    for path in (tmp_path / "out" / "crops").glob("*band*"):
        with Image.open(path) as band:
            assert band.width <= 128


def test_a_split_of_the_data_is_kept(tmp_path: Path) -> None:
    for part, count in (("train", 3), ("test", 2)):
        write_sroie(tmp_path / "data" / part, count, ("img", "box", "entities"))
    with pytest.raises(ValueError, match="3 receipts are requested for the part 'test' but there are 2"):
        convert_receipts(tmp_path / "data", tmp_path / "out", ConversionOptions(test=3))
    receipts, problems = read_receipts(tmp_path / "data")
    assert problems == []
    trained, tested, _ = split_receipts(receipts, None, 2, 0)
    assert [receipt.name for receipt in trained] == ["train-002"], "the other two have the images of the test"
    assert sorted(receipt.name for receipt in tested) == ["test-000", "test-001"]


def test_no_image_is_trained_on_and_tested_with(sroie: Path, tmp_path: Path) -> None:
    """Each receipt has a copy: copies of the test are left out and reported, those of training stay."""
    for path in sorted(sroie.rglob("00?.*")):
        shutil.copy(path, path.with_stem(f"{path.stem}(1)"))
    report = convert_receipts(sroie, tmp_path / "out", ConversionOptions(test=2))
    assert len({name[:3] for name in report["test"]}) == len(report["test"]) == 2
    assert sorted(name[:3] for name in report["repeated"]) == sorted(name[:3] for name in report["test"])
    assert len(report["train"]) == 2 * 4
    assert not {name[:3] for name in report["train"]} & {name[:3] for name in report["test"]}


@given(st.integers(0, 30), st.integers(1, 30), st.integers(0, 3))
def test_splits_are_disjoint_and_the_test_stays(train: int, test: int, seed: int) -> None:
    receipts = different(40)
    if train + test > 40:
        with pytest.raises(ValueError, match="ask for fewer"):
            split_receipts(receipts, train, test, seed)
        return
    trained, tested, _ = split_receipts(receipts, train, test, seed)
    assert (len(trained), len(tested)) == (train, test)
    assert not {receipt.name for receipt in trained} & {receipt.name for receipt in tested}
    assert split_receipts(receipts[::-1], None, test, seed)[1] == tested


def test_the_split_of_the_documentation() -> None:
    trained, tested, _ = split_receipts(different(500), 400, 100, 0)
    assert [receipt.name for receipt in tested[:6]] == FIRST_OF_THE_TEST
    assert [receipt.name for receipt in trained[:3]] == FIRST_OF_TRAINING


def test_rows_are_read_from_the_top_in_any_order() -> None:
    lines = [
        text_line(90, 99, "2.53"),
        text_line(10, 10, "SHOP"),
        text_line(10, 104, "TOTAL", width=60, height=12),
        text_line(10, 40, "TEA"),
        text_line(90, 44, "1.00"),
    ]
    rows = reading_rows(lines)
    assert [row_text(row) for row in rows] == ["SHOP", "TEA 1.00", "TOTAL 2.53"]
    assert rows_of_field(rows, "total", "2.53") == (2, 2)


def test_fields_are_found_in_their_rows() -> None:
    texts = [
        "BIG SHOP",
        "NO 5, JALAN AIR,",
        "KUALA LUMPUR",
        "TEA 9.00",
        "SUBTOTAL 9.00",
        "TOTAL (RM) 9.00",
        "CASH 9.00",
    ]
    rows = [(text_line(0, 30 * number, text),) for number, text in enumerate(texts)]
    assert rows_of_field(rows, "total", "9.00") == (5, 5)
    assert rows_of_field(rows, "company", "Big Shop") == (0, 0)
    assert rows_of_field(rows, "address", "NO 5 JALAN AIR KUALA LUMPUR.") == (1, 2)
    assert rows_of_field(rows, "date", "1/1/2018") is None


def test_a_narrow_crop_is_filled_with_paper() -> None:
    page = Image.new("L", (200, 100), 230)
    page.paste(0, (50, 40, 54, 60))
    crop = cut_line(page, text_line(45, 38, "1", width=14, height=24), 64)
    assert crop.size == (64, 64)
    assert crop.getpixel((63, 30)) == 230


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("box/002.csv", "1,2,3,TOTAL", r"box/002.csv, line 1: expected x1,y1.*TEXT, got '1,2,3,TOTAL'"),
        ("box/002.csv", "900,1,950,1,950,9,900,9,X", r"line 1: the box \[900, 1, 950, 9\] has no pixel within"),
        ("key/002.json", "{", r"key/002.json: not valid JSON"),
        ("key/002.json", '{"totl": "1"}', r"key/002.json: unknown key field 'totl'; known: company, date"),
        ("key/002.json", '{"total": 1.5}', r"key/002.json: the field 'total' must be text, got 1.5"),
        ("img/002.jpg", "no image", r"img/002.jpg is not an image that can be read"),
        ("box/017.csv", "1,1,9,1,9,9,1,9,X", r"box/017.csv: there is no image of this name"),
    ],
)
def test_unusable_receipts_are_named_or_left_out(
    sroie: Path, tmp_path: Path, file: str, content: str, message: str
) -> None:
    (sroie / file).write_text(content)
    with pytest.raises(ValueError, match=message):
        convert_receipts(sroie, tmp_path / "out", ConversionOptions(test=2))
    assert not (tmp_path / "out").exists()
    report = convert_receipts(sroie, tmp_path / "out", ConversionOptions(test=2), skip_bad=True)
    assert [receipt["name"] for receipt in report["skipped"]] == [Path(file).stem]
    assert len(report["train"]) + len(report["test"]) == (6 if "017" in file else 5)


def test_truncated_and_rotated_images_are_named(sroie: Path, tmp_path: Path) -> None:
    first, second = sroie / "img" / "000.jpg", sroie / "img" / "001.jpg"
    first.write_bytes(first.read_bytes()[:2000])
    with Image.open(second) as image:
        exif = image.getexif()
        exif[0x0112] = 6
        image.save(second, exif=exif)
    (sroie / "img" / "._002.jpg").write_text("left by another system")
    messages = [receipt.message for receipt in read_receipts(sroie)[1]]
    assert len(messages) == 2
    assert "000.jpg is damaged (image file is truncated" in messages[0]
    assert "001.jpg is rotated by its EXIF orientation" in messages[1]


def test_command(sroie: Path, tmp_path: Path, capsys: Any) -> None:
    out = str(tmp_path / "out")
    assert import_sroie.main([str(sroie), out, "--test", "2"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith(f"4 training receipts and 2 test receipts in {out}")
    assert import_sroie.main([str(sroie), out]) == 2
    assert "exists already and is not an empty directory" in capsys.readouterr().err
    assert import_sroie.main([str(tmp_path / "none"), str(tmp_path / "x")]) == 2
    assert "give the folder with SROIE's images" in capsys.readouterr().err
    assert import_sroie.main([str(sroie), str(tmp_path / "x")]) == 2
    error = capsys.readouterr().err
    assert "100 receipts are requested for the test but there are 6: ask for fewer" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "x").exists()


def test_real_receipts(shared_dir: Path, tmp_path: Path) -> None:
    receipts, problems = read_receipts(shared_dir / "data" / "receipts" / "receipts.jsonl")
    assert problems == []
    trained, tested, repeated = split_receipts(receipts, 400, 100, 0)
    assert [receipt.name for receipt in tested[:6]] == FIRST_OF_THE_TEST
    assert (len(trained), len(tested), repeated) == (400, 100, [])
    assert len({receipt.fingerprint for receipt in trained}) == 398, "some occur twice, all of them in training"
