"""Resuming needs the same recipe, an undamaged checkpoint and a folder that no other run uses."""

import json
import multiprocessing
import os
import shutil
from pathlib import Path

import pytest
from training_runs import logged, write_recipe

from convllava.train import load_recipe, train
from convllava.train.callbacks import SkippedSamples, cut_torn_line, read_log
from convllava.train.output_folder import check_allowed, lock_of


@pytest.fixture(scope="module")
def recipe(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_recipe(tmp_path_factory.mktemp("recipe"), tiny_checkpoint, max_steps=4, save_every=1)


@pytest.fixture
def begun(recipe: Path, tmp_path: Path) -> list[str]:
    """Overrides of a run that has taken two of its four steps."""
    out = f"output_dir={tmp_path / 'run'}"
    train(load_recipe(recipe, [out, "stop_after_steps=2"]))
    return [out]


def _folder(overrides: list[str]) -> Path:
    return Path(overrides[0].removeprefix("output_dir="))


def test_another_recipe_is_refused_with_the_difference(recipe: Path, begun: list[str]) -> None:
    stored = (_folder(begun) / "recipe.yaml").read_bytes()
    for change, message in {
        "learning_rate=0.5": r"learning_rate was 0\.001, is 0\.5.*--allow-change learning_rate",
        "global_batch_size=2": "global_batch_size was 4, is 2.*cannot change in a run; .*init_from: .*checkpoint-2",
        "seed=5": "seed was 0, is 5.*--allow-change seed",
        "max_steps=9": "max_steps was 4, is 9.*--allow-change max_steps",
    }.items():
        with pytest.raises(ValueError, match=message):
            train(load_recipe(recipe, [*begun, change]), resume=True)
    assert (_folder(begun) / "recipe.yaml").read_bytes() == stored
    train(load_recipe(recipe, [*begun, "max_steps=5", "log_every=2"]), resume=True, allow_change=["max_steps"])
    assert read_log(_folder(begun) / "log.jsonl")[-1]["step"] == 5


def test_another_learning_rate_takes_effect_at_once_and_is_logged(
    recipe: Path, begun: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Half the peak is half the rate of every step, with the optimizer's state kept."""
    folder = _folder(begun)
    same, rates = tmp_path / "same", "learning_rates={vision_tower: 2e-4}"
    shutil.copytree(folder, same)
    train(load_recipe(recipe, [f"output_dir={same}"]), resume=True)
    train(load_recipe(recipe, [*begun, "learning_rate=5e-4"]), resume=True, allow_change=["learning_rate"])
    half, full = (logged(run, "learning_rate") for run in (folder, same))
    assert half == pytest.approx({1: full[1], 2: full[2], 3: full[3] / 2, 4: full[4] / 2})
    assert logged(folder)[3] == logged(same)[3] and logged(folder)[4] != logged(same)[4]
    [line] = [entry for entry in read_log(folder / "log.jsonl") if "changed" in entry]
    assert line == {"step": 2, "max_steps": 4, "changed": {"learning_rate": [0.001, 0.0005]}}
    assert "resumed with learning_rate 0.0005 instead of 0.001" in caplog.text
    with pytest.raises(ValueError, match=r"learning_rates was \{\}, is .*learning_rates cannot change"):
        train(load_recipe(recipe, [*begun, "learning_rate=5e-4", rates]), resume=True, allow_change=["learning_rates"])


def test_rates_by_pattern_may_change(recipe: Path, tmp_path: Path) -> None:
    """Also to one that another group has: groups are those of the patterns."""
    out, rates = f"output_dir={tmp_path / 'run'}", "learning_rates={{vision_tower: {}}}"
    train(load_recipe(recipe, [out, rates.format(2e-4), "stop_after_steps=2"]))
    changed = load_recipe(recipe, [out, rates.format(1e-3)])
    train(changed, resume=True, allow_change=["learning_rates"])
    assert "learning_rate/peak 0.0002" in read_log(tmp_path / "run" / "log.jsonl")[0]
    assert not any(key.startswith("learning_rate/") for key in read_log(tmp_path / "run" / "log.jsonl")[-1])


def test_only_keys_that_take_effect_may_change(recipe: Path, tmp_path: Path) -> None:
    check_allowed(["data", "log_every", "precision", "learning_rate"])
    with pytest.raises(ValueError, match="--allow-change global_batch_size: the checkpoint holds"):
        check_allowed(["global_batch_size"])
    with pytest.raises(ValueError, match="--allow-change precison: no such key of a recipe; did you mean 'precision'"):
        check_allowed(["precison"])
    with pytest.raises(ValueError, match="belongs to --resume"):
        train(load_recipe(recipe, [f"output_dir={tmp_path / 'run'}"]), allow_change=["seed"])


@pytest.mark.parametrize("file", ["model.safetensors", "optimizer.pt", "scheduler.pt", "random_state_0.pt"])
@pytest.mark.parametrize("damage", ["cut", "zeros", "gone", "a bit"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_offered(begun: list[str], file: str, damage: str) -> None:
    path = _folder(begun) / "checkpoint-2" / file
    content = path.read_bytes()
    if damage == "gone":
        path.unlink()
    elif damage == "a bit":  # in the values, which any reader would take as they are
        middle = len(content) // 2
        path.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
    else:
        path.write_bytes(content[: len(content) // 2] if damage == "cut" else bytes(len(content)))
    loaded = load_recipe(_folder(begun) / "recipe.yaml", ["stop_after_steps=3"])
    message = r"checkpoint-2 is damaged \(.*\): remove it; --resume then continues from checkpoint-1"
    with pytest.raises(ValueError, match=message):
        train(loaded, resume=True)


def test_a_checkpoint_without_checksums_is_loaded_with_a_word(
    recipe: Path, begun: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Older versions wrote none; a torn list of them is damage."""
    sums = _folder(begun) / "checkpoint-2" / "checksums.json"
    assert {"model.safetensors", "optimizer.pt", "config.json"} <= set(json.loads(sums.read_text()))
    loaded = load_recipe(recipe, begun)
    for torn in ('{"model.safetensors": {"by', "[]", '{"model.safetensors": 1}', '{"x": {"bytes": 1, "xxh3": [1]}}'):
        sums.write_text(torn)
        with pytest.raises(ValueError, match=r"checkpoint-2 is damaged .*remove it"):
            train(loaded, resume=True)
    sums.unlink()
    train(loaded, resume=True)
    assert "has no checksums.json: its files are not compared" in caplog.text


def test_a_second_run_in_the_folder_is_refused(recipe: Path, begun: list[str]) -> None:
    folder = _folder(begun)
    with lock_of(folder), pytest.raises(ValueError, match="is in use by another run"), lock_of(folder):
        pass
    with lock_of(folder), pytest.raises(ValueError, match="in use by another run: wait for its end"):
        train(load_recipe(recipe, begun), resume=True)
    with lock_of(folder):
        pass


def test_a_child_process_does_not_hold_the_lock(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    started, release = context.Event(), context.Event()
    with lock_of(tmp_path):
        child = context.Process(target=lambda: (started.set(), release.wait()))
        child.start()
        started.wait()
    try:
        with lock_of(tmp_path):
            assert child.is_alive()
    finally:
        release.set()
        child.join()


def test_a_folder_whose_run_took_no_step_is_used_again(recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    out.mkdir()
    for name in ("log.jsonl", "recipe.yaml", "skipped.jsonl"):
        (out / name).write_text("")
    (out / "tensorboard").mkdir()
    (out / "skipped.jsonl").write_text('{"step": 0, "file": "old", "record": 1, "sample_id": "x"}\n')
    train(load_recipe(recipe, [f"output_dir={out}", "stop_after_steps=1"]))
    assert not (out / "skipped.jsonl").exists()
    with pytest.raises(ValueError, match="is not empty"):
        train(load_recipe(recipe, [f"output_dir={out}"]))


def test_torn_last_lines_are_cut_and_damaged_lines_named(tmp_path: Path) -> None:
    from convllava.data.faults import Fault

    path = tmp_path / "skipped.jsonl"
    skipped = SkippedSamples(path)
    skipped.add([Fault("too_long", "a\udcff.json", 1, "x", "line\u2028end")], step=1)
    whole = path.read_bytes()
    path.write_bytes(whole + '{"step": 2, "file": "ż'.encode()[:-1])
    assert skipped.count() == 1
    cut_torn_line(path)
    assert path.read_bytes() == whole
    skipped.add([Fault("too_long", "a\udcff.json", 1, "x", "line"), Fault("too_long", "b.json", 1, "x", "y")], step=2)
    assert [line["file"] for line in read_log(path)] == ["a\udcff.json", "b.json"]
    for damage in (b"\0\0\0\n", b'{"step": 1, "fi\n', b"[1]\n", b'{"loss": 1}\n', b"\xff\n"):
        path.write_bytes(whole + damage + whole)
        with pytest.raises(ValueError, match=r"skipped\.jsonl, line 2 is damaged \(.*\): remove the line"):
            read_log(path)


def test_a_run_with_a_torn_list_of_skipped_samples_resumes(recipe: Path, begun: list[str]) -> None:
    skipped, log = _folder(begun) / "skipped.jsonl", _folder(begun) / "log.jsonl"
    skipped.write_text('{"step": 1, "file": "a", "record": 1, "sample_id": "x"}\n{"step": 2, "fi')
    with log.open("a") as file:
        file.write('{"step": 3, "lo')
    train(load_recipe(recipe, begun), resume=True)
    assert [json.loads(line)["step"] for line in skipped.read_text().splitlines()] == [1]
    assert read_log(log)[-1]["step"] == 4
    assert not os.path.exists(_folder(begun) / ".saving")
