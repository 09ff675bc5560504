"""Sweeps: every combination of settings, one point each, tables and plots."""

import json
from pathlib import Path

import pytest
from PIL import Image

from convllava.eval.runner import run_benchmark
from convllava.eval.sweep import combinations, model_folder, point_of, setting_name, write_sweep
from convllava.image_options import ImageOptions
from convllava.inference import Generator


def test_settings_are_all_combinations() -> None:
    assert combinations([], [], []) == [ImageOptions()]
    grid = combinations(["pad", "native"], [768, 1536], [])
    assert [setting_name(options) for options in grid] == ["pad-768", "pad-1536", "native-768", "native-1536"]
    assert setting_name(ImageOptions(max_visual_tokens=9)) == "9-tokens"
    assert setting_name(ImageOptions()) == "own"
    assert model_folder("../runs/mine") == "runs-mine"


def test_more_tokens_cost_more(generator: Generator, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    points = []
    for options in combinations([], [], [1, 6]):
        folder = tmp_path / setting_name(options)
        score = run_benchmark(generator, "synthetic-scenes", limit=3, out=folder, **options.given())
        points.append(point_of(score, folder, options))
    assert points[0].visual_tokens == 1 < points[1].visual_tokens <= 6
    assert all(point.seconds is not None and point.seconds > 0 for point in points)
    written = {path.name for path in write_sweep(points, tmp_path)}
    assert written == {"sweep.json", "sweep.csv", "sweep.md", "sweep-synthetic-scenes.png"}
    assert [point["setting"] for point in json.loads((tmp_path / "sweep.json").read_text())] == ["1-tokens", "6-tokens"]
    with Image.open(tmp_path / "sweep-synthetic-scenes.png") as plot:
        assert plot.width > 1000
