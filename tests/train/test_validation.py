"""Validation: exact whatever the batch size, resumed exactly, without effect on the training; best model, early end."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from training_runs import STEPS, Run, logged, write_recipe

from convllava.constants import IGNORE_INDEX
from convllava.data.batching import Collator, EncodedDataset
from convllava.inference import load_pretrained
from convllava.train import Callback, load_recipe, train
from convllava.train.checkpoints import last_checkpoint
from convllava.train.data_sources import open_data
from convllava.train.validation import HeldOutLoss

HELD_OUT = {"fraction": 0.2, "eval_every": 2}


@pytest.fixture(scope="module")
def recipe(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recipe")
    data = [{"path": str(folder / "data.json"), "weight": 2}, {"name": "synthetic/line"}]
    answers = {"count": 5, "max_new_tokens": 4, "shown": 2}
    return write_recipe(folder, tiny_checkpoint, data=data, validation={**HELD_OUT, "answers": answers})


@pytest.fixture(scope="module")
def run(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An undisturbed run."""
    return train(load_recipe(recipe, [f"output_dir={tmp_path_factory.mktemp('whole') / 'run'}"]))


def _held_out_loss(model_folder: Path, recipe: Path) -> float:
    """Compute the loss over all held-out tokens, one sample at a time."""
    model, processor = load_pretrained(model_folder)
    loaded = load_recipe(recipe)
    ((held_out),) = open_data(loaded)[1]
    encoded = EncodedDataset(held_out.source, processor, loaded.max_length)
    loss, tokens = 0.0, 0
    for index in range(len(encoded)):
        batch = Collator(0)([encoded[index]])
        inputs = {name: value for name, value in batch.items() if isinstance(value, torch.Tensor)}
        with torch.no_grad():
            loss += model(**inputs, num_items_in_batch=1).loss.item()
        tokens += int((batch["labels"][:, 1:] != IGNORE_INDEX).sum())
    return loss / tokens


def test_the_loss_is_that_of_each_token_before_and_after_training(
    run: Path, recipe: Path, tiny_checkpoint: Path
) -> None:
    losses = logged(run, "validation/loss")
    assert list(losses) == [0, 2, 4, 6, STEPS]
    assert losses[0] == pytest.approx(_held_out_loss(tiny_checkpoint, recipe), rel=1e-5)
    assert losses[STEPS] == pytest.approx(_held_out_loss(run, recipe), rel=1e-5)


@pytest.mark.parametrize("processes", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_batch_size_and_processes_do_not_matter(recipe: Path, run: Path, tmp_path: Path, processes: int) -> None:
    overrides = ["per_device_batch_size=1", "packing=true", "num_workers=1", f"output_dir={tmp_path / 'run'}"]
    whole = load_recipe(recipe, overrides)
    other = train(whole) if processes == 1 else Run(recipe, *overrides, processes=processes).wait()
    assert logged(other, "validation/loss") == pytest.approx(logged(run, "validation/loss"), abs=1e-4)
    for name in ("loss/synthetic/line", f"loss/{recipe.parent / 'data.json'}"):
        assert logged(other, name) == pytest.approx(logged(run, name), abs=1e-4)


def test_validation_changes_nothing_of_the_training(recipe: Path, tmp_path: Path) -> None:
    held_out = f"validation={{data: [{{path: {recipe.parent / 'data.json'}}}], eval_every: 3}}"
    runs = [
        train(load_recipe(recipe, [f"output_dir={tmp_path / name}", "stop_after_steps=4", "save_every=100", values]))
        for name, values in (("with", held_out), ("without", "validation=null"))
    ]
    assert logged(runs[0]) == logged(runs[1])
    assert (runs[0] / "model.safetensors").read_bytes() == (runs[1] / "model.safetensors").read_bytes()


@pytest.mark.parametrize(("step", "batch"), [(0, 1), (4, 1), pytest.param(6, 0, marks=pytest.mark.slow)])
def test_a_kill_in_the_middle_of_a_validation_is_resumed_exactly(
    recipe: Path, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int, batch: int
) -> None:
    """The third validation is that of step 4, behind the checkpoint of step 3; that of step 6 has one of its own."""

    class Killed(BaseException):
        """Like SIGKILL: no handler of the package may catch it."""

    prepared = HeldOutLoss._prepared

    def dies(self: HeldOutLoss) -> Any:
        for number, pair in enumerate(prepared(self)):
            if self.loop.progress.step == step and number == batch:
                raise Killed
            yield pair

    monkeypatch.setattr(HeldOutLoss, "_prepared", dies)
    out = tmp_path / "run"
    with pytest.raises(Killed):
        train(load_recipe(recipe, [f"output_dir={out}"]))
    monkeypatch.undo()
    train(load_recipe(recipe, [f"output_dir={out}"]), resume=True)
    for key in ("loss", "grad_norm", "validation/loss", "loss/synthetic/line"):
        assert logged(out, key) == logged(run, key)
    assert (out / "model.safetensors").read_bytes() == (run / "model.safetensors").read_bytes()
    assert (out / "validation.jsonl").read_text() == (run / "validation.jsonl").read_text()


class _Losses(Callback):
    """Replaces the held-out loss by given values, in the order of the validations after the first step."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, losses: list[float]) -> None:
        values = iter([9.0, *losses])
        monkeypatch.setattr(HeldOutLoss, "measure", lambda self: {"validation/loss": next(values)})


def test_the_best_model_is_the_result(recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held_out = "validation={fraction: 0.2, eval_every: 2, keep_best: loss}"
    best = train(load_recipe(recipe, [f"output_dir={tmp_path / 'best'}", held_out, "stop_after_steps=4"]))
    _Losses(monkeypatch, [3.0, 2.0, 4.0, 5.0])
    out = train(load_recipe(recipe, [f"output_dir={tmp_path / 'run'}", held_out]))
    assert logged(out, "validation/best_step") == {2: 2, 4: 4, 6: 4, 8: 4}
    assert logged(out, "validation/without_improvement") == {2: 0, 4: 0, 6: 1, 8: 2}
    weights, expected = load_file(out / "model.safetensors"), load_file(best / "model.safetensors")
    assert all(torch.equal(weights[name], expected[name]) for name in expected)
    assert [path.name for path in out.glob("best-*")] == ["best-4"]
    last = load_file(last_checkpoint(out) / "model.safetensors")
    assert not all(torch.equal(weights[name], last[name]) for name in last)
    load_pretrained(out / "best-4")  # it is a model like any other


def test_a_run_that_no_longer_improves_ends(recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    overrides = [f"output_dir={tmp_path / 'run'}", "validation={images: 3, eval_every: 1, patience: 2}"]
    _Losses(monkeypatch, [3.0, 2.0, 2.0, 4.0, 1.0])
    out = train(load_recipe(recipe, overrides))
    assert list(logged(out)) == [1, 2, 3, 4]
    assert last_checkpoint(out) == out / "checkpoint-4"
    train(load_recipe(recipe, overrides), resume=True)  # it stays ended
    assert list(logged(out)) == [1, 2, 3, 4]


def test_answers_are_scored_and_kept(run: Path) -> None:
    rounds = [json.loads(line) for line in (run / "validation.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in rounds] == [0, 2, 4, 6, STEPS]
    (name,) = {entry["metric"] for entry in rounds}
    assert logged(run, f"validation/{name}") == {entry["step"]: entry["value"] for entry in rounds}
    for entry in rounds:
        assert len(entry["answers"]) == 5
        assert {answer["truth"] for answer in entry["answers"]} <= {("yes " * count).strip() for count in range(1, 6)}
        assert any("image" in answer for answer in entry["answers"][:2])
        assert entry["value"] == pytest.approx(sum(answer["credit"] for answer in entry["answers"]) / 5)


@pytest.mark.parametrize(
    ("validation", "message"),
    [
        ("{eval_every: 2}", "give exactly one of data, fraction and images, got none"),
        ("{fraction: 0.1, images: 3, eval_every: 2}", "got fraction, images"),
        ("{fraction: 0.1, eval_every: 2, keep_best: metric}", "keep_best: metric needs answers"),
        ("{fraction: 0.1, eval_evry: 2}", "unknown key 'validation.eval_evry'; did you mean 'eval_every'"),
        ("{fraction: 0.1, eval_every: 2, answers: {metric: bleu}}", "metric"),
    ],
)
def test_contradictions_are_errors(recipe: Path, validation: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_recipe(recipe, [f"validation={validation}"])


def test_generated_data_are_not_divided(recipe: Path, tmp_path: Path) -> None:
    overrides = ["data=[{name: synthetic/line}]", "validation={fraction: 0.1, eval_every: 2}"]
    with pytest.raises(ValueError, match=r"all data are generated: give validation\.data"):
        open_data(load_recipe(recipe, overrides))
