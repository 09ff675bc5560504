"""The result does not depend on how a step is split, packed, loaded, recomputed or observed."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny import tiny_model
from training_runs import Run, logged, write_recipe

from convllava.model import build_nano_processor
from convllava.train import Recipe, load_recipe, train
from convllava.train.data_loading import TrainingData
from convllava.train.data_sources import open_mixture
from convllava.train.stages import set_trainable

SHORT = ["stop_after_steps=4", "save_every=100"]


@pytest.fixture(scope="module")
def recipe(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_recipe(tmp_path_factory.mktemp("recipe"), tiny_checkpoint)


@pytest.fixture(scope="module")
def plain(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(load_recipe(recipe, [*SHORT, f"output_dir={tmp_path_factory.mktemp('plain') / 'run'}"]))


@pytest.mark.parametrize(
    "overrides",
    [
        ["per_device_batch_size=2"],
        ["per_device_batch_size=1", "packing=true"],
        ["packing=true", "max_length=64"],
        ["activation_checkpointing=true", "num_workers=2"],
        ["sample_answers={every: 2, count: 3, max_new_tokens: 3}"],
    ],
    ids=["accumulation", "packed alone", "packed", "recomputed", "observed"],
)
def test_the_trajectory_is_the_same(recipe: Path, plain: Path, tmp_path: Path, overrides: list[str]) -> None:
    run = train(load_recipe(recipe, [*SHORT, *overrides, f"output_dir={tmp_path / 'run'}"]))
    assert logged(run) == pytest.approx(logged(plain), abs=1e-4)
    assert logged(run, "grad_norm") == pytest.approx(logged(plain, "grad_norm"), rel=1e-3)
    weights, expected = (load_file(folder / "model.safetensors") for folder in (run, plain))
    assert max(float((weights[name] - expected[name]).abs().max()) for name in expected) < 1e-3


@pytest.mark.parametrize("packing", [False, True])
def test_any_number_of_processes_sees_the_same_samples_step_by_step(recipe: Path, packing: bool) -> None:
    loaded = load_recipe(recipe, [f"packing={str(packing).lower()}"])
    mixture = open_mixture(loaded)

    def steps(processes: int) -> list[set[str]]:
        shares = [
            TrainingData(loaded, mixture, build_nano_processor(), rank, processes).steps(2, 5)
            for rank in range(processes)
        ]
        return [
            {name for one in step for batch in one for name in batch.sample_ids} for step in zip(*shares, strict=True)
        ]

    assert steps(1) == steps(2) == steps(4)


@pytest.mark.slow
def test_adapters_of_the_encoder_train_with_a_process_that_has_no_images(recipe: Path, tmp_path: Path) -> None:
    adapters = "lora={vision_tower: {rank: 4, alpha: 8, from_stage: 4}, language_model: {rank: 4, alpha: 8}}"
    options = ["training_stage=instruct", "train_from_stage=null", adapters, "per_device_batch_size=1", *SHORT]
    alone = train(load_recipe(recipe, [*options, f"output_dir={tmp_path / 'alone'}"]))
    together = Run(recipe, *options, f"output_dir={tmp_path / 'together'}", processes=2).wait()
    assert logged(together) == pytest.approx(logged(alone), abs=1e-4)
    assert logged(together, "grad_norm") == pytest.approx(logged(alone, "grad_norm"), rel=1e-3)


@pytest.mark.slow
def test_compiled_layers_give_the_same(recipe: Path, plain: Path, tmp_path: Path) -> None:
    run = Run(recipe, *SHORT, "torch_compile=true", f"output_dir={tmp_path / 'run'}").wait()
    assert logged(run) == pytest.approx(logged(plain), abs=1e-4)


@pytest.mark.slow
def test_bfloat16_sharded_and_replicated(recipe: Path, tmp_path: Path) -> None:
    """FSDP2 casts gathered weights, autocast casts operands: the results are close, not equal."""
    whole = Run(recipe, *SHORT, "precision=bfloat16", f"output_dir={tmp_path / 'whole'}").wait()
    divided = Run(
        recipe, *SHORT, "precision=bfloat16", "engine=fsdp2", f"output_dir={tmp_path / 'divided'}", processes=2
    ).wait()
    assert logged(divided) == pytest.approx(logged(whole), rel=0.05)
    assert load_file(divided / "model.safetensors")["model.language_model.embed_tokens.weight"].dtype == torch.float32


def test_frozen_parts_build_no_graph() -> None:
    """Nothing is stored for the backward pass before the first trained stage; everything is after it."""
    model, _ = tiny_model()
    values = {"init_from": "x", "data": [{"name": "synthetic/line"}], "learning_rate": 1e-3, "max_steps": 1}
    chosen = Recipe.model_validate({**values, "output_dir": "x", "training_stage": "pretrain", "train_from_stage": 3})
    set_trainable(model, chosen)
    kept = {}
    for number, stage in enumerate(model.model.vision_tower.encoder.stages, start=1):
        stage.register_forward_hook(lambda _module, _inputs, output, number=number: kept.update({number: output}))
    model.train().get_image_features(torch.randn(1, 3, 64, 64))
    assert {number: output.requires_grad for number, output in kept.items()} == {
        1: False,
        2: False,
        3: True,
        4: True,
        5: True,
    }
    set_trainable(model, chosen.model_copy(update={"training_stage": "instruct", "train_from_stage": None}))
    model.gradient_checkpointing_enable()
    model.get_image_features(torch.randn(1, 3, 64, 64))
    assert not any(output.requires_grad for output in kept.values())


def test_only_the_last_language_layers_train() -> None:
    model, _ = tiny_model()
    values = {"init_from": "x", "data": [{"name": "synthetic/line"}], "learning_rate": 1e-3, "max_steps": 1}
    told = {**values, "output_dir": "x", "training_stage": "instruct"}
    set_trainable(model, Recipe.model_validate({**told, "train_language_layers": 1}))
    trained = {name for name, weight in model.named_parameters() if weight.requires_grad}
    language = {name for name in trained if name.startswith("model.language_model.")}
    assert all(name.startswith(("model.language_model.layers.1.", "model.language_model.norm.")) for name in language)
    assert len(language) == 10  # nine of the layer and the norm behind it
    assert {name for name in trained - language if not name.startswith("model.multi_modal_projector.")} == set()
    set_trainable(model, Recipe.model_validate({**told, "train_language_layers": 0}))
    assert all("projector" in name for name, weight in model.named_parameters() if weight.requires_grad)
    with pytest.raises(ValueError, match="train_language_layers is 3 but the language model has 2 layers"):
        set_trainable(model, Recipe.model_validate({**told, "train_language_layers": 3}))
