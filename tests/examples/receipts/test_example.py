"""The receipts example from import to score, on a handful of drawn receipts and a tiny model."""

import json
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import import_sroie
import pytest
import run_all
from receipt_files import write_sroie
from training_runs import logged

from convllava.cli.main import main
from convllava.eval.benchmarks import ALL
from convllava.train import load_recipe

RECIPES = ("1_read", "2_answer")


@pytest.fixture
def example(repository: Path) -> Path:
    return repository / "examples" / "receipts"


@pytest.fixture(autouse=True)
def restore_benchmarks() -> Iterator[None]:
    """Forget the benchmarks that a test registers."""
    before = dict(ALL)
    yield
    ALL.clear()
    ALL.update(before)


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_read_the_imported_files(name: str, example: Path) -> None:
    recipe = load_recipe(example / f"{name}.yaml")
    assert recipe.validation is not None and recipe.validation.keep_best == "loss"
    entries = [*recipe.data, *recipe.validation.data]
    assert {Path(str(entry.path)).parent for entry in entries} == {Path("runs/receipts/data")}
    assert recipe.image.max_visual_tokens == 160, "the README measures before and after with the same budget"


def test_the_second_recipe_continues_the_first(example: Path) -> None:
    first, second = (load_recipe(example / f"{name}.yaml") for name in RECIPES)
    assert first.init_from == "nano"
    assert second.init_from == str(first.output_dir)


def test_import_train_and_evaluate(
    example: Path, tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_sroie(tmp_path / "sroie", 6)
    assert (
        import_sroie.main(["sroie", "runs/receipts/data", "--validation", "1", "--test", "2", "--test-lines", "2"]) == 0
    )
    small = [
        "validation.eval_every=1",
        "validation.answers=null",
        "max_steps=2",
        "global_batch_size=4",
        "per_device_batch_size=2",
        "log_every=1",
        "max_length=512",
    ]
    for number, name in enumerate(RECIPES):
        start = [f"init_from={tiny_checkpoint}"] if number == 0 else []
        assert main(["train", str(example / f"{name}.yaml"), *small, *start]) == 0
    assert list(logged(Path("runs/receipts/2_answer"), "validation/loss")) == [0, 1, 2]
    options = ["--data", "runs/receipts/data", "--max-visual-tokens", "16", "--out", "after"]
    names = ",".join(run_all.BENCHMARKS)
    plugin = ["--plugin", str(example / "benchmarks.py")]
    assert main(["eval", *plugin, "run", "runs/receipts/2_answer", "--benchmark", names, *options]) == 0
    assert {path.name for path in Path("after").glob("*.score.json")} == {
        "receipts-lines.score.json",
        "receipts-total.score.json",
    }


def test_the_documented_commands_are_those_that_run(
    example: Path, repository: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run_all.main(["sroie", "--dry-run"])
    commands = capsys.readouterr().out.splitlines()
    assert len(commands) == 6
    before, after = (command.split(" run ")[1].split(" ", 1)[1] for command in commands if " eval --plugin " in command)
    assert before.replace("before", "after") == after
    documented = " ".join((example / "README.md").read_text(encoding="utf-8").replace("\\\n", " ").split())
    for command in commands:
        words = shlex.split(command.removesuffix(" --resume"))
        start = next(index for index, word in enumerate(words) if word.endswith(".py") or word == "convllava.cli.main")
        assert " ".join(words[start + words[start].startswith("convllava") :]) in documented, command
        assert all((repository / word).is_file() for word in words if word.startswith(("examples/", "benchmarks/")))
    assert list(tmp_path.iterdir()) == []


def test_the_summary_has_both_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for when, value in (("before", 0.1), ("after", 0.4)):
        folder = run_all.FOLDER / when
        folder.mkdir(parents=True)
        for name in run_all.BENCHMARKS:
            score = {"value": value, "interval": [0.0, 0.5], "samples": 100}
            (folder / f"{name}.score.json").write_text(json.dumps(score))
    run_all.run(run_all.Step("import", (sys.executable, "-c", "pass")))
    text = run_all.summary()
    assert "| `receipts-lines` | 0.100 (0.000 to 0.500; 100) | 0.400 (0.000 to 0.500; 100) |" in text
    assert "Minutes: import 0.0" in text
