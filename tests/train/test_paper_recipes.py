"""The recipes against the paper's protocols, which are written out here again; every number of a recipe counts."""

import re
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from convllava.data import catalog
from convllava.train import Recipe, load_recipe, recipe_files

LCS, PT, MIX = ["lcs-558k"], ["sharegpt4v-pt"], ["llava-mix-665k"]
CAPTIONS = ["sharegpt4v-pt", "sharegpt4v", "allava-caption-laion", "allava-caption-vflan"]
MORE = [*CAPTIONS, "allava-instruct-laion", "allava-instruct-vflan", "vision-flan"]
ALLAVA = [name for name in MORE if name.startswith("allava")]


@dataclass(frozen=True)
class Stage:
    """A column of Tables 12 to 15."""

    name: str
    data: list[str]
    rate: float
    batch: int


TABLE_12 = [Stage("projector_init", LCS, 1e-3, 256), Stage("instruct", MIX, 2e-5, 128)]
TABLE_13 = [
    Stage("projector_init", LCS, 1e-3, 256),
    Stage("pretrain", PT, 2e-5, 256),
    Stage("instruct", MIX, 2e-5, 128),
]
TABLE_14 = [
    Stage("projector_init", PT, 3e-4, 256),
    Stage("pretrain", PT, 2e-5, 256),
    Stage("instruct", MIX, 2e-5, 128),
]
TABLE_15 = [
    Stage("projector_init", CAPTIONS, 3e-4, 256),
    Stage("pretrain", MORE, 2e-5, 256),
    Stage("instruct", MIX, 2e-5, 128),
]
TABLE_8 = [TABLE_13[0], Stage("pretrain", PT + ALLAVA, 2e-5, 256), TABLE_13[2]]

SHARED = {
    "epochs": 1,
    "max_steps": None,
    "lr_scheduler": "cosine",
    "warmup_ratio": 0.03,
    "weight_decay": 0.0,
    "max_grad_norm": 1.0,
    "precision": "bfloat16",
    "max_length": 2048,
    "prompt_format": "vicuna_v1",
    "learning_rates": {},
    "on_bad_sample": "skip",
    "engine": "fsdp2",
    "lora": None,
    "train_language_layers": None,
}
"""Tables 12 to 15 (epochs, schedule, warm-up), and the authors' scripts."""

A800 = 312
WHOLE = (18, 16, ["projector_init", "pretrain", "instruct"])
FULL_COST = {"table5/768": [WHOLE, (5, 8, ["instruct"])], "table5/1536": [(9, 8, ["instruct"])]}
"""Hours and devices: section 4.1, and docs/Model_zoo.md of the authors' repository at 3e7ae57."""


@dataclass(frozen=True)
class Row:
    """A row of a results table: its protocol, its images, its encoder and the updated part of it."""

    protocol: list[Stage]
    resolution: int
    tokens: int
    tower: str = "convnext"
    appended: int | None = None
    trained: dict[str, int] = field(default_factory=dict)
    same_run_as: str | None = None


LAST_18, LAST_12 = {"train_last_layers": 18}, {"train_last_layers": 12}


def _five(side: int, tokens: int, layers: int = 6, first: int = 3, protocol: list[Stage] = TABLE_14) -> Row:
    return Row(protocol, side, tokens, appended=layers, trained={"train_from_stage": first})


ROWS: dict[str, Row] = {
    "table2/vit-l-336": Row(TABLE_12, 336, 576, "clip"),
    "table2/convnext-l-512": Row(TABLE_12, 512, 256),
    "table2/convnext-l-768": Row(TABLE_12, 768, 576),
    "table3/vit-l-336": Row(TABLE_13, 336, 576, "clip", trained=LAST_12),
    "table3/convnext-l-512": Row(TABLE_13, 512, 256, trained=LAST_18),
    "table3/convnext-l-768": Row(TABLE_13, 768, 576, trained=LAST_18),
    "table4/768": _five(768, 144),
    "table4/1024": _five(1024, 256),
    "table4/1536": _five(1536, 576),
    "table5/768": _five(768, 144, protocol=TABLE_15),
    "table5/1024": _five(1024, 256, protocol=TABLE_15),
    "table5/1536": _five(1536, 576, protocol=TABLE_15),
    "table8/vit-l-336": Row(TABLE_8, 336, 576, "clip", trained=LAST_12),
    "table8/convnext-l-768": Row(TABLE_8, 768, 576, trained={"train_from_stage": 3}),
    "table9/from-stage-2": _five(768, 144, first=2),
    "table9/from-stage-4": _five(768, 144, first=4),
    "table10/3-layers": _five(768, 144, layers=3),
    "table10/9-layers": _five(768, 144, layers=9),
    "table11/3-layers": _five(1536, 576, layers=3),
}
SAME_RUNS = {
    "table9/from-stage-3": "table4/768",
    "table10/6-layers": "table4/768",
    "table11/6-layers": "table4/1536",
    **{f"table6/{side}": f"table5/{side}" for side in (768, 1024, 1536)},
    **{f"figure3/five-stage-{side}": f"table4/{side}" for side in (768, 1024, 1536)},
    **{f"figure3/convnext-l-{side}": f"table3/convnext-l-{side}" for side in (512, 768)},
}
"""Rows whose figures in the paper are those of another table: one run serves both."""

ALL_ROWS = ROWS | {name: ROWS[other] for name, other in SAME_RUNS.items()}

ENCODERS = {
    "clip": ("clip-vit-l-336-7b", "openai/clip-vit-large-patch14-336", 14),
    "convnext": ("convnext-l-four-stage-7b-768", "ConvLLaVA/LAION-CLIP-ConvNeXt-Large-512", 32),
}
VICUNA = "lmsys/vicuna-7b-v1.5"


@pytest.fixture(scope="module")
def paper(request: pytest.FixtureRequest) -> Path:
    folder: Path = request.getfixturevalue("repository") / "recipes" / "paper"
    return folder


def _files(row: str) -> list[str]:
    return [f"{row}/{number}_{stage.name}.yaml" for number, stage in enumerate(ALL_ROWS[row].protocol, start=1)]


def _expected(row_name: str, number: int) -> dict[str, Any]:
    """Return the paper's settings of one training stage of one row."""
    row = ALL_ROWS[row_name]
    stage = row.protocol[number]
    preset, tower, stride = ENCODERS[row.tower]
    appended = {"depths": [row.appended], "hidden_sizes": [3072]} if row.appended else None
    pretrains = stage.name == "pretrain"
    told = FULL_COST.get(SAME_RUNS.get(row_name, row_name), []) if stage.name == "instruct" else []
    return SHARED | {
        "training_stage": stage.name,
        "data": stage.data,
        "learning_rate": stage.rate,
        "global_batch_size": stage.batch,
        "image": {"aspect_ratio": "pad", "resolution": row.resolution, "max_visual_tokens": None},
        "tokens": (row.resolution // (stride * (2 if row.appended else 1))) ** 2,
        "train_from_stage": row.trained.get("train_from_stage") if pretrains else None,
        "train_last_layers": row.trained.get("train_last_layers") if pretrains else None,
        "init_from_parts": {"vision_tower": tower, "language_model": VICUNA} if number == 0 else None,
        "append_stages": appended if number == 0 else None,
        "model": {"preset": preset, "append_stages": appended if number > 0 else None},
        "reported_costs": [(hours, devices, stages, A800) for hours, devices, stages in told],
    }


def _found(recipe: Recipe) -> dict[str, Any]:
    """Return the same settings of a recipe."""
    values = recipe.model_dump()
    told = values["reported_costs"]
    stride = ENCODERS["clip" if values["model"]["preset"].startswith("clip") else "convnext"][2]
    grown = recipe.architecture is not None and recipe.architecture.append_stages is not None
    found = {name: values[name] for name in _expected("table2/vit-l-336", 0) if name in values}
    return found | {
        "model": {name: values["model"][name] for name in ("preset", "append_stages")},
        "data": [entry["name"] for entry in values["data"]],
        "tokens": (values["image"]["resolution"] // (stride * (2 if grown else 1))) ** 2,
        "reported_costs": [
            (cost["hours"], cost["devices"], cost["training_stages"], cost["device_tflops"]) for cost in told
        ],
    }


def test_every_row_of_every_table_has_its_recipes_and_no_other(paper: Path) -> None:
    found = {str(path.relative_to(paper)) for path in paper.rglob("*.yaml") if "parts" not in path.parts}
    assert found == {name for row in ALL_ROWS for name in _files(row)}


@pytest.mark.parametrize("row", ALL_ROWS)
def test_a_row_says_what_the_paper_says(paper: Path, row: str) -> None:
    for number, name in enumerate(_files(row)):
        assert _found(load_recipe(paper / name)) == _expected(row, number), name
    assert _expected(row, 0)["tokens"] == ALL_ROWS[row].tokens  # the tables' own column


@pytest.mark.parametrize("row", ALL_ROWS)
def test_the_stages_of_a_row_follow_each_other(paper: Path, row: str) -> None:
    chain = [load_recipe(paper / name) for name in _files(row)]
    assert [recipe.init_from for recipe in chain[1:]] == [str(recipe.output_dir) for recipe in chain[:-1]]
    same = SAME_RUNS.get(row)
    if same is not None:
        assert chain == [load_recipe(paper / name) for name in _files(same)]


def test_different_runs_write_to_different_places(paper: Path) -> None:
    runs: dict[Path, Recipe] = {}
    for name in sorted(name for row in ALL_ROWS for name in _files(row)):
        recipe = load_recipe(paper / name)
        assert runs.setdefault(recipe.output_dir, recipe) == recipe, name


def test_the_mixtures_of_table_15_have_the_papers_sizes() -> None:
    """Section 4.1: "approximately 2M" captions, then "2.9M"; and the sizes in the names of the others."""
    sizes = {name: catalog.card(name).samples for name in catalog.names()}
    assert round(sum(sizes[name] for name in CAPTIONS) / 1e6, 1) == 2.0
    assert round(sum(sizes[name] for name in MORE) / 1e6, 1) == 2.9
    assert round(sizes["vision-flan"] / 1e3, -1) == 190
    assert (sizes["lcs-558k"] // 1000, sizes["llava-mix-665k"] // 1000) == (558, 665)
    assert round(sizes["sharegpt4v-pt"] / 1e6, 1) == 1.2


OURS = {"num_workers", "save_every", "log_every"}
"""Numbers of the recipes that do not belong to the protocol."""


def _numbers(values: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the places of all numbers in a parsed recipe."""
    if isinstance(values, dict | list):
        for key, value in values.items() if isinstance(values, dict) else enumerate(values):
            if key not in OURS:
                yield from _numbers(value, (*path, key))
    elif _is_number(values):
        yield path


def _is_number(value: Any) -> bool:
    if isinstance(value, str):  # YAML 1.1 reads 2e-5 as text
        return re.fullmatch(r"[0-9.]+e-?[0-9]+", value) is not None
    return isinstance(value, int | float) and not isinstance(value, bool)


def _doubled(values: Any, place: tuple[Any, ...]) -> Any:
    changed = deepcopy(values)
    inside = changed
    for key in place[:-1]:
        inside = inside[key]
    inside[place[-1]] = (
        float(inside[place[-1]]) * 2 + 1 if isinstance(inside[place[-1]], str) else inside[place[-1]] * 2 + 1
    )
    return changed


def test_no_number_of_the_recipes_can_change_unnoticed(paper: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each number in each file is changed in turn, and some row must then differ from the paper."""
    parsed = {path.resolve(): recipe_files.parse_file(path) for path in paper.rglob("*.yaml")}
    read: list[Path] = []

    def parse(path: Path) -> dict[str, Any]:
        read.append(path.resolve())
        return deepcopy(parsed[path.resolve()])

    monkeypatch.setattr(recipe_files, "parse_file", parse)
    users: dict[Path, list[tuple[str, int]]] = {path: [] for path in parsed}
    for row in ROWS:
        for number, name in enumerate(_files(row)):
            read.clear()
            load_recipe(paper / name)
            for path in set(read):
                users[path].append((row, number))
    places = [(path, place) for path, values in parsed.items() for place in _numbers(values)]
    assert len(places) > 30
    for path, place in places:
        original = parsed[path]
        parsed[path] = _doubled(original, place)
        assert any(_differs(paper, row, number) for row, number in users[path]), f"{place} of {path} is idle"
        parsed[path] = original


def _differs(paper: Path, row: str, number: int) -> bool:
    try:
        return _found(load_recipe(paper / _files(row)[number])) != _expected(row, number)
    except ValueError:  # no longer a recipe at all
        return True
