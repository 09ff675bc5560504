"""Export of data sets, contact sheets, and the command for both."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from convllava.cli.data import app, parse_setting, parse_size
from convllava.data.samples import Sample, assistant_message, user_message
from convllava.synthetic import SyntheticDataset, preview_sheet, write_dataset


class Listed:
    """Samples held in a list."""

    def __init__(self, *samples: Sample) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        return self.samples[index]

    def image_sizes(self, index: int) -> list[tuple[int, int]]:
        return []


def load(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return image.copy()


def records(directory: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (directory / "data.jsonl").read_text(encoding="utf-8").splitlines()]


def test_written_data_reads_back(tmp_path: Path) -> None:
    dataset = SyntheticDataset("document", count=6, seed=2)
    calls: list[tuple[int, int]] = []
    target = write_dataset(dataset, tmp_path / "a" / "b", lambda done, total: calls.append((done, total)))
    assert calls == [(number, 6) for number in range(1, 7)]
    for index, record in enumerate(records(target)):
        example = dataset.example(index)
        assert record["id"] == f"synthetic/document/train/2/{index}"
        assert record["conversations"] == [
            {"from": "human", "value": f"<image>\n{example.question}"},
            {"from": "gpt", "value": example.answer},
        ]
        assert np.array_equal(np.asarray(load(target / record["image"])), np.asarray(example.image))
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b"]


def test_several_images_or_none(tmp_path: Path) -> None:
    file = tmp_path / "photo.jpg"
    drawn = Image.new("RGB", (8, 8))
    drawn.save(file)
    pair = Sample("pair", (drawn, file), [user_message("Which?", 2), assistant_message("The first.")])
    text = Sample("text", (), [user_message("Hello"), assistant_message("Hello.")])
    two, none = records(write_dataset(Listed(pair, text), tmp_path / "out"))
    assert two["image"] == ["images/0000000-0.png", "images/0000000-1.jpg"]
    assert two["conversations"][0]["value"] == "<image>\n<image>\nWhich?"
    assert "image" not in none
    assert (tmp_path / "out" / two["image"][1]).read_bytes() == file.read_bytes()


def test_an_occupied_destination_is_rejected(tmp_path: Path) -> None:
    dataset = SyntheticDataset("line", count=1)
    (tmp_path / "empty").mkdir()
    write_dataset(dataset, tmp_path / "empty")
    for occupied in (tmp_path / "empty", tmp_path / "empty" / "data.jsonl"):
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(ValueError, match="exists already and is not an empty directory: give another name"):
            write_dataset(dataset, occupied)
        assert sorted(tmp_path.rglob("*")) == before


def test_an_interrupted_export_leaves_nothing(tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_dataset(SyntheticDataset("line", count=3), tmp_path / "out", interrupt)
    assert list(tmp_path.iterdir()) == []


def test_preview_shows_images_and_text() -> None:
    dataset = SyntheticDataset("scene", count=5)
    sheet = preview_sheet(dataset, 5, columns=2)
    pixels = np.asarray(sheet)
    first = np.asarray(dataset.example(0).image)
    height, width, _ = first.shape
    assert np.array_equal(pixels[8 : 8 + height, 8 : 8 + width], first)
    assert (pixels[8 + height : 8 + height + 16, 8:200] < 128).any(), "the question is below"
    with pytest.raises(ValueError, match="nothing to show: 5 of 0 samples"):
        preview_sheet(SyntheticDataset("scene", count=0), 5)


def test_command_writes_a_data_set(tmp_path: Path) -> None:
    out, sheet = tmp_path / "out", tmp_path / "sheet.png"
    arguments = ["synth", str(out), "--kind", "line", "--count", "7", "--seed", "4", "--split", "heldout"]
    arguments += [
        "--size",
        "32x192",
        "--size",
        "48x160",
        "--set",
        "noise=0",
        "--preview",
        str(sheet),
        "--json",
    ]
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    assert json.loads(result.stdout)["count"] == 7
    assert {load(out / record["image"]).size for record in records(out)} == {(192, 32), (160, 48)}
    assert load(sheet).width > 500


def test_command_reports_an_unknown_kind(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="did you mean 'line"):
        CliRunner().invoke(app, ["synth", str(tmp_path / "x"), "--kind", "linez"], catch_exceptions=False)
    assert list(tmp_path.iterdir()) == []


def test_sizes_and_settings_are_parsed() -> None:
    assert parse_size("32x192") == [32, 192]
    assert parse_setting("noise=0.2") == ("noise", 0.2)
    assert parse_setting('tasks=["count"]') == ("tasks", ["count"])
    assert parse_setting("layouts=[invoice,letter]") == ("layouts", ["invoice", "letter"])
    with pytest.raises(ValueError, match="--size '32': give height and width"):
        parse_size("32")
    with pytest.raises(ValueError, match="--set 'noise': give KEY=VALUE"):
        parse_setting("noise")
    with pytest.raises(ValueError, match="the value is not valid YAML"):
        parse_setting("layouts=[invoice")
