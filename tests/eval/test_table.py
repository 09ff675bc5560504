"""Benchmark files in all formats, and the messages for damaged ones."""

import base64
import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kit_files import image_bytes, image_text, parquet_image, write_parquet, write_tsv
from PIL import Image

from convllava.eval.adapters.vlmevalkit_scoring import kit_row
from convllava.eval.parquet import read_parquet
from convllava.eval.table import default_data_folder, parse_answers, parse_index, read_jsonl
from convllava.eval.tsv import read_tsv
from convllava.images import open_image


def question(index: Any, image: str, **more: Any) -> dict[str, Any]:
    return {"index": index, "image": image, "question": f"question {index}", "answer": "Yes", **more}


def test_answer_cells(shared_dir: Path) -> None:
    cases = json.loads((shared_dir / "eval/vectors/answer_cell_parsing.json").read_text(encoding="utf-8"))["cases"]
    for case in cases:
        assert parse_answers(case["answer_cell"]) == case["answers"], case["id"]


@given(st.lists(st.text(max_size=8), max_size=4))
def test_any_list_of_answers_is_parsed(answers: list[str]) -> None:
    assert parse_answers(repr(answers)) == answers


def test_records_as_the_kit_resolves_them(shared_dir: Path, tmp_path: Path) -> None:
    """The vectors' placeholders become images of different sizes, which identify them."""
    cases = json.loads((shared_dir / "eval/vectors/tsv_records.json").read_text(encoding="utf-8"))["cases"]
    sizes = {letter: (8, 8 + number) for number, letter in enumerate("ABCDEFGH")}
    for case in cases:
        rows = [dict(row) for row in case["rows"]]
        for row in rows:
            if row["image"] and len(row["image"]) > 64 and row["image"][0] != "[":
                row["image"] = image_text(size=sizes[row["image"][0]])
        if any(str(row["image"]).startswith("[") for row in rows):
            continue
        table = read_tsv(write_tsv(tmp_path / "t.tsv", rows), ["question"])
        found = [(row["index"], own[0].size) for row, own in zip(table.rows, table.images, strict=True)]
        wanted = [(row["index"], sizes[row["image"][0]]) for row in case["expected"]["paper_era"]]
        assert found == wanted, case["id"]


def test_images_stay_in_the_file_until_they_are_opened(tmp_path: Path) -> None:
    rows = [question(0, image_text("red")), question(1, "0"), question(2, image_text("blue", (40, 30)))]
    rows[1]["question"] = 'two lines,\nand "quotes"'
    table = read_tsv(write_tsv(tmp_path / "x.tsv", rows), ["question"])
    assert [row["question"] for row in table.rows][1] == 'two lines,\nand "quotes"'
    assert [own[0].size for own in table.images] == [(64, 96), (64, 96), (40, 30)]
    assert open_image(table.images[1][0].open()).getpixel((0, 0)) == (255, 0, 0)
    assert open_image(table.images[2][0].open()).getpixel((0, 0)) == (0, 0, 255)


def test_sizes_are_those_of_the_upright_image(tmp_path: Path) -> None:
    """An EXIF orientation of 6 turns an image of 50 x 100 pixels into one of 100 x 50, as the model sees it."""
    exif = Image.Exif()
    exif[0x0112] = 6
    stream = io.BytesIO()
    Image.new("RGB", (100, 50), "red").save(stream, "JPEG", exif=exif)
    row = question(0, base64.b64encode(stream.getvalue()).decode())
    (image,) = read_tsv(write_tsv(tmp_path / "x.tsv", [row]), []).images[0]
    assert image.size == (100, 50)
    assert open_image(image.open()).size == (50, 100)


def test_several_images_of_one_row(tmp_path: Path) -> None:
    cell = repr([image_text("red"), image_text("blue", (40, 30))])
    row = question("q", cell, image_path="['a.png', 'b.png']")
    table = read_tsv(write_tsv(tmp_path / "x.tsv", [row]), ["question"])
    assert [own.size for own in table.images[0]] == [(64, 96), (40, 30)]
    assert open_image(table.images[0][1].open()).getpixel((0, 0)) == (0, 0, 255)
    assert table.rows[0]["image_path"] == ["a.png", "b.png"]


def test_options_that_pandas_reads_as_missing(tmp_path: Path) -> None:
    path = write_tsv(tmp_path / "x.tsv", [question(0, image_text(), A="None", B="NA", C="", D="x")])
    assert [read_tsv(path, []).rows[0][letter] for letter in "ABCD"] == ["None", "NA", None, "x"]
    assert [kit_row(read_tsv(path, []).rows[0])[letter] for letter in "ABCD"] == [None, None, None, "x"]


def test_rows_without_an_image_are_left_out_with_a_warning(tmp_path: Path) -> None:
    table = read_tsv(write_tsv(tmp_path / "x.tsv", [question(0, image_text()), question(1, "")]), [])
    assert len(table.rows) == 1
    assert table.warnings == ["1 of 2 rows of x.tsv have no image and are left out"]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"index": 0, "question": "q"}], r"has no column image; its columns are index, question"),
        ([question(0, "A" * 101)], r"index 0: the image cell is not base64"),
        ([question(0, image_text()[:-8] + "!!!!" * 2)], r"index 0: the image cell is not base64"),
        ([question(0, image_text()), question(1, "7")], r"index 1: its image cell '7' is no image and names no row"),
        ([question(0, ""), question(1, "0")], r"index 1: its image cell '0' names a row without an image"),
        ([question(0, "1"), question(1, "0")], r"index 0: its image is a circle of references: 0 -> 1 -> 0"),
        ([question(0, "0")], r"index 0: its image is a circle of references: 0 -> 0"),
        ([question(0, "!" * 80), question(1, "?" * 80)], r"index 0: the image cell is not .*; index 1: the image cell"),
        ([{"index": 0, "image_path": "a.png"}], r"has paths \(image_path\) in place of images"),
        ([question(0, image_text()), question(0, "0")], r"record 3: index '0' occurs twice"),
        ([question(0, "[" + "x" * 80 + "]")], r"index 0: the image cell is in brackets but is not a list"),
    ],
)
def test_damaged_tsv(tmp_path: Path, rows: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_tsv(write_tsv(tmp_path / "x.tsv", rows), [])


def test_a_row_with_too_few_cells_and_an_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "x.tsv"
    path.write_text("index\timage\tquestion\n0\tAAAA\n")
    with pytest.raises(ValueError, match="record 2: 2 cells where the header has 3"):
        read_tsv(path, [])
    path.write_text("")
    with pytest.raises(ValueError, match="is empty"):
        read_tsv(path, [])


def test_indices() -> None:
    assert parse_index(["3", "1"]) == [3, 1]
    assert parse_index(["3", "x"]) == ["3", "x"]


def test_parquet(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    images = [{"bytes": image_bytes("red"), "path": None}, {"bytes": image_bytes("blue", (40, 30)), "path": None}]
    table = pyarrow.table({"image": images, "question": ["a", "b"], "question_id": ["1", "2"]})
    parquet.write_table(table, tmp_path / "test-0.parquet", row_group_size=1)

    def convert(row: dict[str, Any]) -> dict[str, Any]:
        return {"index": row["question_id"], "question": row["question"]}

    read = read_parquet([tmp_path / "test-0.parquet"], convert)
    assert [row["question"] for row in read.rows] == ["a", "b"]
    assert [own[0].size for own in read.images] == [(64, 96), (40, 30)]
    assert open_image(read.images[1][0].open()).getpixel((0, 0)) == (0, 0, 255)
    with pytest.raises(ValueError, match="has no column 'answer'; its columns are question, question_id"):
        read_parquet([tmp_path / "test-0.parquet"], lambda row: {"answer": row["answer"]})


def test_jsonl(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(image_bytes())
    path = tmp_path / "x.jsonl"
    path.write_text(json.dumps({"image": "a.png", "question": "q"}) + "\n\n")
    table = read_jsonl(path, ["question"], [tmp_path])
    assert table.rows == [{"question": "q", "index": 0}]
    assert open_image(table.images[0][0].open()).size == (96, 64)
    path.write_text('{"image": "b.png", "question": "q"}\n')
    with pytest.raises(ValueError, match=r"x.jsonl: 1 of 1 images are missing below .*: line 1: 'b.png'$"):
        read_jsonl(path, ["question"], [tmp_path, tmp_path])
    path.write_text("{}\n")
    with pytest.raises(ValueError, match="line 1: no key image, question"):
        read_jsonl(path, ["question"], [tmp_path])
    path.write_text("{\n")
    with pytest.raises(ValueError, match="line 1: not JSON"):
        read_jsonl(path, ["question"], [tmp_path])


def test_all_missing_images_are_listed(tmp_path: Path) -> None:
    (tmp_path / "1.png").write_bytes(image_bytes())
    path = tmp_path / "x.jsonl"
    path.write_text("".join(json.dumps({"image": f"{number}.png", "question": "q"}) + "\n" for number in range(5)))
    with pytest.raises(
        ValueError, match=r"4 of 5 images are missing .*line 1: '0.png'; line 3: '2.png'.*line 5: '4.png'"
    ):
        read_jsonl(path, [], [tmp_path])
    path.write_text("".join(json.dumps({"image": f"{number + 10}.png"}) + "\n" for number in range(30)))
    with pytest.raises(ValueError, match=r"30 of 30 images .*line 20: '29.png'; and 10 more$"):
        read_jsonl(path, [], [tmp_path])


def test_a_path_with_backslashes_is_told(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(image_bytes())
    path = tmp_path / "x.jsonl"
    path.write_text(json.dumps({"image": "images\\a.png"}) + "\n")
    with pytest.raises(ValueError, match=r"line 1: '.*' \(.*backslash"):
        read_jsonl(path, [], [tmp_path])


def test_a_line_without_an_image_is_left_out_with_a_warning(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(image_bytes())
    path = tmp_path / "x.jsonl"
    path.write_text("".join(json.dumps({"image": image}) + "\n" for image in ("a.png", None, "", [], [None])))
    table = read_jsonl(path, [], [tmp_path])
    assert len(table.rows) == 1
    assert table.warnings == ["4 lines of x.jsonl have no image and are left out"]


@pytest.mark.parametrize("text", [r'{"image": "a.png", "question": "ok \ud83d"}', '{"image": ' + "[" * 100_000])
def test_text_that_no_tokenizer_takes_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text("\n" + text + "\n")
    with pytest.raises(ValueError, match=r"x.jsonl, line 2: not JSON"):
        read_jsonl(path, [], [tmp_path])


def test_base64_as_other_programs_write_it(tmp_path: Path) -> None:
    text = base64.b64encode(image_bytes("blue", (40, 30))).decode()
    wrapped = "\n".join(text[start : start + 76] for start in range(0, len(text), 76))
    cells = [wrapped, wrapped.replace("\n", "\r\n") + "\r", text.rstrip("="), f"data:image/png;base64,{text}"]
    table = read_tsv(write_tsv(tmp_path / "x.tsv", [question(i, cell) for i, cell in enumerate(cells)]), [])
    assert [image.size for (image,) in table.images] == [(40, 30)] * 4
    assert len({image.name for (image,) in table.images}) == 1
    assert all(open_image(image.open()).getpixel((0, 0)) == (0, 0, 255) for (image,) in table.images)


def test_an_image_shorter_than_an_index_is_an_image(tmp_path: Path) -> None:
    cell = "R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7"  # a GIF of 42 bytes
    table = read_tsv(write_tsv(tmp_path / "x.tsv", [question(0, cell), question(1, "0")]), [])
    assert [image.size for (image,) in table.images] == [(1, 1)] * 2


def test_damaged_images_are_questions_with_an_error(tmp_path: Path) -> None:
    """One damaged image in a benchmark of thousands must not cost the other answers."""
    no_image = b"QUFB" * 40
    rows = [question(0, image_text()), question(1, base64.b64encode(no_image).decode()), question(2, "1")]
    (tmp_path / "a.png").write_bytes(no_image)
    (tmp_path / "x.jsonl").write_text(json.dumps({"image": "a.png"}) + "\n")
    from_tsv = read_tsv(write_tsv(tmp_path / "x.tsv", rows), [])
    from_jsonl = read_jsonl(tmp_path / "x.jsonl", [], [tmp_path])
    assert [images[0].size for images in from_tsv.images] == [(64, 96), None, None]
    assert from_tsv.warnings[0].startswith("2 images of x.tsv cannot be read: index 1: the image cell is not an image")
    assert from_jsonl.warnings[0].startswith("1 images of x.jsonl cannot be read: index 0: ")
    for damaged in (from_tsv.images[1][0], from_jsonl.images[0][0]):
        with pytest.raises(ValueError, match="is not an image that can be read"):
            damaged.open()


def test_frames_that_are_not_shown_are_told(tmp_path: Path) -> None:
    pages = [Image.new("RGB", (96, 64), color) for color in ("red", "blue", "green")]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    (tmp_path / "x.jsonl").write_text(json.dumps({"image": "a.tif"}) + "\n")
    cell = base64.b64encode((tmp_path / "a.tif").read_bytes()).decode()
    from_tsv = read_tsv(write_tsv(tmp_path / "x.tsv", [question(0, image_text()), question(1, cell)]), [])
    from_jsonl = read_jsonl(tmp_path / "x.jsonl", [], [tmp_path])
    message = "have several frames or pages, of which only the first is shown: index"
    assert from_tsv.warnings == [f"1 images of x.tsv {message} 1"]
    assert from_jsonl.warnings == [f"1 images of x.jsonl {message} 0"]


def test_damaged_images_in_parquet(tmp_path: Path) -> None:
    image = {"bytes": b"QUFB" * 40, "path": None}
    write_parquet(tmp_path / "x.parquet", {"image": [image, parquet_image()], "question": ["a", "b"]})
    table = read_parquet([tmp_path / "x.parquet"], dict)
    assert [images[0].size for images in table.images] == [None, (64, 96)]
    assert table.warnings[0].startswith("1 images of x.parquet cannot be read: index 0: ")


def test_default_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LMUData", str(tmp_path))
    assert default_data_folder() == tmp_path
    monkeypatch.setenv("LMUData", str(tmp_path / "not there"))
    assert default_data_folder() == Path.home() / "LMUData"


def test_sizes_are_those_of_the_upright_images(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    stream = io.BytesIO()
    Image.new("RGB", (192, 64)).save(stream, "JPEG", exif=exif)
    data = stream.getvalue()
    (tmp_path / "a.jpg").write_bytes(data)
    (tmp_path / "x.jsonl").write_text(json.dumps(question(0, "a.jpg")) + "\n")
    tables = [
        read_tsv(write_tsv(tmp_path / "x.tsv", [question(0, base64.b64encode(data).decode())]), ["question"]),
        read_jsonl(tmp_path / "x.jsonl", ["question"], [tmp_path]),
    ]
    for table in tables:
        image = table.images[0][0]
        assert image.size == (192, 64)  # (height, width)
        assert open_image(image.open()).size == (64, 192)
