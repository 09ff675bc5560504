"""``data check`` finds each fault once, at the right record, and nothing else."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from shard_kit import encoded_image, record, tar_files, write_parquet, write_tar

from convllava.data.batching import encode_sample
from convllava.data.check import Inspector, Limits, Report, check, write_clean_copy
from convllava.data.conversations import ConversationDataset
from convllava.data.faults import BadSampleError
from convllava.data.files import open_file
from convllava.data.samples import NamedSource
from convllava.model import build_nano_processor

PROCESSOR = build_nano_processor()


def _record(question: str = "<image>\nWhat?", *answers: str, image: Any = "a.png", **values: Any) -> dict[str, Any]:
    turns = [{"from": "human", "value": question}, {"from": "gpt", "value": (answers or ("this",))[0]}]
    for answer in answers[1:]:
        turns += [{"from": "human", "value": "And?"}, {"from": "gpt", "value": answer}]
    return {"id": values.pop("id", None), "image": image, "conversations": turns, **values}


def _write(folder: Path, records: list[dict[str, Any]], name: str = "data.json") -> Path:
    for number, entry in enumerate(records):
        entry["id"] = entry["id"] or f"r{number}"
    path = folder / name
    lines = "\n".join(map(json.dumps, records))
    path.write_text(lines if name.endswith("l") else json.dumps(records))
    return path


def _check(path: Path | str, *, jobs: int = 0, previewed: int = 0, **limits: Any) -> Report:
    source = open_file(path, streaming=not str(path).endswith((".json", ".jsonl")), on_bad_sample="list")
    return check([NamedSource(str(path), source)], Inspector(PROCESSOR, Limits(**limits), previewed), jobs=jobs)


def _found(report: Report) -> list[tuple[int | None, str]]:
    return [(fault.record, fault.kind) for fault in report.faults]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, size in {"a.png": (128, 64), "b.png": (64, 64), "c.png": (70, 66)}.items():
        Image.new("RGB", size).save(tmp_path / name)
    return tmp_path


def _cases(folder: Path) -> list[tuple[dict[str, Any], str]]:
    """Return faulty records, each with the kind of its fault."""
    Image.new("P", (64, 64)).save(folder / "gif.jpg", "GIF")
    Image.effect_noise((200, 200), 50).save(folder / "complete.jpg")
    (folder / "half.jpg").write_bytes((folder / "complete.jpg").read_bytes()[:3000])
    (folder / "text.png").write_text("no image")
    (folder / "bomb.ppm").write_text("P6 60000 60000 255\n")
    Image.new("L", (320, 320)).save(folder / "large.png")
    return [
        (_record(image="gone.png"), "missing_image"),
        (_record(image="half.jpg"), "corrupt_image"),
        (_record(image="text.png"), "corrupt_image"),
        (_record(image="bomb.ppm"), "huge_image"),
        (_record(image="gif.jpg"), "wrong_name"),
        (_record(image="large.png"), "large_image"),
        (_record("What?"), "placeholder_mismatch"),
        (_record(image=None), "placeholder_mismatch"),
        (_record("<image>", " \n"), "no_answer"),
        (_record("<image>", "yes", ""), "empty_answer"),
        (_record("<image>\n" + "x" * 400), "too_long"),
        ({"id": None, "conversations": _record()["conversations"][1:]}, "role_order"),
        ({"id": None, "conversations": [{"from": "bot", "value": "x"}]}, "malformed"),
        (_record("<image>\nOther?", id="r0"), "duplicate_id"),
        (_record("<image>\nWhat?", "that"), "duplicate"),
    ]


@pytest.mark.parametrize("jobs", [0, 2])
def test_each_fault_is_found_once_and_named(folder: Path, jobs: int) -> None:
    cases = _cases(folder)
    good = [_record("<image>\nWhat?", "that"), _record(image=["a.png", "b.png"], question="<image><image>Same?")]
    path = _write(folder, good + [faulty for faulty, _ in cases])
    report = _check(path, jobs=jobs, max_length=300, large_pixels=100_000)
    assert _found(report) == [(number, kind) for number, (_, kind) in enumerate(cases, start=2)]
    assert (report.errors, report.warnings) == (10, 5)
    [source] = report.sources
    assert (source.records, source.usable) == (17, 7)
    written = report.as_json()
    assert json.loads(json.dumps(written)) == written
    assert written["faults"][0] == {
        "severity": "error",
        "kind": "missing_image",
        "file": str(path),
        "record": 2,
        "sample_id": "r2",
        "message": f"no image {folder / 'gone.png'}; set image_folder to the folder of the images",
    }


def test_errors_are_the_samples_that_training_rejects(folder: Path) -> None:
    path = _write(folder, [faulty for faulty, _ in _cases(folder)])
    errors = {fault.record for fault in _check(path, max_length=300, large_pixels=100_000).faults if fault.is_error}
    dataset = ConversationDataset(path, on_bad_sample="skip")
    refused = {fault.record for fault in dataset.faults}
    for index in range(len(dataset)):
        try:
            encode_sample(dataset[index], PROCESSOR, 300)
        except BadSampleError as error:
            refused.add(error.fault.record)
    assert refused == errors


def test_token_counts_equal_those_of_training(folder: Path) -> None:
    records = [
        _record("<image>\nWhat?", "this", "that"),
        _record(image=["c.png", "a.png"], question="First <image> then <image>?"),
        _record("No image", "right", image=None),
    ]
    dataset = ConversationDataset(_write(folder, records))
    rows = [encode_sample(dataset[index], PROCESSOR, 2048) for index in range(3)]
    [source] = _check(dataset.path).sources
    visual = sum(int((row["input_ids"] == PROCESSOR.image_token_id).sum()) for row in rows)
    assert source.visual_tokens == visual > 0
    assert source.text_tokens == sum(len(row["input_ids"]) for row in rows) - visual
    assert source.supervised_tokens == sum(int((row["labels"] != -100).sum()) for row in rows)
    assert source.longest == max(len(row["input_ids"]) for row in rows)


def test_the_preview_shows_supervised_text(folder: Path) -> None:
    path = _write(folder, [_record("<image>\nWhat?", "this", "é!"), _record("No?", "x", image=None)])
    [(place, pieces)] = _check(path, previewed=1).sources[0].previews
    assert place.endswith("record 0 (id r0)")
    assert [piece.text for piece in pieces if piece.kind == "supervised"] == ["this</s>", "é!</s>"]
    assert [piece.text for piece in pieces if piece.kind == "image"] == ["2 visual tokens"]
    assert "What?" in "".join(piece.text for piece in pieces if piece.kind == "shown")


def test_shares_count_the_samples_that_the_run_draws(folder: Path) -> None:
    first = ConversationDataset(_write(folder, [_record("a", "1", image=None)], "a.json"))
    second = ConversationDataset(_write(folder, [_record("b", "123456789", image=None)] * 2, "b.json"))
    report = check([NamedSource("a", first, 30), NamedSource("b", second, 10)], Inspector(PROCESSOR, Limits()))
    shares = [source["share_of_supervised_tokens"] for source in report.as_json()["sources"]]
    assert shares == pytest.approx([30 * 2 / 160, 10 * 10 / 160])  # each answer and its end token


@pytest.mark.parametrize("name", ["data.json", "data.jsonl"])
def test_a_clean_copy_is_clean_and_the_original_unchanged(folder: Path, name: str) -> None:
    leading = _record("<image>\nNew?", "fine")
    leading["conversations"].insert(0, {"from": "gpt", "value": "Hello"})
    unanswered = _record("<image>\nOpen?", "yes")
    unanswered["conversations"].append({"from": "human", "value": "and?"})
    hopeless = {"id": None, "conversations": [{"from": "gpt", "value": "x"}]}
    cases = [faulty for faulty, _ in _cases(folder)]
    path = _write(folder, [_record("<image>\nWhat?", "that"), *cases, leading, unanswered, hopeless], name)
    before = path.read_bytes()
    limits = Limits(300, 100_000)
    report = _check(path, max_length=300, large_pixels=100_000)
    dataset = ConversationDataset(path, on_bad_sample="list")
    cleaned = write_clean_copy(dataset, report.faults, folder / f"clean-{name}", Inspector(PROCESSOR, limits))
    assert path.read_bytes() == before
    assert (cleaned.kept, cleaned.repaired, cleaned.dropped) == (7, 2, 12)
    again = _check(cleaned.path, max_length=300, large_pixels=100_000)
    assert (again.errors, again.sources[0].records) == (0, 7)
    assert sorted(again.counts) == ["duplicate_id", "empty_answer", "large_image", "wrong_name"]
    roles = [[message["role"] for message in ConversationDataset(cleaned.path)[index].messages] for index in (5, 6)]
    assert roles == [["user", "assistant"]] * 2
    with pytest.raises(ValueError, match="exists; give a new path"):
        write_clean_copy(dataset, report.faults, cleaned.path, Inspector(PROCESSOR, limits))


def test_half_a_character_in_a_note_does_not_keep_a_record_from_being_repaired(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    turns = [{"from": "gpt", "value": "x"}, {"from": "human", "value": "?"}, {"from": "gpt", "value": "y"}]
    path.write_text(json.dumps({"note": "\ud83d", "conversations": turns}))
    dataset = ConversationDataset(path, on_bad_sample="list")
    cleaned = write_clean_copy(dataset, dataset.faults, tmp_path / "clean.jsonl", Inspector(PROCESSOR, Limits()))
    assert cleaned.repaired == 1
    assert json.loads(cleaned.path.read_text())["note"] == "\ud83d"


def test_shards_are_checked_and_cleaned_shard_by_shard(tmp_path: Path) -> None:
    write_tar(tmp_path / "t-0.tar", {**tar_files([1, 2]), "0003.json": record(3), **tar_files([4])})
    write_tar(tmp_path / "t-1.tar", {**tar_files([5, 4]), "0009.jpg": encoded_image(9)[:50], "0009.json": record(9)})
    report = _check(tmp_path / "t-*.tar", jobs=2)
    kinds = [(Path(fault.file).name, fault.record, fault.kind) for fault in report.faults]
    assert kinds == [
        ("t-0.tar", 2, "placeholder_mismatch"),
        ("t-1.tar", 1, "duplicate"),
        ("t-1.tar", 2, "corrupt_image"),
    ]
    source = open_file(tmp_path / "t-*.tar", streaming=True)
    cleaned = write_clean_copy(source, report.faults, tmp_path / "clean", Inspector(PROCESSOR, Limits()))
    assert (cleaned.kept, cleaned.dropped) == (4, 3)
    again = _check(cleaned.path)
    assert (again.faults, again.sources[0].records) == ([], 4)

    image = {"bytes": b"broken", "path": "x.png"}
    write_parquet(tmp_path / "p.parquet", list(range(20)), image=[image, *_images(range(1, 20))])
    report = _check(tmp_path / "p.parquet")
    assert _found(report) == [(0, "corrupt_image")]
    source = open_file(tmp_path / "p.parquet", streaming=True)
    cleaned = write_clean_copy(source, report.faults, tmp_path / "clean-p", Inspector(PROCESSOR, Limits()))
    assert (cleaned.kept, _check(cleaned.path).faults) == (19, [])


def _images(numbers: range) -> list[dict[str, Any]]:
    return [{"bytes": encoded_image(number), "path": f"{number}.png"} for number in numbers]


def test_messages_with_roles_out_of_order_are_repaired_too(folder: Path) -> None:
    turns = [
        {"role": "system", "content": "Be brief."},
        {"role": "assistant", "content": "Hello"},
        {"role": "user", "content": "Hi?"},
        {"role": "assistant", "content": "Yes."},
        {"role": "user", "content": "And?"},
    ]
    mixed = [{"role": "assistant", "value": "Hello"}, {"role": "user", "value": "Hi?"}, {"from": "gpt", "value": "Yes"}]
    path = _write(folder, [{"id": "1", "messages": turns}, {"id": "2", "conversations": mixed}], "data.jsonl")
    dataset = ConversationDataset(path, on_bad_sample="list")
    report = _check(path)
    cleaned = write_clean_copy(dataset, report.faults, folder / "clean.jsonl", Inspector(PROCESSOR, Limits()))
    assert (cleaned.kept, cleaned.repaired, cleaned.dropped) == (2, 2, 0)
    first, second = map(json.loads, (folder / "clean.jsonl").read_text().splitlines())
    assert first["messages"] == [turns[0], *turns[2:4]]
    assert second["conversations"] == mixed[1:]


def test_images_are_judged_by_the_code_that_training_runs(folder: Path) -> None:
    """Of floats, of no bytes, thin: kind and message are those of training."""
    import numpy as np

    Image.fromarray(np.full((64, 64), 200.0, dtype=np.float32)).save(folder / "levels.tif")
    Image.fromarray(np.full((64, 64), np.nan, dtype=np.float32)).save(folder / "nan.tif")
    Image.new("RGB", (60_000, 1)).save(folder / "thin.png")
    (folder / "empty.png").write_bytes(b"")
    names = ["levels.tif", "nan.tif", "thin.png", "empty.png", "a.png"]
    path = _write(folder, [_record(image=name) for name in names])
    processor = build_nano_processor()
    processor.image_processor.image_aspect_ratio, processor.image_processor.resolution = "native", 768
    source = open_file(path, on_bad_sample="list")
    report = check([NamedSource("x", source)], Inspector(processor, Limits(2048)))
    faults = []
    for sample in (source[index] for index in range(len(names))):
        try:
            encode_sample(sample, processor, 2048)
        except BadSampleError as error:
            faults.append(error.fault)
    assert [fault for fault in report.faults if fault.is_error] == faults
    assert [fault.record for fault in faults] == [0, 1, 2, 3] and faults[2].kind == "bad_shape"


def test_a_huge_file_is_not_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "read_bytes", lambda self: pytest.fail(f"{self} is read as a whole"))
    data = _write(folder, [_record()])
    for size, errors in ((1 << 30, 0), (1 << 33, 1)):
        with (folder / "a.png").open("r+b") as file:
            file.truncate(size)  # sparse: it takes no room on the disk
        report = _check(data)
        assert report.errors == errors
    assert [fault.kind for fault in report.faults] == ["huge_image"]


def test_images_that_are_used_in_part_are_told(folder: Path) -> None:
    frames = [Image.new("RGB", (64, 64), color) for color in ("red", "blue", "lime")]
    frames[0].save(folder / "pages.tif", save_all=True, append_images=frames[1:])
    frames[0].resize((900, 2)).save(folder / "line.png")
    report = _check(_write(folder, [_record(image="pages.tif"), _record(image="line.png")]))
    told = {fault.kind: str(fault) for fault in report.faults if fault.kind in ("further_frames", "thin_image")}
    assert "pages.tif has 3 frames; only the first is used" in told["further_frames"]
    assert "line.png has 900x2 pixels" in told["thin_image"]


def test_a_file_without_records_is_an_error(folder: Path) -> None:
    report = _check(_write(folder, []))
    assert report.errors == 1 and "holds no records" in str(report.faults[0])
