"""The parameters that each training stage updates, at the published sizes, on the meta device."""

import pytest
import torch

from convllava.model import ConvLlavaForConditionalGeneration, preset
from convllava.train.recipe import Recipe
from convllava.train.stages import parameter_groups, schedule_of, set_trainable


def _recipe(**values: object) -> Recipe:
    base = {"init_from": "x", "data": [{"name": "synthetic/line"}], "learning_rate": 1e-3, "max_steps": 1}
    return Recipe.model_validate({**base, "output_dir": "out", **values})


@pytest.fixture(scope="module")
def five_stages() -> ConvLlavaForConditionalGeneration:
    with torch.device("meta"):
        return ConvLlavaForConditionalGeneration(preset("convllava-7b-768"))


@pytest.fixture(scope="module")
def four_stages() -> ConvLlavaForConditionalGeneration:
    with torch.device("meta"):
        return ConvLlavaForConditionalGeneration(preset("convnext-l-four-stage-7b-768"))


def _trained_modules(model: ConvLlavaForConditionalGeneration) -> set[str]:
    return {
        ".".join(name.removeprefix("model.").split(".")[: 4 if "stages" in name else 1])
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }


STAGE = "vision_tower.encoder.stages."
LANGUAGE = {"multi_modal_projector", "language_model", "lm_head"}


def test_projector_init_trains_the_fifth_stage_and_the_projector(
    five_stages: ConvLlavaForConditionalGeneration,
) -> None:
    append = {"depths": [6], "hidden_sizes": [3072]}
    set_trainable(five_stages, _recipe(training_stage="projector_init", append_stages=append))
    assert _trained_modules(five_stages) == {STAGE + "4", "multi_modal_projector"}
    set_trainable(five_stages, _recipe(training_stage="projector_init"))
    assert _trained_modules(five_stages) == {"multi_modal_projector"}


def test_pretrain_trains_from_the_given_stage_on(five_stages: ConvLlavaForConditionalGeneration) -> None:
    set_trainable(five_stages, _recipe(training_stage="pretrain", train_from_stage=3))
    assert _trained_modules(five_stages) == {STAGE + "2", STAGE + "3", STAGE + "4", *LANGUAGE}
    downsampling = five_stages.model.vision_tower.encoder.stages[2].downsampling_layer
    assert all(parameter.requires_grad for parameter in downsampling.parameters())


def test_instruct_freezes_the_encoder_whatever_was_set_before(
    five_stages: ConvLlavaForConditionalGeneration,
) -> None:
    set_trainable(five_stages, _recipe(training_stage="foundation"))
    assert all(parameter.requires_grad for parameter in five_stages.parameters())
    set_trainable(five_stages, _recipe(training_stage="instruct"))
    assert _trained_modules(five_stages) == LANGUAGE


def test_last_18_layers_are_15_of_stage_3_and_all_of_stage_4(
    four_stages: ConvLlavaForConditionalGeneration,
) -> None:
    """Paper, section 3.2 and Table 3."""
    set_trainable(four_stages, _recipe(training_stage="pretrain", train_last_layers=18))
    third, fourth = four_stages.model.vision_tower.encoder.stages[2:]
    trained = [all(p.requires_grad for p in layer.parameters()) for layer in third.layers]
    assert trained == [False] * 12 + [True] * 15
    assert not any(p.requires_grad for p in third.downsampling_layer.parameters())
    assert all(p.requires_grad for p in fourth.parameters())
    assert _trained_modules(four_stages) == {STAGE + "2", STAGE + "3", *LANGUAGE}


def test_no_layers_is_a_frozen_encoder_and_too_many_an_error(
    four_stages: ConvLlavaForConditionalGeneration,
) -> None:
    set_trainable(four_stages, _recipe(training_stage="pretrain", train_last_layers=0))
    assert _trained_modules(four_stages) == LANGUAGE
    with pytest.raises(ValueError, match="train_last_layers is 37 but the encoder has 36 layers"):
        set_trainable(four_stages, _recipe(training_stage="pretrain", train_last_layers=37))
    with pytest.raises(ValueError, match="train_from_stage is 6 but the encoder has 4 stages"):
        set_trainable(four_stages, _recipe(training_stage="pretrain", train_from_stage=6))


@pytest.fixture(scope="module")
def control() -> ConvLlavaForConditionalGeneration:
    with torch.device("meta"):
        return ConvLlavaForConditionalGeneration(preset("clip-vit-l-336-7b"))


def test_last_12_layers_of_the_vit_without_the_one_behind_its_features(
    control: ConvLlavaForConditionalGeneration,
) -> None:
    """Paper, section 3.2: "the last 12 layers"; LLaVA's features are those before the last layer."""
    set_trainable(control, _recipe(training_stage="pretrain", train_last_layers=12))
    layers = control.model.vision_tower.encoder.layers
    trained = [all(p.requires_grad for p in layer.parameters()) for layer in layers]
    assert trained == [False] * 12 + [True] * 11 + [False]
    outside = [
        name for name, p in control.model.vision_tower.named_parameters() if "layers" not in name and p.requires_grad
    ]
    assert outside == []
    set_trainable(control, _recipe(training_stage="projector_init"))
    assert _trained_modules(control) == {"multi_modal_projector"}


def test_stages_of_an_encoder_without_stages_are_an_error(control: ConvLlavaForConditionalGeneration) -> None:
    with pytest.raises(ValueError, match=r"train_from_stage needs a ConvNeXt encoder.* clip_vision_model"):
        set_trainable(control, _recipe(training_stage="pretrain", train_from_stage=3))
    with pytest.raises(ValueError, match="train_last_layers is 25 but the encoder has 24 layers"):
        set_trainable(control, _recipe(training_stage="pretrain", train_last_layers=25))


def test_groups_hold_every_trainable_parameter_once(five_stages: ConvLlavaForConditionalGeneration) -> None:
    set_trainable(five_stages, _recipe(training_stage="pretrain", train_from_stage=3))
    groups = parameter_groups(five_stages, 2e-5, {r"stages\.4": 5e-6, r"vision_tower": 1e-6}, 0.1)
    grouped = [id(parameter) for group in groups for parameter in group["params"]]
    trainable = [id(parameter) for parameter in five_stages.parameters() if parameter.requires_grad]
    assert sorted(grouped) == sorted(trainable)
    rates = {id(parameter): (group["lr"], group["weight_decay"]) for group in groups for parameter in group["params"]}
    tower = five_stages.model.vision_tower
    assert rates[id(tower.encoder.stages[4].layers[0].pwconv1.weight)] == (5e-6, 0.1)  # the first pattern decides
    assert rates[id(tower.encoder.stages[2].layers[0].layer_scale_parameter)] == (1e-6, 0.0)
    assert rates[id(five_stages.lm_head.weight)] == (2e-5, 0.1)


def test_a_pattern_that_matches_nothing_is_an_error(five_stages: ConvLlavaForConditionalGeneration) -> None:
    set_trainable(five_stages, _recipe(training_stage="instruct"))
    with pytest.raises(ValueError, match="matches no trainable parameter: vision_tower"):
        parameter_groups(five_stages, 1e-3, {"vision_tower": 1e-4}, 0.0)


def test_a_pattern_behind_a_wider_one_is_an_error_that_says_so(
    five_stages: ConvLlavaForConditionalGeneration,
) -> None:
    set_trainable(five_stages, _recipe(training_stage="pretrain", train_from_stage=3))
    with pytest.raises(ValueError, match=r"an earlier pattern, vision, matches the .*: give the narrower"):
        parameter_groups(five_stages, 1e-3, {"vision": 1e-5, r"stages\.4": 1e-3}, 0.0)


@pytest.mark.parametrize("name", ["cosin", "reduce_lr_on_plateau", "cosine_with_min_lr"])
def test_a_schedule_that_training_cannot_have_is_refused(name: str) -> None:
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    with pytest.raises(ValueError, match=f"lr_scheduler {name} cannot be used here"):
        schedule_of(_recipe(training_stage="instruct", lr_scheduler=name), optimizer, 10)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"learning_rates": {"(": 1e-3}}, "is not a regular expression"),
        ({"learning_rates": {"x": -1.0}}, "greater than or equal to 0"),
        ({"learning_rate": float("inf")}, "finite"),
        ({"weight_decay": float("nan")}, "finite|greater"),
    ],
)
def test_values_that_no_optimizer_takes_are_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _recipe(training_stage="instruct", **values)
