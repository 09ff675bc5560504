"""Runs that are killed, run out of disk space or meet bad numbers lose nothing and explain the failure."""

import os
import resource
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from training_runs import STEPS, Run, killed_and_resumed, logged, write_recipe

from convllava.data.batching import EncodedDataset
from convllava.train import NonFiniteLossError, load_recipe, train
from convllava.train.checkpoints import STAGING, SavingError, last_checkpoint
from convllava.train.data_loading import WorkerDiedError


@pytest.fixture(scope="module")
def recipe(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_recipe(tmp_path_factory.mktemp("recipe"), tiny_checkpoint)


@pytest.fixture(scope="module")
def whole(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An undisturbed run."""
    return train(load_recipe(recipe, [f"output_dir={tmp_path_factory.mktemp('whole') / 'run'}"]))


def _same_run(run: Path, expected: Path) -> None:
    assert list(logged(run)) == list(range(1, STEPS + 1))
    assert logged(run) == pytest.approx(logged(expected), abs=1e-6)
    weights, wanted = (load_file(folder / "model.safetensors") for folder in (run, expected))
    assert all(torch.allclose(weights[name], wanted[name], atol=1e-6) for name in wanted)
    assert not (run / STAGING).exists()


def test_a_killed_run_continues_the_same_trajectory(recipe: Path, whole: Path, tmp_path: Path) -> None:
    for seed in (0, 1):  # one test, so that what starts the processes is itself started once
        _same_run(killed_and_resumed(recipe, tmp_path / str(seed), seed), whole)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2, 12))
def test_ten_more_kills(recipe: Path, whole: Path, tmp_path: Path, seed: int) -> None:
    _same_run(killed_and_resumed(recipe, tmp_path / "run", seed), whole)


def test_two_runs_with_one_seed_are_identical(recipe: Path, whole: Path, tmp_path: Path) -> None:
    again = train(load_recipe(recipe, [f"output_dir={tmp_path / 'run'}", "num_workers=1"]))
    assert logged(again) == logged(whole)
    assert logged(again, "grad_norm") == logged(whole, "grad_norm")
    assert (again / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    other = train(load_recipe(recipe, [f"output_dir={tmp_path / 'other'}", "seed=1", "stop_after_steps=2"]))
    assert logged(other)[1] != logged(whole)[1]


def test_a_full_disk_leaves_the_checkpoint_before_it(
    recipe: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limit on the size of a file makes a write fail midway, as a full disk does."""
    out = tmp_path / "run"
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit_writes(entry: dict[str, float]) -> None:
        if entry["step"] == 5:
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, unlimited[1]))

    try:
        with pytest.raises(SavingError, match=r"cannot save checkpoint-6 in .*checkpoint-3 is complete: .*--resume"):
            train(load_recipe(recipe, [f"output_dir={out}"]), on_log=limit_writes)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    assert [path.name for path in out.glob("checkpoint-*")] == ["checkpoint-3"]
    _same_run(train(load_recipe(recipe, [f"output_dir={out}"]), resume=True), whole)


def test_a_kill_while_saving_leaves_the_checkpoint_before_it(
    recipe: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkpoint that is not renamed yet does not count."""
    import convllava.train.loop as loop

    class Killed(BaseException):
        """Like SIGKILL: no handler of the package may catch it."""

    def die(output_dir: Path, name: str) -> None:
        if name == "checkpoint-6":
            (output_dir / STAGING / name / "trainer_state.json").write_text("{")
            raise Killed

    publish = loop.publish_checkpoint
    monkeypatch.setattr(loop, "publish_checkpoint", lambda out, name: die(out, name) or publish(out, name))
    out = tmp_path / "run"
    with pytest.raises(Killed):
        train(load_recipe(recipe, [f"output_dir={out}"]))
    monkeypatch.undo()
    assert last_checkpoint(out) == out / "checkpoint-3"
    _same_run(train(load_recipe(recipe, [f"output_dir={out}"]), resume=True), whole)


def test_the_last_two_checkpoints_are_kept(whole: Path) -> None:
    kept = {path.name for path in whole.glob("checkpoint-*")}
    assert kept == {"checkpoint-6", f"checkpoint-{STEPS}"}


def test_a_batch_with_a_nan_is_named(recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One image has a NaN: the step is not taken, and its samples are named."""
    encode = EncodedDataset.__getitem__

    def poisoned(self: EncodedDataset, index: int) -> dict[str, object]:
        row = encode(self, index)
        if row["sample_id"] == "sample-7":
            row["pixel_values"] = row["pixel_values"] * torch.nan
        return row

    monkeypatch.setattr(EncodedDataset, "__getitem__", poisoned)
    out = tmp_path / "run"
    with pytest.raises(NonFiniteLossError, match=r"is nan at step \d+, samples .*sample-7\b.*were not updated"):
        train(load_recipe(recipe, [f"output_dir={out}", "per_device_batch_size=2", "max_steps=12"]))
    assert 0 < len(logged(out)) < 12


def test_a_killed_worker_is_reported_with_its_sample(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode = EncodedDataset.__getitem__
    me = os.getpid()

    def deadly(self: EncodedDataset, index: int) -> dict[str, object]:
        row = encode(self, index)
        if row["sample_id"] == "sample-7" and os.getpid() != me:
            os.kill(os.getpid(), signal.SIGKILL)
        return row

    monkeypatch.setattr(EncodedDataset, "__getitem__", deadly)
    with pytest.raises(WorkerDiedError, match=r"a data worker died while it loaded sample sample-7:"):
        train(load_recipe(recipe, [f"output_dir={tmp_path / 'run'}", "num_workers=1", "max_steps=12"]))


def test_a_bad_sample_in_a_worker_is_one_line(recipe: Path, tmp_path: Path) -> None:
    overrides = [f"output_dir={tmp_path / 'run'}", "num_workers=1", "max_length=8"]
    with pytest.raises(ValueError, match=r"id sample-\d+\): \d+ tokens, more than max_length 8; [^\n]*$"):
        train(load_recipe(recipe, overrides))


def test_a_checkpoint_of_another_engine_is_rejected(recipe: Path, tmp_path: Path) -> None:
    overrides = [f"output_dir={tmp_path / 'run'}"]
    train(load_recipe(recipe, [*overrides, "stop_after_steps=3"]))
    for name in ("optimizer.pt", "checksums.json"):
        (tmp_path / "run" / "checkpoint-3" / name).unlink()
    with pytest.raises(ValueError, match=r"checkpoint-3 has no optimizer.pt: it was saved by another engine than ddp"):
        train(load_recipe(recipe, overrides), resume=True)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["ddp", "fsdp2"])
def test_two_processes_killed_and_resumed_equal_one(recipe: Path, whole: Path, tmp_path: Path, engine: str) -> None:
    """Images of the two differ in number and shape, and some micro-batches have none."""
    overrides = [f"engine={engine}", "per_device_batch_size=1"]
    undisturbed = Run(recipe, *overrides, f"output_dir={tmp_path / 'undisturbed'}", processes=2).wait()
    assert logged(undisturbed) == pytest.approx(logged(whole), abs=1e-4)
    saved, expected = (load_file(folder / "model.safetensors") for folder in (undisturbed, whole))
    head = saved.pop("lm_head.weight", None)  # gathered from shares, a head that is the embedding is written twice
    assert head is None or torch.equal(head, saved["model.language_model.embed_tokens.weight"])
    assert {name: tensor.shape for name, tensor in saved.items()} == {n: t.shape for n, t in expected.items()}
    _same_run(killed_and_resumed(recipe, tmp_path / "run", seed=3, processes=2, overrides=overrides), undisturbed)


@pytest.mark.slow
def test_another_number_of_processes_resumes(recipe: Path, whole: Path, tmp_path: Path) -> None:
    """Elastic restart: a run of two processes is resumed by one."""
    out = tmp_path / "run"
    overrides = [f"output_dir={out}", "per_device_batch_size=1"]
    Run(recipe, *overrides, processes=2).kill_at(5)
    resumed = Run(recipe, *overrides, resume=True, processes=1, grouped=True).wait()
    assert logged(resumed) == pytest.approx(logged(whole), abs=1e-4)
