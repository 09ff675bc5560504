"""LoRA and QLoRA: trained and saved parameters; the adapter and the merged model answer alike."""

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from training_runs import logged, write_recipe

from convllava.cli.main import main
from convllava.inference import load_pretrained
from convllava.train import load_recipe, train
from convllava.train.lora import add_adapters
from convllava.train.model_setup import resolve_model

BOTH = "{language_model: {rank: 8, alpha: 16}, vision_tower: {rank: 4, alpha: 8, from_stage: 4}, dropout: 0.1}"
SHORT = ["max_steps=6", "save_every=2", "learning_rate=1e-2"]


@pytest.fixture(scope="module")
def recipe(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recipe")
    return write_recipe(folder, tiny_checkpoint, training_stage="instruct", train_from_stage=None)


@pytest.fixture(scope="module")
def run(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("lora") / "run"
    return train(load_recipe(recipe, [*SHORT, f"lora={BOTH}", f"output_dir={out}"]))


def _logits(model: torch.nn.Module) -> torch.Tensor:
    ids = torch.tensor([[1, 90, 91, 427, 427, 92, 93]])
    pixels = torch.randn(1, 3, 64, 128, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return model(input_ids=ids, pixel_values=pixels).logits


def test_adapters_and_projector_train_and_nothing_else(recipe: Path) -> None:
    chosen = load_recipe(recipe, [*SHORT, f"lora={BOTH}"])
    model = resolve_model(chosen).load()
    adapted = add_adapters(model, chosen)
    trained = {name: weight for name, weight in adapted.named_parameters() if weight.requires_grad}
    adapters = {name for name in trained if ".lora_" in name}
    assert all("multi_modal_projector.modules_to_save" in name for name in trained.keys() - adapters)
    in_tower = {name for name in adapters if "vision_tower" in name}
    assert in_tower and all(".stages.3." in name or ".stages.4." in name for name in in_tower)
    assert {trained[name].shape[0] for name in in_tower if "lora_A" in name} == {4}
    assert {trained[name].shape[0] for name in adapters - in_tower if "lora_A" in name} == {8}
    assert len(adapters - in_tower) == 2 * 7 * 2  # two matrices beside each of seven in two layers


def test_it_learns_and_the_merged_model_loads_like_any_other(run: Path, tiny_checkpoint: Path) -> None:
    losses = list(logged(run).values())
    assert losses[-1] < losses[0]
    base, _ = load_pretrained(tiny_checkpoint, device="cpu")
    before = _logits(base)
    merged, _ = load_pretrained(run, device="cpu")
    adapted, _ = load_pretrained(tiny_checkpoint, device="cpu", adapter=run / "adapter")
    assert (_logits(merged) - before).abs().max() > 1e-2
    torch.testing.assert_close(_logits(merged), _logits(adapted), rtol=1e-4, atol=1e-4)


def test_ask_loads_the_trained_model(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from PIL import Image

    image = tmp_path / "image.png"
    Image.new("RGB", (64, 64), "red").save(image)
    assert main(["ask", str(image), "What?", "--model", str(run), "--max-new-tokens", "3", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)


def test_a_resumed_run_equals_an_undisturbed_one(recipe: Path, run: Path, tmp_path: Path) -> None:
    """The random numbers of dropout are the same too."""
    out = tmp_path / "run"
    values = [*SHORT, f"lora={BOTH}", f"output_dir={out}"]
    train(load_recipe(recipe, [*values, "stop_after_steps=3"]))  # one step behind its last checkpoint
    for leftover in (out / "model.safetensors", out / "checkpoint-3"):
        assert not leftover.is_dir() or not os.listdir(leftover)
    resumed = train(load_recipe(recipe, values), resume=True)
    assert logged(resumed) == pytest.approx(logged(run), abs=1e-6)
    one, other = (load_file(folder / "adapter" / "adapter_model.safetensors") for folder in (resumed, run))
    assert all(torch.allclose(one[name], other[name], atol=1e-6) for name in other)


def test_a_run_at_its_early_end_keeps_its_adapters(recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    stopped = load_recipe(recipe, [*SHORT, f"lora={BOTH}", f"output_dir={out}", "stop_after_steps=2", "save_every=2"])
    adapter = train(stopped) / "adapter" / "adapter_model.safetensors"
    before = load_file(adapter)
    adapter.unlink()
    after = load_file(train(stopped, resume=True) / "adapter" / "adapter_model.safetensors")
    assert before.keys() == after.keys() and all(torch.equal(after[name], before[name]) for name in before)


def test_a_quantized_base_trains_resumes_and_is_merged_unquantized(
    recipe: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    pytest.importorskip("bitsandbytes")
    lora = "{language_model: {rank: 8, alpha: 16}, quantize: nf4}"
    values = [*SHORT, f"lora={lora}"]
    whole = train(load_recipe(recipe, [*values, f"output_dir={tmp_path / 'whole'}"]))
    losses = list(logged(whole).values())
    assert losses[-1] < losses[0]
    merged, _ = load_pretrained(whole, device="cpu")
    assert not hasattr(merged.config, "quantization_config")
    adapted, _ = load_pretrained(tiny_checkpoint, device="cpu", adapter=whole / "adapter")
    torch.testing.assert_close(_logits(merged), _logits(adapted), rtol=1e-4, atol=1e-4)
    out = tmp_path / "parts"
    train(load_recipe(recipe, [*values, f"output_dir={out}", "stop_after_steps=2"]))
    resumed = train(load_recipe(recipe, [*values, f"output_dir={out}"]), resume=True)
    assert logged(resumed) == pytest.approx(logged(whole), abs=1e-6)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["training_stage=projector_init"], "lora belongs to training_stage instruct"),
        (["train_language_layers=1"], "give one of lora and train_language_layers"),
        (["engine=fsdp2"], "lora needs engine ddp"),
        (["lora={dropout: 0.1}"], "give lora at least one of language_model and vision_tower"),
        (["lora={language_model: {rnk: 8}}"], "unknown key 'lora.language_model.rnk'"),
    ],
)
def test_contradicting_options_are_rejected(recipe: Path, overrides: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_recipe(recipe, ["lora={language_model: {}}", *overrides])


def test_missing_stages_are_rejected(recipe: Path, tmp_path: Path) -> None:
    lora = "{vision_tower: {from_stage: 6}}"
    with pytest.raises(ValueError, match="from_stage is 6 but the encoder has 5 stages"):
        train(load_recipe(recipe, [f"lora={lora}", f"output_dir={tmp_path / 'run'}"]))
