"""A recipe chosen from data: valid, explained, written as it is run, and within the memory there is."""

from pathlib import Path

import pytest
from PIL import Image
from training_runs import logged, write_data

from convllava.cli.main import main
from convllava.data.batching import EncodedDataset
from convllava.model import build_nano_processor
from convllava.train import auto_recipe, load_recipe
from convllava.train.auto_recipe import choose_recipe, passes_over
from convllava.train.data_sources import open_mixture


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "tags").mkdir()
    monkeypatch.chdir(tmp_path)
    return write_data(tmp_path / "tags").relative_to(tmp_path)


def test_every_choice_has_a_reason_and_the_written_recipe_is_the_run(data: Path) -> None:
    chosen = choose_recipe(data)
    recipe = chosen.recipe()
    assert recipe.output_dir == Path("runs/tags") and recipe.training_stage == "pretrain"
    assert recipe.validation is not None and recipe.validation.fraction == 0.1
    own, *base = recipe.data
    assert own.label == str(data) and {entry.label for entry in base} >= {"synthetic/line", "synthetic/document"}
    assert sum(entry.weight for entry in base) / own.weight == pytest.approx(
        auto_recipe.OWN_SHARE / (1 - auto_recipe.OWN_SHARE), rel=0.01
    )
    assert all(choice.reason for choice in chosen.choices)
    Path("mine.yaml").write_text(chosen.text())
    assert "&id" not in chosen.text(), "a name of YAML for a list that occurs twice"
    mixture = open_mixture(recipe)
    encoded = EncodedDataset(mixture, build_nano_processor(), recipe.max_length)  # none of the samples is too long
    assert all(len(encoded[index]["input_ids"]) for index in range(0, len(mixture), 7))
    assert load_recipe("mine.yaml") == recipe
    assert chosen.recipe(["max_steps=3"]).max_steps == 3


def test_the_command_writes_or_runs_the_recipe(
    data: Path, tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", str(data), "--model", str(tiny_checkpoint), "--write", "mine.yaml"]) == 0
    printed = capsys.readouterr().out
    assert "training_stage: pretrain\n    " in printed and "mine.yaml: edit it" in printed
    assert not Path("runs").exists()
    options = ["max_steps=2", "validation.eval_every=1", "validation.answers=null"]
    assert main(["train", str(data), "--model", str(tiny_checkpoint), *options]) == 0
    assert "held-out loss: " in capsys.readouterr().out
    assert list(logged(Path("runs/tags"), "validation/loss")) == [0, 1, 2]


def test_a_single_image_is_not_divided(tmp_path: Path) -> None:
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    turns = '[{"from": "human", "value": "<image>\\nWhat?"}, {"from": "gpt", "value": "yes"}]'
    (tmp_path / "one.jsonl").write_text(f'{{"id": "1", "image": "a.png", "conversations": {turns}}}\n')
    recipe = choose_recipe(tmp_path / "one.jsonl").recipe()
    assert recipe.validation is None and recipe.output_dir == Path("runs/one")


def test_a_large_model_gets_the_adapters_that_fit(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auto_recipe, "SMALL", 0)
    plain = choose_recipe(data, device_memory=80e9).recipe()
    assert plain.lora is not None and plain.lora.quantize is None and plain.training_stage == "instruct"
    needed = _bytes_with(data, quantize=False)
    quantized = choose_recipe(data, device_memory=(needed - 1e6) / auto_recipe.MEMORY_SHARE).recipe()
    assert quantized.lora is not None and quantized.lora.quantize == "nf4"
    with pytest.raises(
        ValueError, match=r"needs about 0\.\d GB with adapters over a base in 4 bits, and 0\.0 GB are free"
    ):
        choose_recipe(data, device_memory=1e6)


def _bytes_with(data: Path, *, quantize: bool) -> float:
    from convllava.train import plan

    chosen = choose_recipe(data, device_memory=80e9).recipe(["per_device_batch_size=1"])
    return plan(chosen, 1).replicated.total


@pytest.mark.parametrize(("samples", "fewest", "most"), [(5, 6, 12), (108, 5, 8), (2000, 2, 4), (10**6, 1, 1)])
def test_few_samples_are_seen_often_and_many_once(samples: int, fewest: float, most: float) -> None:
    assert fewest <= passes_over(samples) <= most


def test_data_that_do_not_exist_are_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", str(tmp_path / "absent.jsonl")]) == 2
    assert "absent.jsonl does not exist" in capsys.readouterr().err
