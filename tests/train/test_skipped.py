"""``on_bad_sample``: training stops at a sample that cannot be used, or leaves out and lists exactly those."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from convllava.data.batching import Collator, EncodedDataset
from convllava.data.conversations import ConversationDataset
from convllava.data.faults import Fault
from convllava.model import build_nano_processor
from convllava.train import Recipe, train
from convllava.train.callbacks import SkippedSamples

GOOD = 6


def _record(number: int, image: str) -> dict[str, Any]:
    turns = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": f"it is {number}"}]
    return {"id": f"s{number}", "image": image, "conversations": turns}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Six good records; one without its image, one whose image cannot be decoded."""
    Image.new("RGB", (64, 64), "red").save(tmp_path / "good.png")
    (tmp_path / "broken.png").write_bytes((tmp_path / "good.png").read_bytes()[:60])
    records = [_record(number, "good.png") for number in range(GOOD)]
    records.insert(2, _record(7, "gone.png"))
    records.insert(4, _record(8, "broken.png"))
    (tmp_path / "data.json").write_text(json.dumps(records))
    return tmp_path / "data.json"


def _recipe(data: Path, **values: Any) -> Recipe:
    base = {
        "training_stage": "foundation",
        "model": "nano",
        "data": [{"path": str(data)}],
        "learning_rate": 1e-3,
        "max_steps": 4,
        "global_batch_size": 4,
        "per_device_batch_size": 2,
        "log_every": 1,
        "save_every": 2,
        "output_dir": str(data.parent / "run"),
    }
    return Recipe.model_validate({**base, **values})


def test_faulty_records_are_rejected_before_training_starts(data: Path) -> None:
    with pytest.raises(ValueError, match=r"data\.json, record 2 \(id s7\): no image .*gone\.png.*on_bad_sample: skip"):
        train(_recipe(data))
    assert not (data.parent / "run").exists()


@pytest.mark.parametrize("num_workers", [0, 1])
def test_training_stops_at_an_undecodable_image(data: Path, num_workers: int) -> None:
    records = [record for record in json.loads(data.read_text()) if record["id"] != "s7"]
    data.write_text(json.dumps(records))
    with pytest.raises(ValueError, match=r"data\.json, record 3 \(id s8\): image .*broken\.png is") as caught:
        train(_recipe(data, num_workers=num_workers))
    assert "Traceback" not in str(caught.value)


def test_each_skipped_sample_is_listed_once(data: Path) -> None:
    run = train(_recipe(data, on_bad_sample="skip"))  # sixteen draws of seven records: each is met twice
    listed = [json.loads(line) for line in (run / "skipped.jsonl").read_text().splitlines()]
    found = [(line["record"], line["kind"], line["step"] > 0) for line in listed]
    assert found == [(2, "missing_image", False), (4, "corrupt_image", True)]
    log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert [entry for entry in log if "loss" in entry][-1]["skipped_samples"] == 2
    assert (run / "model.safetensors").is_file()


def test_a_skipped_sample_does_not_change_the_others(data: Path) -> None:
    processor = build_nano_processor()
    rows = EncodedDataset(ConversationDataset(data, on_bad_sample="skip"), processor, 512, on_bad_sample="skip")
    batch = Collator(0)([rows[index] for index in (2, 3, 4)])
    clean = Collator(0)([rows[index] for index in (2, 4)])
    assert [fault.sample_id for fault in batch.pop("faults")] == ["s8"]
    assert batch.keys() == clean.keys()
    assert all(torch.equal(batch[key], clean[key]) for key in clean if key != "sample_ids")
    alone = Collator(0)([rows[3], rows[3]])
    assert alone["input_ids"].shape == (1, 1) and not bool((alone["labels"] != -100).any())


def test_the_list_is_kept_between_runs(tmp_path: Path) -> None:
    fault = Fault("corrupt_image", "a.json", 3, "x", "broken")
    SkippedSamples(tmp_path / "skipped.jsonl").add([fault, fault], step=5)
    again = SkippedSamples(tmp_path / "skipped.jsonl")
    again.add([fault, Fault("too_long", "a.json", 4, "x", "long")], step=6)
    assert again.count() == 2


def test_a_run_without_a_usable_sample_is_an_error_and_saves_no_model(data: Path) -> None:
    records = [record for record in json.loads(data.read_text()) if record["id"] == "s8"]
    data.write_text(json.dumps(records))
    with pytest.raises(ValueError, match=r"nothing was trained: no sample of 4 steps.*skipped\.jsonl.*data check"):
        train(_recipe(data, on_bad_sample="skip"))
    assert not (data.parent / "run" / "model.safetensors").exists()


def test_the_encoder_stage_passes_over_samples_that_are_left_out(data: Path) -> None:
    image = {"aspect_ratio": "pad", "resolution": 64}
    values = {"training_stage": "encoder", "per_device_batch_size": 1, "image": image, "prompt_format": "plain"}
    run = train(_recipe(data, on_bad_sample="skip", **values))
    assert "corrupt_image" in (run / "skipped.jsonl").read_text()
