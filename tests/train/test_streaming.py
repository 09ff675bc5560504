"""Training from shards: a stream, interrupted and resumed, gives the losses of the stored data."""

import json
from pathlib import Path

import pytest
from shard_kit import write_parquet

from convllava.data import sharded
from convllava.train import Recipe, train


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for module in (sharded.records, sharded.shuffled):
        monkeypatch.setattr(module, "WINDOW", 4)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


def _recipe(folder: Path, run: str, *, streaming: bool, stop_after: int | None = None) -> Recipe:
    return Recipe.model_validate(
        {
            "training_stage": "foundation",
            "model": "nano",
            "image": {"max_visual_tokens": 1},
            "data": [{"path": str(folder / "part-*.parquet"), "streaming": streaming}],
            "learning_rate": 1e-3,
            "epochs": 1,
            "global_batch_size": 4,
            "log_every": 1,
            "save_every": 2,
            "stop_after_steps": stop_after,
            "output_dir": str(folder / run),
        }
    )


def _losses(run: Path) -> dict[int, float]:
    entries = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return {entry["step"]: entry["loss"] for entry in entries if "loss" in entry}


def test_a_resumed_stream_trains_like_stored_data(tmp_path: Path) -> None:
    for shard, numbers in enumerate([range(7), range(7, 12), range(12, 16)]):
        write_parquet(tmp_path / f"part-{shard}.parquet", list(numbers))
    stored = _losses(train(_recipe(tmp_path, "stored", streaming=False)))
    assert list(stored) == [1, 2, 3, 4]
    train(_recipe(tmp_path, "stream", streaming=True, stop_after=2))
    resumed = train(_recipe(tmp_path, "stream", streaming=True), resume=True)
    assert _losses(resumed) == pytest.approx(stored, abs=1e-6)
