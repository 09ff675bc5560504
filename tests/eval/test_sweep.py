"""Sweeps: every combination of settings, one point each, tables and plots."""

import json
from pathlib import Path

import pytest
from PIL import Image
from transformers import CLIPVisionConfig

from convllava.eval.runner import run_benchmark
from convllava.eval.sweep import (
    Point,
    combinations,
    family_of,
    model_folder,
    plot,
    point_of,
    setting_name,
    write_sweep,
)
from convllava.image_options import ImageOptions
from convllava.inference import Generator
from convllava.model import ConvLlavaVisionConfig


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
    with Image.open(tmp_path / "sweep-synthetic-scenes.png") as image:
        assert image.width > 1000


def test_settings_are_named_once_and_outside_of_the_axes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Labels at the points ran into each other and out of the axes."""
    figure_module = pytest.importorskip("matplotlib.figure")
    figures = []
    monkeypatch.setattr(figure_module.Figure, "savefig", lambda figure, path, dpi: figures.append(figure))
    shared = {"metric": "ANLS", "value": 50.0, "low": 40.0, "high": 60.0, "samples": 4, "seconds": 0.1}
    points = [
        Point(
            model, "docvqa", f"pad-{side}", "pad", side, None, visual_tokens=side / 64, higher_is_better=True, **shared
        )
        for model in ("a", "b")
        for side in (768, 1024, 1536)
    ]
    plot(points, tmp_path / "x.png")
    (figure,) = figures
    assert not any(len(axes.texts) for axes in figure.axes)
    lines, settings = ([text.get_text() for text in legend.get_texts()] for legend in figure.legends)
    assert lines == ["a, pad", "b, pad"]
    assert settings == ["pad-768", "pad-1024", "pad-1536"]


def test_families_join_separately_trained_models(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As in Figure 3: a line for each number of stages, a marker for each model."""
    figure_module = pytest.importorskip("matplotlib.figure")
    figures = []
    monkeypatch.setattr(figure_module.Figure, "savefig", lambda figure, path, dpi: figures.append(figure))
    shared = {"metric": "ANLS", "low": 40.0, "high": 60.0, "samples": 4, "seconds": 0.1, "higher_is_better": True}
    points = [
        Point(
            f"{stages}-{side}", "docvqa", "own", None, None, None, value=side / 4, visual_tokens=tokens,
            family=family_of(ConvLlavaVisionConfig(depths=[1] * stages, hidden_sizes=[8] * stages)), **shared,
        )
        for stages, side, tokens in ((4, 128, 16), (4, 192, 36), (5, 256, 16), (5, 384, 36))
    ]  # fmt: skip
    plot(points, tmp_path / "x.png")
    lines, models = ([text.get_text() for text in legend.get_texts()] for legend in figures[0].legends)
    assert lines == ["4 stages", "5 stages"]
    assert models == ["4-128, own", "4-192, own", "5-256, own", "5-384, own"]
    assert family_of(CLIPVisionConfig()) == "clip_vision_model"
