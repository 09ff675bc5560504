"""The findings: shipped arms can be planned and differ in one thing; a toy catalog is trained, measured and resumed."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from convllava.cli.main import main
from convllava.findings import FindingsSettings, load_catalog
from convllava.findings.run import arm_pipeline, judge, pooled_error
from convllava.train.model_setup import resolve_model

TINY = {"depths": [1, 1, 1, 1], "hidden_sizes": [8, 8, 16, 16]}


@pytest.fixture(scope="module")
def shipped(repository: Path) -> Path:
    return repository / "recipes" / "findings"


def test_every_arm_can_be_planned(shipped: Path, tmp_path: Path) -> None:
    catalog = load_catalog(shipped)
    assert list(catalog.findings) == [f"F{number}" for number in range(1, 10)]
    settings = FindingsSettings(catalog, [], tmp_path)
    pipelines = {arm.pipeline for finding in catalog.findings.values() for arm in finding.arms.values()}
    for path in sorted({*pipelines, *catalog.starts.values()}):
        for recipe in arm_pipeline(path, [], [], settings, 0).recipes.values():
            resolve_model(recipe, fetch=False).outline()
    used = {path.as_posix() for path in (*pipelines, *catalog.starts.values())}
    found = {path.relative_to(shipped).as_posix() for path in shipped.rglob("*.yaml")}
    assert found - used == {"findings.yaml", "base.yaml", "five-stages.yaml", "F1/frozen-256.yaml"} - used


def test_an_arm_is_at_most_ten_lines(shipped: Path) -> None:
    for path in shipped.rglob("F*/*.yaml"):
        assert len(path.read_text().splitlines()) <= 10, path
        assert "extends" in yaml.safe_load(path.read_text()), path


def test_arms_take_as_many_steps_on_the_same_data(shipped: Path, tmp_path: Path) -> None:
    """What an arm changes is its encoder, its resolution or what trains; never data, batch or number of steps."""
    catalog = load_catalog(shipped)
    settings = FindingsSettings(catalog, [], tmp_path)
    for name, finding in catalog.findings.items():
        budgets = set()
        for arm in finding.arms.values():
            recipes = arm_pipeline(arm.pipeline, [], [], settings, 0).recipes.values()
            budgets.add(str([(one.max_steps, one.global_batch_size, one.data) for one in recipes]))
        assert len(budgets) == 1, name


def test_encoders_that_are_compared_are_of_one_size(shipped: Path, tmp_path: Path) -> None:
    """The ViT of F8 without its last layer, which has no effect; the shifted depths of F9 have as many layers."""
    settings = FindingsSettings(load_catalog(shipped), [], tmp_path)

    def parameters(path: str) -> dict[str, int]:
        recipe = list(arm_pipeline(Path(path), [], [], settings, 0).recipes.values())[-1]
        tower = resolve_model(recipe, fetch=False).outline().model.vision_tower
        return {name: weight.numel() for name, weight in tower.named_parameters()}

    unused = ("encoder.layers.7.", "post_layernorm.")
    vit = sum(number for name, number in parameters("F8/vit.yaml").items() if not name.startswith(unused))
    assert vit == pytest.approx(sum(parameters("F2/four-256.yaml").values()), rel=0.02)
    layers = [
        sum("dwconv.weight" in name for name in parameters(f"{path}.yaml")) for path in ("F9/shifted", "F2/five-512")
    ]
    assert layers == [14, 14]


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    """A catalog with one finding, two arms and a start, of two steps each."""
    folder = tmp_path / "recipes"
    folder.mkdir()
    common = {"model": {"preset": "nano", "encoder": TINY}, "global_batch_size": 2, "prompt_format": "tokenizer"}
    data = {"lines": [{"name": "synthetic/scene", "options": {"sizes": [[128, 128]]}}]}
    step = {"data": {"lines": 1}, "learning_rate": 1e-3, "max_steps": 2}
    start = {"common": common, "mixes": data, "steps": {"foundation": {"training_stage": "foundation", **step}}}
    frozen = {"training_stage": "pretrain", "train_last_layers": 0, **step}
    arm = {"common": {**common, "init_from": "x"}, "mixes": data, "steps": {"pretrain": frozen}}
    (folder / "start.yaml").write_text(yaml.safe_dump(start))
    (folder / "frozen.yaml").write_text(yaml.safe_dump(arm))
    changed = {"extends": "frozen.yaml", "steps": {"pretrain": {"train_last_layers": None, "train_from_stage": 3}}}
    (folder / "updated.yaml").write_text(yaml.safe_dump(changed))
    finding = {
        "title": "Updating heals",
        "paper": "Table 3",
        "rows": ["table3/convnext-l-768"],
        "arms": {name: {"pipeline": f"{name}.yaml", "after": "start"} for name in ("frozen", "updated")},
        "claims": [{"text": "Updating helps", "arm": "updated", "than": "frozen", "benchmark": "synthetic-scenes"}],
    }
    quick = {"seeds": 1, "limit": 3, "max_steps": 2}
    catalog = {"benchmarks": ["synthetic-scenes"], "starts": {"start": "start.yaml"}, "full": quick, "quick": quick}
    (folder / "findings.yaml").write_text(yaml.safe_dump({**catalog, "findings": {"F1": finding}}))
    return folder


@pytest.mark.slow
def test_a_toy_finding_is_trained_measured_and_resumed(toy: Path, tmp_path: Path, capsys: Any) -> None:
    pytest.importorskip("matplotlib")
    words = ["findings", "run", "F1", "--quick", "--recipes", str(toy), "--out", str(tmp_path / "out")]
    assert main(words) == 0
    out = tmp_path / "out" / "quick"
    page = (out / "findings.md").read_text()
    assert "| Table 3, ConvNeXt-L 768 | 66.5 | 68.6 | 60 | 40.2 |" in page
    assert "Made by `convllava findings run F1 --quick`" in page
    assert "Updating helps: **cannot be told** on synthetic-scenes. updated against frozen: +0.0 points" in page
    assert (out / "F1.png").stat().st_size > 1000
    towers = {
        name: load_file(out / "seed-0" / name / folder / "model.safetensors")[
            "model.vision_tower.encoder.stages.3.layers.0.dwconv.weight"
        ]
        for name, folder in (("start", "1_foundation"), ("frozen", "1_pretrain"), ("updated", "1_pretrain"))
    }
    assert torch.equal(towers["start"], towers["frozen"]) and not torch.equal(towers["start"], towers["updated"])

    times = {path: path.stat().st_mtime_ns for path in out.rglob("model.safetensors")}
    more = [*words, "--like", "updated", "steps.pretrain.train_from_stage=4"]
    assert main(more) == 0
    assert all(path.stat().st_mtime_ns == time for path, time in times.items())  # nothing is trained again
    arms = json.loads((out / "F1.json").read_text())["arms"]
    assert list(arms) == ["frozen", "updated", "updated, train_from_stage=4"]

    changed = yaml.safe_load((toy / "updated.yaml").read_text())
    changed["steps"]["pretrain"]["learning_rate"] = 5.0
    (toy / "updated.yaml").write_text(yaml.safe_dump(changed))
    capsys.readouterr()
    assert main(words) == 2
    assert "was trained with another learning_rate: choose another --out, or move it" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["F2"], "no finding 'F2': one of F1"),
        (["F1", "a=1"], "KEY=VALUE needs --like ARM"),
        (["F1", "--like", "updated"], "--like ARM needs one finding and the values to change"),
        (["F1", "--like", "thawed", "a=1"], "F1 has no arm 'thawed': one of frozen, updated"),
        (["--recipes", "."], "no findings.yaml: give the folder of the findings' recipes"),
    ],
)
def test_mistakes_are_named(toy: Path, words: list[str], message: str, capsys: Any, monkeypatch: Any) -> None:
    monkeypatch.chdir(toy.parent)
    recipes = [] if "--recipes" in words else ["--recipes", str(toy)]
    assert main(["findings", "run", *words, *recipes]) == 2
    assert message in capsys.readouterr().err


def test_a_faulty_catalog_is_named(toy: Path) -> None:
    content = yaml.safe_load((toy / "findings.yaml").read_text())
    content["findings"]["F1"]["claims"][0]["arm"] = "updaetd"
    (toy / "findings.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(ValueError, match="a claim is about the arm 'updaetd'; did you mean 'updated'"):
        load_catalog(toy)
    content["findings"]["F1"] |= {"claims": [], "rows": ["table3/vit-l-768"]}
    (toy / "findings.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(ValueError, match="the paper has no row 'table3/vit-l-768'"):
        load_catalog(toy)


def test_intervals_over_seeds() -> None:
    """The samples' error of one seed; with several seeds, what lies between them too."""
    assert pooled_error([0.1], [0.02]) == pytest.approx(0.02)
    assert pooled_error([0.1, 0.1], [0.02, 0.02]) == pytest.approx(0.02 / 2**0.5)
    assert pooled_error([0.0, 0.2], [0.0, 0.0]) == pytest.approx((0.02 / 2) ** 0.5)
    verdicts = [
        judge(interval, equal) for interval in ((0.1, 0.2), (-0.1, 0.2), (-0.2, -0.1)) for equal in (False, True)
    ]
    assert verdicts == ["shows", "does not show", "does not show", "shows", "shows the opposite", "does not show"]
