"""Cached encoder features: the same run, one encoding per image, and no more disk space than allowed."""

from pathlib import Path

import pytest
import torch
from tiny import tiny_model
from training_runs import logged, write_recipe

from convllava.model.vision_convllava import ConvLlavaVisionEmbeddings
from convllava.train import load_recipe, train
from convllava.train.feature_cache import fingerprint


@pytest.fixture(scope="module")
def recipe(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recipe")
    return write_recipe(folder, tiny_checkpoint, training_stage="instruct", train_from_stage=None, save_every=100)


def test_the_run_is_the_same_and_each_image_is_encoded_once(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded: list[int] = []
    forward = ConvLlavaVisionEmbeddings.forward

    def counted(self: ConvLlavaVisionEmbeddings, pixel_values: torch.Tensor) -> torch.Tensor:
        encoded.append(len(pixel_values))
        return forward(self, pixel_values)

    monkeypatch.setattr(ConvLlavaVisionEmbeddings, "forward", counted)

    def run(name: str, *overrides: str) -> tuple[dict[int, float], int]:
        encoded.clear()
        losses = logged(train(load_recipe(recipe, [*overrides, f"output_dir={tmp_path / name}"])))
        return losses, sum(encoded)

    cache = f"feature_cache={{folder: {tmp_path / 'cache'}, limit_gb: 1}}"
    plain, all_images = run("plain")
    first, _ = run("first", cache)
    second, images_left = run("second", cache)
    assert first == pytest.approx(plain, abs=1e-6)
    assert second == pytest.approx(plain, abs=1e-6)
    assert images_left < all_images / 4  # those of the model that is read back at the end
    assert not list((tmp_path / "cache").rglob("*.tmp-*")), "something half-written is left"


def test_the_estimate_comes_first(recipe: Path, tmp_path: Path) -> None:
    """8 steps of 4 samples, four images in six samples, of 1, 2, 2 and 6 tokens of 32 numbers of 4 bytes."""
    cache = f"{{folder: {tmp_path / 'cache'}, limit_gb: 1.0e-6}}"
    with pytest.raises(ValueError, match=r"feature_cache would take about 0\.0 GB, more than its limit_gb 1e-06"):
        train(load_recipe(recipe, [f"feature_cache={cache}", f"output_dir={tmp_path / 'run'}"]))
    assert not (tmp_path / "run").exists()


def test_a_trained_encoder_cannot_be_cached(recipe: Path) -> None:
    overrides = ["feature_cache={folder: x, limit_gb: 1}", "training_stage=pretrain", "train_from_stage=3"]
    with pytest.raises(ValueError, match="feature_cache needs a frozen encoder"):
        load_recipe(recipe, overrides)


def test_another_encoder_or_precision_has_its_own_folder() -> None:
    one, other = (tiny_model(seed=seed)[0].model.vision_tower for seed in (0, 1))
    names = {fingerprint(one, "float32"), fingerprint(other, "float32"), fingerprint(one, "bfloat16")}
    assert len(names) == 3
    assert fingerprint(one, "float32") == fingerprint(tiny_model(seed=0)[0].model.vision_tower, "float32")
