"""The fast way against the exact one: same shapes, values within a stated distance, same errors."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from convllava.images import open_image
from convllava.model.fast_image_processing import decode, resize
from convllava.model.image_processing_convllava import ConvLlavaImageProcessor

LEVEL = 1 / 255 / 0.26
"""How much one level of 8 bits is after normalization, about."""


def photograph(height: int = 900, width: int = 1300) -> Image.Image:
    """Smooth ground, sharp edges and a little noise."""
    rng = np.random.default_rng(0)
    ground = Image.fromarray(rng.integers(0, 256, (9, 13, 3), dtype=np.uint8)).resize((width, height))
    levels = np.asarray(ground, dtype=np.int16) + rng.integers(-4, 5, (height, width, 1))
    levels[height // 3 : height // 2, width // 4 : width // 2] = 20
    return Image.fromarray(levels.clip(0, 255).astype(np.uint8))


def both(source: Any, **options: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Pixels of the exact and of the fast way, of the same shapes."""
    found = [
        ConvLlavaImageProcessor(image_aspect_ratio="native", preprocessing=way)(source, return_tensors="pt", **options)
        for way in ("exact", "fast")
    ]
    exact, fast = (data["pixel_values"] for data in found)
    assert exact.shape == fast.shape and exact.dtype == fast.dtype == torch.float32
    assert torch.equal(found[0]["image_sizes"], found[1]["image_sizes"])
    return exact, fast


OPTIONS = [{"resolution": 256}, {"resolution": 200, "image_aspect_ratio": "pad"}, {"max_visual_tokens": 20}, {}]


@pytest.mark.parametrize("options", OPTIONS)
def test_a_decoded_image_differs_by_a_level(options: dict[str, Any]) -> None:
    exact, fast = both(photograph(), **options)
    assert (exact - fast).abs().max() < 1.2 * LEVEL


@pytest.mark.parametrize("options", OPTIONS)
def test_a_jpeg_decoded_small_differs_by_a_few_levels(options: dict[str, Any], tmp_path: Path) -> None:
    photograph().save(tmp_path / "p.jpg", quality=92)
    exact, fast = both(str(tmp_path / "p.jpg"), **options)
    difference = (exact - fast).abs()
    assert difference.mean() < 2 * LEVEL
    assert (difference > 16 * LEVEL).float().mean() < 0.01  # at sharp edges


@pytest.mark.parametrize("size", [(1000, 751), (333, 1201), (800, 800)])
def test_a_padded_jpeg_lies_where_the_exact_way_puts_it(size: tuple[int, int], tmp_path: Path) -> None:
    """Half a pixel off would show at the edges of the padding: there 30 levels and more."""
    Image.new("RGB", (size[1], size[0]), "white").save(tmp_path / "p.jpg", quality=95)
    exact, fast = both(str(tmp_path / "p.jpg"), resolution=200, image_aspect_ratio="pad")
    assert (exact - fast).abs().max() < 8 * LEVEL


def test_a_jpeg_is_decoded_smaller_but_never_smaller_than_shown(tmp_path: Path) -> None:
    photograph(800, 1200).save(tmp_path / "p.jpg")
    for wanted, decoded in {
        (80, 120): (150, 100),
        (81, 120): (300, 200),
        (320, 480): (600, 400),
        (321, 400): (1200, 800),
    }.items():
        image = open_image(tmp_path / "p.jpg", lazily=True)
        assert decode(image, *wanted).size == decoded


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_obeyed(orientation: int, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    photograph(320, 640).save(tmp_path / "p.jpg", exif=exif, quality=95)
    exact, fast = both(str(tmp_path / "p.jpg"), resolution=64)
    assert (exact - fast).abs().mean() < 2 * LEVEL


@pytest.mark.parametrize("mode", ["RGBA", "L", "P", "1"])
def test_other_modes_are_read_the_ordinary_way(mode: str, tmp_path: Path) -> None:
    photograph(130, 200).convert(mode).save(tmp_path / "p.png")
    exact, fast = both(str(tmp_path / "p.png"), resolution=64)
    assert (exact - fast).abs().max() < 1.2 * LEVEL


def test_several_images_of_several_shapes(tmp_path: Path) -> None:
    sources = []
    for number, size in enumerate([(300, 200), (640, 100), (64, 64), (500, 500)]):
        photograph(*size).save(tmp_path / f"{number}.jpg")
        sources.append(str(tmp_path / f"{number}.jpg"))
    exact, fast = both(sources)
    assert exact.shape[0] == 4 and (exact == 0).sum() == (fast == 0).sum()  # the same padding
    assert (exact - fast).abs().max() < 2.2 * LEVEL  # nothing is decoded smaller here


def test_errors_are_those_of_the_exact_way(tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_text("no image")
    photograph().save(tmp_path / "whole.jpg")
    (tmp_path / "half.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:5000])
    for name in ("broken.jpg", "half.jpg", "nowhere.jpg"):
        with pytest.raises(ValueError, match=name):
            ConvLlavaImageProcessor(preprocessing="fast")(str(tmp_path / name))


def test_exact_is_the_default_and_the_choice_is_kept(tmp_path: Path) -> None:
    assert ConvLlavaImageProcessor().preprocessing == "exact"
    ConvLlavaImageProcessor(preprocessing="fast").save_pretrained(tmp_path)
    assert ConvLlavaImageProcessor.from_pretrained(tmp_path).preprocessing == "fast"
    with pytest.raises(ValueError, match="exact, fast"):
        ConvLlavaImageProcessor(preprocessing="quick")


def test_resizing_rounds_like_pillow() -> None:
    image = photograph(333, 555)
    for height, width in [(128, 192), (333, 555), (512, 640)]:
        expected = np.asarray(image.resize((width, height), Image.Resampling.BICUBIC), dtype=int)
        own = resize(image, height, width).permute(1, 2, 0).numpy().astype(int)
        assert np.abs(own - expected).max() <= 1
