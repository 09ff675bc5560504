"""``verify`` passes on the same model in two layouts, and names the one tensor that was changed."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from convert.conftest import CONSOLIDATED, RESOLUTIONS, SPLIT

from convllava.cli.main import main
from convllava.convert import compare_tensors, convert, open_checkpoint

NAME = "model.layers.1.mlp.up_proj.weight"


def change(folder: Path, name: str, amount: float) -> None:
    state = torch.load(folder / "pytorch_model.bin", weights_only=True)
    state[name][7, 5] += amount
    torch.save(state, folder / "pytorch_model.bin")


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, Any]:
    code = main(["verify", *arguments, "--json"])
    return code, json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("name", [SPLIT, CONSOLIDATED])
def test_the_same_model_in_two_layouts(
    references: Path, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    convert(references / name, tmp_path / "ours", resolution=RESOLUTIONS[name])
    code, report = run(capsys, str(references / name), str(tmp_path / "ours"), "--resolution", "256")
    assert (code, report["same"], report["differences"]) == (0, True, [])
    assert report["logits"]["largest"] == 0.0
    assert report["logits"]["same_choice"] == 1.0


def test_a_change_of_a_thousandth_is_named(references: Path, split: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change(split, NAME, 1e-3)
    code, report = run(capsys, str(references / SPLIT), str(split))
    assert code == 1
    assert not report["same"]
    (difference,) = report["differences"]
    assert difference["name"] == "model.language_model.layers.1.mlp.up_proj.weight"
    assert difference["largest"] == pytest.approx(1e-3, rel=1e-3)
    assert difference["at"] == [7, 5]
    assert report["logits"]["largest"] > 0
    assert main(["verify", str(references / SPLIT), str(split), "--no-logits"]) == 1
    assert "up_proj.weight: differs by 0.001 at [7, 5]" in capsys.readouterr().out
    assert main(["verify", str(references / SPLIT), str(split), "--no-logits", "--tolerance", "0.01"]) == 0


def test_other_shapes_and_names(references: Path) -> None:
    first, second = (open_checkpoint(references / name, resolution=256) for name in (SPLIT, CONSOLIDATED))
    reasons = {difference.name: difference for difference in compare_tensors(first, second).differences}
    deeper = "model.vision_tower.encoder.stages.4.layers.1.dwconv.weight"
    assert reasons[deeper].reason == "only in A"
    assert reasons["model.vision_tower.encoder.stages.4.layers.0.dwconv.bias"].detail == "[128] and [96]"
    assert compare_tensors(second, first).differences[0].reason in ("only in B", "shape")


def test_nan_on_one_side_is_a_difference(references: Path, split: Path) -> None:
    change(split, NAME, torch.nan)
    (difference,) = compare_tensors(open_checkpoint(references / SPLIT), open_checkpoint(split)).differences
    assert difference.largest == float("inf")
    assert compare_tensors(open_checkpoint(split), open_checkpoint(split)).same


def test_rounding_to_bfloat16_is_a_difference(references: Path, tmp_path: Path) -> None:
    convert(references / SPLIT, tmp_path / "half", dtype="bfloat16")
    first, second = open_checkpoint(references / SPLIT), open_checkpoint(tmp_path / "half")
    assert not compare_tensors(first, second).same
    assert compare_tensors(first, second, tolerance=0.05).same


def test_the_row_of_the_image_token_is_no_difference(
    references: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The mean of rounded rows is not the rounded mean of the rows; the authors' layout has no such row at all."""
    convert(references / SPLIT, tmp_path / "half", dtype="bfloat16")
    convert(tmp_path / "half", tmp_path / "back", to="official")
    code, report = run(capsys, str(tmp_path / "half"), str(tmp_path / "back"))
    assert (code, report["same"], report["logits"]["largest"]) == (0, True, 0.0)


def test_processors_that_disagree(references: Path, tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(references / SPLIT), str(tiny_checkpoint)]) == 2
    assert "the two processors disagree" in capsys.readouterr().err
