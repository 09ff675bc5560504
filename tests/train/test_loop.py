"""The training loop: non-finite losses stop it, finished runs are not overwritten, the global batch is kept."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from training_runs import write_recipe

from convllava.inference import load_pretrained
from convllava.train import Callback, NonFiniteLossError, Progress, Recipe, load_recipe, plan, train
from convllava.train.callbacks import LOG_FILE, read_log
from convllava.train.data_loading import split_batch
from convllava.train.model_setup import resolve_model


def _overrides(out: Path, steps: int) -> list[str]:
    return [f"max_steps={steps}", "global_batch_size=4", "log_every=1", "save_every=2", f"output_dir={out}"]


def _recipe_path(repository: Path) -> Path:
    return repository / "recipes" / "nano" / "0_encoder.yaml"


def _losses(run: Path) -> dict[int, float]:
    entries = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return {entry["step"]: entry["loss"] for entry in entries if "loss" in entry}


def test_a_finished_run_is_not_overwritten(repository: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="not empty; resume it with --resume"):
        train(load_recipe(_recipe_path(repository), _overrides(tmp_path / "run", 2)))


def test_a_non_finite_loss_stops_before_the_step(repository: Path, tmp_path: Path) -> None:
    overrides = [*_overrides(tmp_path / "run", 6), "learning_rate=1e30", "warmup_ratio=0", "max_grad_norm=1e30"]
    with pytest.raises(NonFiniteLossError, match=r"loss is (nan|inf) at step \d+, samples synthetic/line/train"):
        train(load_recipe(_recipe_path(repository), overrides))


def test_stop_after_steps_keeps_the_schedule(repository: Path, tmp_path: Path) -> None:
    path = _recipe_path(repository)
    whole = train(load_recipe(path, _overrides(tmp_path / "whole", 4)))
    early = train(load_recipe(path, [*_overrides(tmp_path / "early", 4), "stop_after_steps=2"]))
    first_two = {step: loss for step, loss in _losses(whole).items() if step <= 2}
    assert _losses(early) == pytest.approx(first_two, abs=1e-6)


def test_a_run_at_its_early_end_trains_no_further(repository: Path, tmp_path: Path) -> None:
    recipe = load_recipe(_recipe_path(repository), [*_overrides(tmp_path / "run", 4), "stop_after_steps=2"])
    weights = train(recipe) / "model.safetensors"
    before = weights.read_bytes()
    weights.unlink()
    train(recipe, resume=True)
    assert weights.read_bytes() == before and list(_losses(recipe.output_dir)) == [1, 2]


def test_stop_after_minutes_leaves_a_checkpoint_to_resume_from(repository: Path, tmp_path: Path) -> None:
    path, out = _recipe_path(repository), tmp_path / "run"
    whole = train(load_recipe(path, _overrides(tmp_path / "whole", 3)))
    budget = "stop_after_minutes=0.0001"  # less than any step takes
    for done in (1, 2, 3):
        train(load_recipe(path, [*_overrides(out, 3), budget]), resume=done > 1)
        assert read_log(out / LOG_FILE)[-1]["step"] == done
    assert _losses(out) == pytest.approx(_losses(whole), abs=1e-6)


def test_a_model_records_the_sizes_of_images_that_it_was_trained_on(tiny_checkpoint: Path, tmp_path: Path) -> None:
    path = write_recipe(tmp_path, tiny_checkpoint, max_steps=12, save_every=6)  # 12 steps see each sample once
    early = train(load_recipe(path, ["stop_after_steps=6"]))
    assert json.loads((early / "checkpoint-6" / "visual_tokens.json").read_text())["trained_visual_tokens"] is not None
    out = train(load_recipe(path), resume=True, allow_change=["stop_after_steps"])
    assert load_pretrained(out)[0].config.visual_token_range == (1, 6)
    again = [f"init_from={out}", f"output_dir={tmp_path / 'again'}", "image.max_visual_tokens=2", "max_steps=1"]
    assert load_pretrained(train(load_recipe(path, again)))[0].config.visual_token_range == (1, 6)


def test_callbacks_see_every_step_and_may_save_and_stop(repository: Path, tmp_path: Path) -> None:
    class Recorder(Callback):
        def __init__(self) -> None:
            self.seen: list[tuple[str, int]] = []

        def on_begin(self, progress: Progress) -> None:
            self.seen.append(("begin", progress.step))

        def on_step_end(self, progress: Progress) -> None:
            self.seen.append(("step", progress.step))
            progress.should_save |= progress.step == 3
            progress.should_stop = progress.step == 3

        def on_log(self, progress: Progress, entry: dict[str, float]) -> None:
            assert entry["loss"] > 0
            self.seen.append(("log", progress.step))

        def on_save(self, progress: Progress, checkpoint: Path) -> None:
            assert (checkpoint / "optimizer.pt").is_file() and checkpoint.name == f"checkpoint-{progress.step}"
            self.seen.append(("save", progress.step))

        def on_end(self, progress: Progress) -> None:
            self.seen.append(("end", progress.step))

    recorder = Recorder()
    overrides = [*_overrides(tmp_path / "run", 5), "log_every=2"]
    train(load_recipe(_recipe_path(repository), overrides), callbacks=[recorder])
    expected = ["begin 0", "step 1", "log 1", "step 2", "log 2", "save 2", "step 3", "log 3", "save 3", "end 3"]
    assert [f"{hook} {step}" for hook, step in recorder.seen] == expected


def test_dry_run_counts_what_trains_and_writes_nothing(repository: Path, tmp_path: Path) -> None:
    planned = plan(load_recipe(_recipe_path(repository), _overrides(tmp_path / "run", 5)))
    assert (planned.samples, planned.steps) == (20, 5)
    assert all(count.trainable == (count.total if "tower" in count.module else 0) for count in planned.modules)
    assert 0 < planned.supervised_tokens <= planned.text_tokens
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("values", "processes", "expected"), [({}, 1, (8, 1)), ({}, 4, (2, 1)), ({"per_device_batch_size": 2}, 2, (2, 2))]
)
def test_the_global_batch_is_kept(values: dict[str, int], processes: int, expected: tuple[int, int]) -> None:
    base = {"training_stage": "foundation", "model": "nano", "data": [{"name": "synthetic/line"}]}
    recipe = Recipe.model_validate(
        {**base, "learning_rate": 1, "max_steps": 1, "output_dir": "x", "global_batch_size": 8, **values}
    )
    assert split_batch(recipe, processes) == expected
    with pytest.raises(ValueError, match="global_batch_size 8 is not a multiple of per_device_batch_size"):
        split_batch(recipe.model_copy(update={"per_device_batch_size": 3}), processes)


@pytest.mark.slow
def test_two_processes_equal_one(repository: Path, tmp_path: Path) -> None:
    path = _recipe_path(repository)
    alone = train(load_recipe(path, [*_overrides(tmp_path / "alone", 4), "global_batch_size=8"]))
    overrides = [*_overrides(tmp_path / "pair", 4), "global_batch_size=8"]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    arguments = ["-m", "convllava.cli.main", "train", str(path), *overrides]
    subprocess.run([*command, *arguments], env=environment, check=True, capture_output=True)
    assert _losses(tmp_path / "pair") == pytest.approx(_losses(alone), abs=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_only_the_first_process_loads_a_sharded_model(
    tiny_checkpoint: Path, tmp_path: Path, dtype: torch.dtype
) -> None:
    """The others have shapes, tied weights, and buffers that no checkpoint has (rotary frequencies)."""
    start = tmp_path / "start"
    for part in load_pretrained(tiny_checkpoint, dtype=dtype):
        part.save_pretrained(start)
    recipe = load_recipe(write_recipe(tmp_path, start, engine="fsdp2"))
    resolved = resolve_model(recipe)
    first, other = (resolved.load_on_rank(rank) for rank in (0, 1))
    assert {name: (value.shape, value.dtype) for name, value in first.state_dict().items()} == {
        name: (value.shape, value.dtype) for name, value in other.state_dict().items()
    }
    assert not any(value.is_meta for value in first.parameters()) and all(v.is_meta for v in other.parameters())
    assert len(list(first.parameters())) == len(list(other.parameters()))
    held = dict(other.named_buffers())
    assert held and all(torch.equal(value, held[name]) for name, value in first.named_buffers())


def test_encoder_and_projector_alone_pass_over_micro_batches_without_images(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    """Text alone has no gradient where the language model is frozen; its loss is counted, not differentiated."""
    recipe = write_recipe(tmp_path, tiny_checkpoint, train_language_layers=0, per_device_batch_size=1, max_steps=6)
    run = train(load_recipe(recipe))
    assert list(_losses(run)) == list(range(1, 7))
    before, _ = load_pretrained(tiny_checkpoint, dtype=torch.float32)
    after, _ = load_pretrained(run, dtype=torch.float32)
    moved = {
        name.split(".")[1]
        for (name, new), old in zip(after.named_parameters(), before.parameters(), strict=True)
        if not torch.equal(new, old)
    }
    assert moved == {"vision_tower", "multi_modal_projector"}
