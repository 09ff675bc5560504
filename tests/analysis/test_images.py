"""Sizes from headers."""

from pathlib import Path

import pytest
from PIL import Image

from convllava.analysis.images import image_size, images_in


@pytest.mark.parametrize(("orientation", "size"), [(1, (40, 60)), (3, (40, 60)), (6, (60, 40)), (8, (60, 40))])
def test_sizes_are_upright(orientation: int, size: tuple[int, int], tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", (60, 40)).save(tmp_path / "p.jpg", exif=exif)
    assert image_size(tmp_path / "p.jpg") == size


def test_folders_are_walked_in_order(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    for name in ("z.PNG", "b/a.png", "a.jpeg"):
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no image")
    assert [path.relative_to(tmp_path).as_posix() for path in images_in(tmp_path)] == ["a.jpeg", "b/a.png", "z.PNG"]


def test_what_is_wrong_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no images"):
        images_in(tmp_path)
    (tmp_path / "broken.png").write_text("no image")
    with pytest.raises(ValueError, match=r"broken\.png is not an image"):
        image_size(tmp_path / "broken.png")
