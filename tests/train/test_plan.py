"""The dry run: counts against formulas written out here, FLOPs against torch's counter, missing data."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny import tiny_model
from torch.utils.flop_counter import FlopCounterMode
from training_runs import write_recipe

from convllava.cli.main import main
from convllava.data import catalog
from convllava.model import vision_convllava
from convllava.train import load_chain, load_recipe, plan, share_of_full_rate, train
from convllava.train.plan import Plan
from convllava.train.plan.flops import gradient_flow, sample_flops
from convllava.train.plan.memory import activation_bytes
from convllava.train.recipe import Recipe
from convllava.train.stages import set_trainable

A800_MEMORY = 80e9


@pytest.fixture(scope="module")
def paper(request: pytest.FixtureRequest) -> Path:
    folder: Path = request.getfixturevalue("repository") / "recipes" / "paper"
    return folder


@pytest.fixture(autouse=True)
def no_data_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(catalog.ROOT_VARIABLE, raising=False)


def _trained(planned: Plan) -> dict[str, int]:
    return {count.module: count.trainable for count in planned.modules if count.trainable}


def _convnext_layer(width: int) -> int:
    """Depthwise 7 x 7, norm, two pointwise products, layer scale; each with its bias."""
    return 49 * width + width + 2 * width + (width * 4 * width + 4 * width) + (4 * width * width + width) + width


STAGE_5 = 2 * 1536 + (4 * 1536 * 3072 + 3072) + 6 * _convnext_layer(3072)
PROJECTOR_OF_STAGE_5 = (3072 * 4096 + 4096) + (4096 * 4096 + 4096)
VICUNA = 2 * 32001 * 4096 + 32 * (4 * 4096 * 4096 + 3 * 4096 * 11008 + 2 * 4096) + 4096


def test_the_first_training_stage_without_weights_or_data(paper: Path) -> None:
    """Table 15, 768 pixels, on the paper's two machines."""
    planned = plan(load_recipe(paper / "table5/768/1_projector_init.yaml"), 16, A800_MEMORY)
    assert _trained(planned) == {"vision_tower stage 5": STAGE_5, "multi_modal_projector": PROJECTOR_OF_STAGE_5}
    assert sum(count.total for count in planned.modules if count.module == "language_model") == VICUNA
    assert [(source.name, source.is_measured) for source in planned.data] == [
        (name, False) for name in ("sharegpt4v-pt", "sharegpt4v", "allava-caption-laion", "allava-caption-vflan")
    ]
    assert (planned.samples, planned.steps) == (2_012_572, 2_012_572 // 256)
    assert planned.visual_tokens == 144
    assert (planned.devices, planned.per_device_batch_size, planned.accumulation_steps, planned.is_outlined) == (
        16,
        16,
        1,
        True,
    )
    frozen = [part for part in planned.flops if part.part in ("vision_tower stem", "vision_tower stage 4")]
    assert all(part.backward == part.recomputed == 0 for part in frozen)
    layers = next(part for part in planned.flops if part.part == "language_model layers")
    assert layers.backward == layers.forward == layers.recomputed  # frozen, but the gradient passes


def test_the_last_training_stage_next_to_the_reported_time(paper: Path) -> None:
    """Section 4.1: 18 h on 16 A800 for 768 pixels; no cluster is faster than itself, nor ten times slower."""
    path = paper / "table5/768/3_instruct.yaml"
    chain = load_chain(path)
    plans = [plan(recipe, 16) for recipe in chain]
    assert [count.trainable for count in plans[2].modules if count.module.startswith("vision_tower")] == [0] * 6
    assert _trained(plans[2]) == {"multi_modal_projector": PROJECTOR_OF_STAGE_5, "language_model": VICUNA}
    assert {name for name in _trained(plans[1]) if name.startswith("vision")} == {
        f"vision_tower stage {stage}" for stage in (3, 4, 5)
    }
    assert 0.1 < share_of_full_rate(plans, chain[-1].reported_costs[0]) < 0.8
    # 40,688 of the 665,298 records have no image
    assert plans[2].visual_tokens == pytest.approx(144 * (665_298 - 40_688) / 665_298)


@pytest.mark.parametrize("stage", ["1_projector_init", "2_pretrain", "3_instruct"])
def test_the_small_recipe_fits_one_gpu_of_24_gb(repository: Path, stage: str) -> None:
    """DINOv3's ConvNeXt-B, a fifth stage and Qwen3-0.6B, with 4 GB left for what the estimate does not count."""
    planned = plan(load_recipe(repository / "recipes" / "small" / f"{stage}.yaml"), 1, 20e9)
    assert planned.replicated.total < 20e9
    assert sum(count.total for count in planned.modules) == pytest.approx(0.8e9, rel=0.01)
    assert planned.visual_tokens == pytest.approx(256, rel=0.07)  # the last stage has records without images
    qwen3 = sum(count.total for count in planned.modules if count.module == "language_model")
    assert qwen3 == 596_049_920  # 0.6 B, as its card says


def test_memory_tells_what_fits(paper: Path) -> None:
    recipe = load_recipe(paper / "table5/1536/2_pretrain.yaml")
    one, sixteen = (plan(recipe, devices, A800_MEMORY) for devices in (1, 16))
    trained = sum(_trained(one).values())
    assert one.replicated.optimizer == one.sharded.optimizer == 8 * trained
    assert sixteen.sharded.optimizer == pytest.approx(8 * trained / 16)
    assert one.largest_batches == {"replicated": 0, "sharded": 0}  # 16 bytes for each of 7 billion
    assert sixteen.largest_batches["replicated"] == 0
    fitting = sixteen.largest_batches["sharded"]
    assert fitting > 0
    smaller = plan(load_recipe(paper / "table5/1536/2_pretrain.yaml", [f"per_device_batch_size={fitting}"]), 16)
    assert smaller.sharded.total <= A800_MEMORY
    assert smaller.per_device_batch_size * smaller.accumulation_steps * 16 == 256


def _tiny_recipe(**values: object) -> Recipe:
    base = {"init_from": "x", "data": [{"name": "synthetic/line"}], "learning_rate": 1e-3, "max_steps": 1}
    return Recipe.model_validate({**base, "output_dir": "out", **values})


@pytest.mark.parametrize(
    "stage",
    [
        {"training_stage": "foundation"},
        {"training_stage": "pretrain", "train_from_stage": 4},
        {"training_stage": "instruct"},
    ],
)
def test_flops_equal_those_that_torch_counts(stage: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> None:
    """Forward and backward of a real step; torch leaves out only the gradient of the very first trained input."""
    model, _ = tiny_model()
    model.train()
    set_trainable(model, _tiny_recipe(**stage))
    side, text = 256, 40
    visual = (side // 64) ** 2
    ids = torch.full((1, visual + text), 7)
    ids[0, 1 : visual + 1] = model.config.image_token_id
    model.set_attn_implementation("eager")  # torch has no count for the CPU's fused attention
    monkeypatch.setattr(vision_convllava, "depthwise_convolve", lambda convolution, features: convolution(features))
    backward = torch.ops.aten.convolution_backward
    counter = FlopCounterMode(display=False, custom_mapping={backward: _convolution_backward})
    with counter:
        model(ids, pixel_values=torch.randn(1, 3, side, side), labels=ids, use_cache=False).loss.backward()
    modules = {
        "vision_tower stem": model.model.vision_tower.embeddings,
        **{f"vision_tower stage {i + 1}": one for i, one in enumerate(model.model.vision_tower.encoder.stages)},
        "multi_modal_projector": model.model.multi_modal_projector,
        "language_model": model.model.language_model,
    }
    flow = gradient_flow({name: _share(module) for name, module in modules.items()})
    ours = sample_flops(model.config, flow, visual_tokens=visual, tokens=visual + text, checkpointing=False)
    assert sum(part.total for part in ours) == pytest.approx(counter.get_total_flops(), rel=0.04)


def _convolution_backward(
    gradient: torch.Size, features: torch.Size, weight: torch.Size, *rest: object, out_shape: object = None, **_: object
) -> int:
    """Return the FLOPs of the forward pass for each gradient; torch's formula does not consider groups."""
    wanted = rest[-1]
    assert isinstance(wanted, list | tuple)
    positions = gradient[0] * gradient[2] * gradient[3]
    return 2 * positions * weight.numel() * sum(map(bool, wanted[:2]))


def _share(module: torch.nn.Module) -> float:
    counts = [(parameter.numel(), parameter.requires_grad) for parameter in module.parameters()]
    return sum(size for size, trained in counts if trained) / sum(size for size, _ in counts)


def test_activations_are_close_to_what_autograd_stores() -> None:
    """Without checkpointing, in float32, on a model whose logits are a small part."""
    model, _ = tiny_model()
    model.train()
    set_trainable(model, _tiny_recipe(training_stage="foundation"))
    side, text = 512, 20
    visual = (side // 64) ** 2
    ids = torch.full((1, visual + text), 7)
    ids[0, 1 : visual + 1] = model.config.image_token_id
    kept: dict[int, int] = {}
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = model(ids, pixel_values=torch.randn(1, 3, side, side), labels=ids, use_cache=False).loss
    assert loss.requires_grad
    everything = [
        *(f"vision_tower stage {stage}" for stage in range(1, 6)),
        "vision_tower stem",
        "multi_modal_projector",
        "language_model",
    ]
    flow = gradient_flow(dict.fromkeys(everything, 1.0))
    estimate = activation_bytes(
        model.config, flow, visual_tokens=visual, tokens=visual + text, checkpointing=False, bytes_per_number=4
    )
    assert 0.6 < estimate / sum(kept.values()) < 1.6


RECIPE = """
training_stage: pretrain
train_from_stage: 3
model: convllava-7b-768
init_from: not/here/at/all
data: [{name: lcs-558k}]
learning_rate: 1e-3
epochs: 1
global_batch_size: 64
output_dir: run
"""


def test_dry_run_without_checkpoint_and_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("recipe.yaml").write_text(RECIPE)
    assert main(["train", "recipe.yaml", "--dry-run", "--devices", "8", "--device-memory", "80GB"]) == 0
    printed = capsys.readouterr().out
    for part in (
        "558,128 samples in 8,720 steps (8 per device x 1 accumulation steps, 8 devices)",
        "the last 48 samples do not fill a global batch",
        "the starting checkpoint is missing",
        "checked: global batch 64 = 8 devices x 8 samples x 1",
        "checked: pretrain: encoder in part, projector trained, language model trained",
    ):
        assert part in printed
    assert main(["train", "recipe.yaml", "--dry-run", "--json"]) == 0
    planned = json.loads(capsys.readouterr().out)
    assert (planned["steps"], planned["is_outlined"]) == (8720, True)
    assert planned["total_flops"] > 1e18


def test_a_local_checkpoint_must_have_the_recipe_s_architecture(
    tmp_path: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("recipe.yaml").write_text(RECIPE)
    options = [f"init_from={tiny_checkpoint}", "data=[{name: synthetic/line, count: 8}]", "global_batch_size=4"]
    assert main(["train", "recipe.yaml", *options, "--dry-run"]) == 2
    assert "depths of its vision encoder is [1, 1, 1, 1, 1], but the recipe's model has [3, 3, 27, 3, 6]" in (
        capsys.readouterr().err
    )
    assert main(["train", "recipe.yaml", *options, "model=null", "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert "8 samples in 2 steps" in printed
    assert "the starting checkpoint is missing" not in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--devices", "8"], "need --dry-run"),
        (["--dry-run", "--device-memory", "much"], "size 'much' is not understood"),
        (["--dry-run", "--devices", "7"], "is not a multiple"),
        (["--dry-run", "data=[{name: lcs-558}]"], "did you mean 'lcs-558k'?"),
        (["--dry-run", "model=convllava-7b-786"], "did you mean 'convllava-7b-768'?"),
        (["--dry-run", "model=null"], "unknown model 'not/here/at/all'"),
        (["--dry-run", "image.aspect_ratio=native", "image.resolution=null", "model=nano"], "own sizes"),
    ],
)
def test_mistakes_are_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("recipe.yaml").write_text(RECIPE)
    assert main(["train", "recipe.yaml", *arguments]) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert len(printed.err.strip().splitlines()) == 1


@pytest.mark.slow
def test_every_paper_recipe_is_planned_in_seconds_and_two_gibibytes(paper: Path, tmp_path: Path) -> None:
    """One process after the other, each with its own peak of memory."""
    recipes = sorted(path for path in paper.rglob("1_*.yaml") if "parts" not in path.parts)
    program = (  # not ru_maxrss: a new process inherits that of the one that started it
        "import sys; from convllava.cli.main import main; code = main(sys.argv[1:]);"
        "print(next(line for line in open('/proc/self/status') if line.startswith('VmHWM'))); sys.exit(code)"
    )
    for path in [*recipes[:: len(recipes) // 4], paper / "table5/1536/3_instruct.yaml"]:
        command = [sys.executable, "-c", program, "train", str(path), "--dry-run", "--devices", "16"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        gibibytes = int(done.stdout.rsplit("VmHWM:", 1)[1].split()[0]) / 2**20
        assert 0.1 < gibibytes < 2, f"{path}: {gibibytes:.2f} GiB"


@pytest.mark.slow
def test_every_paper_recipe_can_be_planned(paper: Path) -> None:
    for path in sorted(path for path in paper.rglob("*.yaml") if "parts" not in path.parts):
        recipe = load_recipe(path)
        planned = plan(recipe, 16, A800_MEMORY)
        assert planned.per_device_batch_size * planned.accumulation_steps * 16 == recipe.global_batch_size
        assert planned.largest_batches["sharded"] > 0, path


def _recipe_of_records(tmp_path: Path, records: int, **values: object) -> Recipe:
    turns = [{"from": "human", "value": "What?"}, {"from": "gpt", "value": "yes"}]
    shown = [{"from": "human", "value": "<image>\nWhat?"}, turns[1]]
    (tmp_path / "bad.png").write_bytes(b"no image")
    data = [{"id": f"b{number}", "image": "bad.png", "conversations": shown} for number in range(40)]
    data += [{"id": f"g{number}", "conversations": turns} for number in range(records)]
    (tmp_path / "data.json").write_text(json.dumps(data[40:] if values.get("on_bad_sample") is None else data))
    base = {"training_stage": "instruct", "init_from": "nano", "data": [{"path": str(tmp_path / "data.json")}]}
    more = {"learning_rate": 1e-3, "epochs": 1, "global_batch_size": 4, "output_dir": str(tmp_path / "run")}
    return Recipe.model_validate({**base, **more, **values})


ABSENT = ("wandb", "deepspeed")
"""Packages that are taken as not installed."""

LORA = {"language_model": {"rank": 2, "alpha": 4}, "vision_tower": {"rank": 2, "alpha": 4}}


def test_rates_of_adapters_are_planned_as_they_are_trained(tmp_path: Path) -> None:
    rates = {"vision_tower": 1e-4, "lora_B": 1e-2}
    planned = plan(_recipe_of_records(tmp_path, 8, lora=LORA, learning_rates=rates))
    assert any("0.0001 for " in line and "0.01 for " in line and "of 'lora_B'" in line for line in planned.protocol)
    with pytest.raises(ValueError, match="matches no trainable parameter: lm_head"):
        plan(_recipe_of_records(tmp_path, 8, lora=LORA, learning_rates={"lm_head": 1e-4}))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"global_batch_size": 16}, "the data has 10 samples, fewer than global_batch_size 16"),
        ({"lr_scheduler": "cosin"}, "lr_scheduler cosin cannot be used here"),
        ({"learning_rates": {"vision": 1e-4}}, "matches no trainable parameter: vision"),
        ({"trackers": ["wandb"]}, "trackers asks for wandb, which is not installed"),
        ({"engine": "deepspeed", "deepspeed_config": "zero.json"}, "deepspeed, which is not installed"),
        ({"training_stage": "encoder"}, r"data.json, record \d .*needs one image in each sample, this one has 0"),
        ({"sample_answers": {"every": 9, "prompts": [{"question": "?", "image": "no.png"}]}}, r"no\.png does not"),
    ],
)
def test_the_plan_refuses_what_the_run_refuses(
    tmp_path: Path, values: dict[str, object], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *rest: None if name in ABSENT else find(name, *rest))
    recipe = _recipe_of_records(tmp_path, 10, **values)
    for run in (plan, train):
        with pytest.raises(ValueError, match=message):
            run(recipe)


def test_the_plan_refuses_a_feature_cache_that_is_too_small(tiny_checkpoint: Path, tmp_path: Path) -> None:
    path = write_recipe(tmp_path, tiny_checkpoint, training_stage="instruct", train_from_stage=None)
    recipe = load_recipe(path, [f"feature_cache={{folder: {tmp_path / 'a' / 'cache'}, limit_gb: 1.0e-9}}"])
    for run in (plan, train):
        with pytest.raises(ValueError, match=r"feature_cache would take about .* more than its limit_gb"):
            run(recipe)
    assert not (tmp_path / "a").exists()


def test_the_plan_finds_the_usable_samples_behind_many_faulty_ones(tmp_path: Path) -> None:
    planned = plan(_recipe_of_records(tmp_path, 8, on_bad_sample="skip"))
    assert planned.text_tokens > 0
    with pytest.raises(ValueError, match=r"none of the 40 samples .* can be used: .*bad\.png"):
        plan(_recipe_of_records(tmp_path, 0, on_bad_sample="skip"))


def test_the_run_tells_the_samples_that_fill_no_global_batch(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    train(_recipe_of_records(tmp_path, 6, trackers=[]))
    assert "the last 2 samples fill no global batch and are left out" in caplog.text


def test_too_many_devices_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="global_batch_size 1 is less than one sample for each of 3 processes"):
        plan(_recipe_of_records(tmp_path, 8, global_batch_size=1), 3)
