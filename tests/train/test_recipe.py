"""Recipes: strict keys, inheritance, overrides; all shipped ones load."""

import itertools
import re
from pathlib import Path

import pytest

from convllava.train import is_pipeline, load_pipeline, load_recipe, write_recipe
from convllava.train.recipe_files import load_chain

MINIMAL = """
training_stage: foundation
model: nano
data: [{name: synthetic/line}]
learning_rate: 1e-3
max_steps: 5
output_dir: out
"""


VIT = "{hidden_size: 32, num_layers: 3, num_heads: 2, patch_size: 16, image_size: 64}"


def _write(folder: Path, text: str, name: str = "recipe.yaml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_all_shipped_recipes_load(repository: Path) -> None:
    found = sorted((repository / "recipes").rglob("*.yaml"))
    shipped = [path for path in found if not {"engine", "parts", "findings"} & set(path.parts)]
    assert len(shipped) >= 5
    stages = []
    for path in shipped:
        recipes = load_pipeline(path).recipes.values() if is_pipeline(path) else [load_recipe(path)]
        stages += [recipe.training_stage for recipe in recipes]
    assert set(stages) == {"encoder", "foundation", "projector_init", "pretrain", "instruct"}


def test_the_nano_recipes_form_a_chain(repository: Path) -> None:
    paths = sorted((repository / "recipes" / "nano").glob("*.yaml"), key=lambda path: int(path.name.split("_")[0]))
    # what scripts between the recipes make of runs before: the last word of such a line
    makefile = (repository / "Makefile").read_text(encoding="utf-8")
    converted = set(re.findall(r"recipes/nano/\w+\.py .*(runs/nano/\w+)$", makefile, re.MULTILINE))
    for previous, following in itertools.pairwise(map(load_recipe, paths)):
        assert following.init_from in {str(previous.output_dir), *converted}


def test_a_written_recipe_loads_equal(tmp_path: Path) -> None:
    recipe = load_recipe(_write(tmp_path, MINIMAL))
    write_recipe(recipe, tmp_path / "copy.yaml")
    assert load_recipe(tmp_path / "copy.yaml") == recipe


def test_inheritance_merges_and_overrides_win(tmp_path: Path) -> None:
    _write(tmp_path, MINIMAL + "image: {resolution: 256, aspect_ratio: native}\n", "base.yaml")
    path = _write(tmp_path, "extends: base.yaml\nimage: {resolution: 512}\nlearning_rate: 2e-3\n")
    recipe = load_recipe(path, ["learning_rate=5e-4", "image.max_visual_tokens=64"])
    assert (recipe.learning_rate, recipe.max_steps) == (5e-4, 5)
    assert recipe.image.model_dump() == {"aspect_ratio": "native", "resolution": 512, "max_visual_tokens": 64}


@pytest.mark.parametrize(
    ("addition", "message"),
    [
        ("learning_rat: 1", "unknown key 'learning_rat'; did you mean 'learning_rate'?"),
        ("image: {resolutoin: 5}", "unknown key 'image.resolutoin'; did you mean 'resolution'?"),
        ("model: null", "give model .* or init_from"),
        ("model: {preset: nano, stages: 5}", "unknown key 'model.stages'"),
        (
            "model: {preset: nano, encoder: {kernel_sizes: 5}}",
            "'model.encoder.kernel_sizes'; did you mean 'kernel_size'",
        ),
        ("model: {preset: nano, encoder: {hidden_sizes: [8]}}", "model.encoder: hidden_sizes needs depths"),
        ("model: {preset: nano, vit: {hidden_size: 8}}", "key 'model.vit.num_layers' is missing"),
        (f"model: {{preset: nano, vit: {VIT}, encoder: {{}}}}", "leave out encoder and append_stages, or vit"),
        (
            f"model: {{preset: nano, vit: {VIT.replace('64', '63')}}}",
            "image_size 63 is not a multiple of patch_size 16",
        ),
        ("enlarge_kernels: 13", "enlarge_kernels needs a trained encoder"),
        ("init_from_parts: {vision_tower: x}", "key 'init_from_parts.language_model' is missing"),
        ("after: nowhere.yaml", "no recipe .*nowhere.yaml"),
        ("after: recipe.yaml", "comes after itself"),
        ("epochs: 1", "exactly one of epochs and max_steps"),
        ("training_stage: pretrain", "exactly one of train_from_stage and train_last_layers, got none"),
        ("train_from_stage: 3", "belong to training_stage pretrain, not to foundation"),
        ("learning_rate: fast", "learning_rate: .* \\(got 'fast'\\)"),
        ("extends: nowhere.yaml", "no recipe .*nowhere.yaml"),
        ("extends: recipe.yaml", "extends itself"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, addition: str, message: str) -> None:
    kept = [line for line in MINIMAL.splitlines() if line.split(":")[0] != addition.split(":")[0]]
    path = _write(tmp_path, "\n".join([*kept, addition]))
    with pytest.raises(ValueError, match=message.replace("?", r"\?").replace("[", r"\[")):
        load_recipe(path)


def test_the_last_of_several_bases_wins(tmp_path: Path) -> None:
    _write(tmp_path, MINIMAL, "run.yaml")
    _write(tmp_path, "learning_rate: 2e-3\nimage: {resolution: 256}", "first.yaml")
    _write(tmp_path, "learning_rate: 3e-3\nimage: {aspect_ratio: native}", "second.yaml")
    recipe = load_recipe(_write(tmp_path, "extends: [run.yaml, first.yaml, second.yaml]\nmax_steps: 7"))
    assert (recipe.learning_rate, recipe.max_steps, recipe.seed) == (3e-3, 7, 0)
    assert recipe.image.model_dump(exclude_none=True) == {"resolution": 256, "aspect_ratio": "native"}


def test_a_recipe_starts_from_the_model_of_the_one_it_follows(tmp_path: Path) -> None:
    """Checkpoint and architecture come from the previous recipe, whichever recipe of the chain is loaded."""
    (tmp_path / "row").mkdir()
    _write(
        tmp_path, MINIMAL.replace("foundation", "projector_init") + "append_stages: {depths: [3], hidden_sizes: [9]}"
    )
    _write(tmp_path / "row", "extends: ../recipe.yaml\noutput_dir: a\nafter: ../recipe.yaml", "a.yaml")
    third = _write(
        tmp_path / "row", "extends: ../recipe.yaml\noutput_dir: b\nappend_stages: null\nafter: a.yaml", "b.yaml"
    )
    recipe = load_recipe(third)
    assert (recipe.init_from, recipe.append_stages) == ("a", None)
    assert recipe.model is not None and recipe.model.append_stages is not None
    assert recipe.model.append_stages.model_dump() == {"depths": [3, 3], "hidden_sizes": [9, 9]}
    assert [str(one.output_dir) for one in load_chain(third)] == ["out", "a", "b"]
    elsewhere = load_recipe(third, ["init_from=somewhere/else"])
    assert (elsewhere.init_from, elsewhere.model) == ("somewhere/else", recipe.model)
    write_recipe(recipe, tmp_path / "copy.yaml")
    assert load_recipe(tmp_path / "copy.yaml") == recipe


def test_named_data_sets_share_the_root_unless_they_have_their_own(tmp_path: Path) -> None:
    data = "data: [{name: a}, {name: b, data_root: there}, {path: c.json}]\ndata_root: here\n"
    lines = [line for line in MINIMAL.splitlines() if not line.startswith("data")]
    recipe = load_recipe(_write(tmp_path, "\n".join([*lines, data])))
    assert [entry.data_root for entry in recipe.data] == [Path("here"), Path("there"), None]


@pytest.mark.parametrize("override", ["learning_rate", "learning_rate.x=1"])
def test_malformed_overrides_are_named(tmp_path: Path, override: str) -> None:
    with pytest.raises(ValueError, match=override):
        load_recipe(_write(tmp_path, MINIMAL), [override])


@pytest.mark.parametrize("key", ["extends", "after"])
@pytest.mark.parametrize("value", ["5", "[{a: 1}]", "{a: 1}"])
def test_other_recipes_are_named_by_text(tmp_path: Path, key: str, value: str) -> None:
    with pytest.raises(ValueError, match=f"recipe .*: {key} must name a recipe file, got"):
        load_recipe(_write(tmp_path, MINIMAL + f"{key}: {value}\n"))
