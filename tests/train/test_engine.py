"""Configurations of the engines: DeepSpeed documents every key, and recipe and file agree.

DeepSpeed itself is not installed in the test environment and has not run them.
"""

import json
from pathlib import Path
from typing import Annotated, Literal

import pytest
import yaml
from pydantic import BaseModel, ConfigDict, Field

from convllava.train import Recipe, load_recipe
from convllava.train.engine import deepspeed_config

Auto = Literal["auto"]
Count = Annotated[int, Field(gt=0)]


class _Documented(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _Bf16(_Documented):
    enabled: bool | Auto


class _Zero(_Documented):
    """https://www.deepspeed.ai/docs/config-json/#zero-optimizations-for-fp16-training"""

    stage: Literal[0, 1, 2, 3]
    allgather_partitions: bool = True
    allgather_bucket_size: Count | Auto = "auto"
    overlap_comm: bool = False
    reduce_scatter: bool = True
    reduce_bucket_size: Count | Auto = "auto"
    contiguous_gradients: bool = True
    sub_group_size: Count = 1
    stage3_prefetch_bucket_size: Count | Auto = "auto"
    stage3_param_persistence_threshold: Count | Auto = "auto"
    stage3_max_live_parameters: Count = 1
    stage3_max_reuse_distance: Count = 1
    stage3_gather_16bit_weights_on_model_save: bool = False


class _DeepSpeed(_Documented):
    bf16: _Bf16
    zero_optimization: _Zero
    gradient_accumulation_steps: Count | Auto
    gradient_clipping: float | Auto
    train_batch_size: Count | Auto
    train_micro_batch_size_per_gpu: Count | Auto
    zero_allow_untested_optimizer: bool


@pytest.mark.parametrize(("name", "stage"), [("zero2", 2), ("zero3", 3)])
def test_deepspeed_configurations(repository: Path, name: str, stage: int) -> None:
    text = (repository / "recipes" / "engine" / f"{name}.json").read_text()
    config = _DeepSpeed.model_validate_json(text)
    assert config.zero_optimization.stage == stage
    assert config.zero_optimization.stage3_gather_16bit_weights_on_model_save == (stage == 3)
    set_by_the_recipe = ("gradient_accumulation_steps", "gradient_clipping", "train_batch_size")
    assert all(json.loads(text)[key] == "auto" for key in set_by_the_recipe)
    assert all(key.startswith("stage3_") <= (stage == 3) for key in json.loads(text)["zero_optimization"])


def test_engine_and_configuration_belong_together(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    values = {"training_stage": "instruct", "init_from": "nano", "data": [{"path": "data.json"}], "learning_rate": 1}
    recipe.write_text(json.dumps(values | {"epochs": 1, "output_dir": "run"}))
    chosen = load_recipe(recipe, ["engine=deepspeed", "deepspeed_config=recipes/engine/zero3.json"])
    assert chosen.deepspeed_config == Path("recipes/engine/zero3.json")
    for lone in ("engine=deepspeed", "deepspeed_config=recipes/engine/zero3.json"):
        with pytest.raises(ValueError, match="engine deepspeed and deepspeed_config belong together"):
            load_recipe(recipe, [lone])
    with pytest.raises(ValueError, match="sample_answers needs the whole model in each process"):
        load_recipe(recipe, ["engine=fsdp2", "sample_answers={every: 5}"])


@pytest.mark.parametrize("name", ["zero2", "zero3"])
def test_the_recipe_fills_what_deepspeed_leaves_open(
    repository: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batch sizes, clipping and precision; bucket sizes follow when the model is known."""
    monkeypatch.setenv("WORLD_SIZE", "4")
    values = {"training_stage": "instruct", "init_from": "nano", "data": [{"path": "data.json"}], "learning_rate": 1}
    values |= {"epochs": 1, "output_dir": "run", "engine": "deepspeed", "deepspeed_config": "x.json"}
    values |= {"global_batch_size": 32, "per_device_batch_size": 2, "max_grad_norm": 0.5, "precision": "bfloat16"}
    recipe = Recipe.model_validate(values)
    config = json.loads((repository / "recipes" / "engine" / f"{name}.json").read_text())
    filled = deepspeed_config(config, recipe)
    batch = ("train_micro_batch_size_per_gpu", "gradient_accumulation_steps", "train_batch_size")
    assert [filled[key] for key in batch] == [2, 4, 32]
    assert (filled["gradient_clipping"], filled["bf16"]["enabled"]) == (0.5, True)
    assert "auto" not in [value for key, value in filled.items() if key != "zero_optimization"]
    with pytest.raises(ValueError, match=r"x\.json sets optimizer, which the recipe decides"):
        deepspeed_config({**config, "optimizer": {"type": "Adam"}}, recipe)
    assert config["train_batch_size"] == "auto", "the file's values are kept"


def test_accelerate_leaves_the_choice_to_the_recipe(repository: Path) -> None:
    config = yaml.safe_load((repository / "recipes" / "engine" / "accelerate.yaml").read_text())
    assert config["distributed_type"] == "MULTI_GPU" and config["mixed_precision"] == "no"


@pytest.mark.parametrize(("name", "quantize"), [("24gb", None), ("16gb", "nf4")])
def test_adapter_recipes(repository: Path, name: str, quantize: str | None) -> None:
    recipe = load_recipe(repository / "recipes" / "lora" / f"{name}.yaml")
    assert recipe.lora is not None and recipe.lora.language_model is not None
    assert (recipe.lora.quantize, recipe.lora.language_model.rank, recipe.precision) == (quantize, 64, "bfloat16")


def test_the_memory_in_the_recipes_adds_up(repository: Path) -> None:
    """The figures in the comments follow from the published sizes."""
    import torch

    from convllava.model import ConvLlavaForConditionalGeneration, preset
    from convllava.train.lora import add_adapters

    recipe = load_recipe(repository / "recipes" / "lora" / "24gb.yaml")
    with torch.device("meta"):
        model = ConvLlavaForConditionalGeneration(preset("convllava-7b-1536"))

    def billions(*names: str) -> float:
        return sum(weight.numel() for name, weight in model.named_parameters() if name.startswith(names)) / 1e9

    layers, tower = billions("model.language_model.layers."), billions("model.vision_tower.")
    ends, projector = billions("model.language_model.embed", "lm_head"), billions("model.multi_modal")
    assert (round(layers, 3), round(ends, 3), round(tower, 3), round(projector, 3)) == (6.476, 0.262, 0.669, 0.029)
    adapted = add_adapters(model, recipe)
    adapters = sum(weight.numel() for name, weight in adapted.named_parameters() if ".lora_" in name) / 1e9
    assert round(adapters, 3) == 0.160 == round(32 * 78_080 * 64 / 1e9, 3)
    kept = 33 * 2048 * 4096 * 2 + 2048 * (4 * 11008 + 8 * 4096) * 2 + 2048 * 32001 * 12 + 384 * 384 * 768 * 2 * 3
    trained = 16 * (adapters + projector)
    in_bfloat16 = 2 * (layers + ends + tower) + trained + kept / 1e9 + 1
    in_four_bits = layers * 4.127 / 8 + 2 * (ends + tower) + trained + kept / 1e9 + 4096 * 11008 * 2 / 1e9 + 1
    for name, total in (("24gb", in_bfloat16), ("16gb", in_four_bits)):
        assert f"sum:  {total:.1f} GB" in (repository / "recipes" / "lora" / f"{name}.yaml").read_text()
