"""The worked example of docs/receipts.md from import to score, on a handful of drawn receipts and a tiny model."""

from pathlib import Path

import pytest
from receipt_files import write_sroie

from convllava.cli.main import main
from convllava.train import load_recipe

RECIPES = ("1_read", "2_answer")


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_read_what_the_import_writes(name: str, repository: Path) -> None:
    recipe = load_recipe(repository / "recipes" / "receipts" / f"{name}.yaml")
    assert {Path(str(entry.path)).parent for entry in recipe.data} == {Path("runs/receipts/data")}
    assert recipe.image.max_visual_tokens == 160, "docs/receipts.md measures before and after with the same budget"


def test_the_second_goes_on_from_the_first(repository: Path) -> None:
    first, second = (load_recipe(repository / "recipes" / "receipts" / f"{name}.yaml") for name in RECIPES)
    assert first.init_from == "nano"
    assert second.init_from == str(first.output_dir)


def test_import_train_and_evaluate(
    repository: Path, tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_sroie(tmp_path / "sroie", 6)
    assert main(["data", "import-sroie", "sroie", "runs/receipts/data", "--test", "2", "--test-lines", "2"]) == 0
    small = ["max_steps=2", "global_batch_size=4", "per_device_batch_size=2", "log_every=1", "max_length=512"]
    for number, name in enumerate(RECIPES):
        start = [f"init_from={tiny_checkpoint}"] if number == 0 else []
        assert main(["train", str(repository / "recipes" / "receipts" / f"{name}.yaml"), *small, *start]) == 0
    shown = ["--data", "runs/receipts/data", "--max-visual-tokens", "16"]
    assert main(["eval", "run", "runs/receipts/2_answer", "--suite", "receipts", *shown, "--out", "after"]) == 0
    assert {path.name for path in Path("after").glob("*.score.json")} == {
        "receipts-lines.score.json",
        "receipts-total.score.json",
    }
