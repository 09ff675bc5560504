"""The complete protocol with the shipped recipes, shortened: the loss falls, only trained parameters change."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from convllava.train import Recipe, load_recipe, train
from convllava.train.model_setup import resolve_model

STEPS = 12
SMALL = [
    f"max_steps={STEPS}",
    "global_batch_size=4",
    "per_device_batch_size=4",
    "log_every=1",
    "save_every=100",
    "warmup_ratio=0",
]


def _shortened(repository: Path, out: Path, name: str, init_from: Path | None) -> Recipe:
    overrides = [*SMALL, f"output_dir={out / name}"]
    if name in ("4_pretrain", "12_instruct"):  # of all their kinds of images twelve steps see too few
        overrides.append("data=[{name: synthetic/line, options: {sizes: [[64, 64]]}}]")
    if init_from is not None:
        overrides.append(f"init_from={init_from}")
    return load_recipe(repository / "recipes" / "nano" / f"{name}.yaml", overrides)


@pytest.fixture(scope="module")
def runs(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Run encoder, foundation and the paper's three training stages one after another."""
    out = tmp_path_factory.mktemp("protocol")
    directories: dict[str, Path] = {}
    previous = None
    for name in ("0_encoder", "1_foundation", "3_projector_init", "4_pretrain", "12_instruct"):
        previous = directories[name] = train(_shortened(repository, out, name, previous))
    return directories


def _moved(before: Path, after: Path) -> tuple[set[str], set[str]]:
    """Return the names of tensors that changed, and of those that exist in both and stayed bit-identical."""
    old, new = (load_file(folder / "model.safetensors") for folder in (before, after))
    common = [name for name in new if name in old and old[name].shape == new[name].shape]
    moved = {name for name in common if not torch.equal(old[name], new[name])}
    return moved, set(common) - moved


def _losses(run: Path) -> list[float]:
    entries = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [entry["loss"] for entry in entries if "loss" in entry]


def test_the_loss_falls_in_foundation_and_pretrain(runs: dict[str, Path]) -> None:
    for name in ("0_encoder", "1_foundation", "4_pretrain"):
        losses = _losses(runs[name])
        assert len(losses) == STEPS
        assert sum(losses[-4:]) < 0.9 * sum(losses[:4]), name


def test_encoder_moves_the_encoder_alone_and_leaves_no_head(runs: dict[str, Path]) -> None:
    start = resolve_model(load_recipe(runs["0_encoder"] / "recipe.yaml")).load()
    trained = load_file(runs["0_encoder"] / "model.safetensors")
    still = {name for name, tensor in start.state_dict().items() if torch.equal(trained.get(name, tensor), tensor)}
    assert all(name.startswith("model.vision_tower.") for name in set(trained) - still)
    assert not any(name.startswith("model.vision_tower.") for name in still)


def test_projector_init_moves_only_what_is_new(runs: dict[str, Path]) -> None:
    moved, still = _moved(runs["1_foundation"], runs["3_projector_init"])
    assert all(name.startswith("model.multi_modal_projector.") for name in moved), moved
    assert any(name.startswith("model.language_model.") for name in still)
    new = load_file(runs["3_projector_init"] / "model.safetensors")
    scale = new["model.vision_tower.encoder.stages.4.layers.0.layer_scale_parameter"]
    assert not bool((scale == 0.1).all()), "the fifth stage was not trained"


def test_pretrain_moves_everything_from_stage_3_on(runs: dict[str, Path]) -> None:
    moved, still = _moved(runs["3_projector_init"], runs["4_pretrain"])
    tower = "model.vision_tower."
    frozen = tuple(tower + part for part in ("embeddings.", "encoder.stages.0.", "encoder.stages.1."))
    assert {name for name in still if not name.startswith(frozen)} == set()
    assert not any(name.startswith(frozen) for name in moved)
    assert tower + "encoder.stages.2.downsampling_layer.1.weight" in moved


def test_instruct_leaves_the_encoder_bit_identical(runs: dict[str, Path]) -> None:
    moved, still = _moved(runs["4_pretrain"], runs["12_instruct"])
    assert all(name.startswith("model.vision_tower.") for name in still)
    assert not any(name.startswith("model.vision_tower.") for name in moved)


def test_everything_needed_to_repeat_a_run_is_saved(runs: dict[str, Path]) -> None:
    recipe = load_recipe(runs["4_pretrain"] / "recipe.yaml")
    assert (recipe.training_stage, recipe.train_from_stage, recipe.max_steps) == ("pretrain", 3, STEPS)
    config = json.loads((runs["12_instruct"] / "config.json").read_text())
    assert config["vision_config"]["depths"] == [2, 2, 6, 2, 2]
    assert config["prompt_format"] == "tokenizer"
    assert json.loads((runs["1_foundation"] / "config.json").read_text())["prompt_format"] == "plain"


def _trained(repository: Path, out: Path, *overrides: str) -> list[float]:
    recipe = load_recipe(
        repository / "recipes" / "nano" / "0_encoder.yaml",
        ["max_steps=4", "global_batch_size=8", "save_every=100", "log_every=1", f"output_dir={out}", *overrides],
    )
    return _losses(train(recipe))


def test_accumulation_changes_nothing_but_memory(repository: Path, tmp_path: Path) -> None:
    whole = _trained(repository, tmp_path / "whole")
    parts = _trained(repository, tmp_path / "parts", "per_device_batch_size=2")
    assert parts == pytest.approx(whole, abs=1e-3)
