"""Damaged and invented image files: opened, or refused with an ImageError that names the file; the same on every road.

The long form: ``CONVLLAVA_FUZZ_CASES=20000 pytest -m slow tests/fuzz/test_images.py``.
"""

import io
import os
import random
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convllava.data.images import open_stored, stored_size
from convllava.images import SERVER_LIMITS, ImageError, image_size, open_image
from convllava.inference import open_image as open_as_user
from convllava.model import ConvLlavaImageProcessor

CASES = int(os.environ.get("CONVLLAVA_FUZZ_CASES", "400"))
SECONDS_PER_CASE = 20

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM", "ICO", "MPO", "PDF", "EPS")
MODES = {"GIF": ("P",), "BMP": ("RGB", "L"), "PPM": ("RGB", "L"), "JPEG2000": ("RGB", "RGBA"), "ICO": ("RGBA",)}
MODES |= dict.fromkeys(("JPEG", "MPO", "PDF", "EPS"), ("RGB", "L"))


def seed_file(format: str, source: random.Random) -> bytes:
    levels = np.random.default_rng(source.randrange(1 << 30)).integers(0, 256, (24, 36, 4), dtype=np.uint8)
    mode = source.choice(MODES.get(format, ("RGB", "RGBA", "L", "P")))
    image = (
        Image.fromarray(levels).convert("RGB").convert(mode) if mode == "P" else Image.fromarray(levels).convert(mode)
    )
    options: dict[str, object] = {}
    if format in ("JPEG", "PNG", "WEBP", "TIFF", "AVIF", "MPO"):
        exif = Image.Exif()
        exif[0x0112] = source.randrange(1, 9)
        options["exif"] = exif
    if format in ("GIF", "TIFF", "PNG", "WEBP") and source.random() < 0.3:
        options |= {"save_all": True, "append_images": [image.copy()]}
    if format == "TIFF":
        options["compression"] = source.choice([None, "tiff_lzw", "tiff_adobe_deflate", "packbits"])
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


def spoiled(data: bytes, source: random.Random) -> bytes:
    """Change, cut, repeat or exchange bytes; mostly near the beginning, where the structure is."""
    broken = bytearray(data)
    for _ in range(source.randrange(1, 8)):
        end = len(broken) if source.random() < 0.4 else min(len(broken), 200)
        if not end:
            break
        place = source.randrange(end)
        match source.randrange(6):
            case 0 | 1:
                broken[place] = source.randrange(256)
            case 2:
                broken[place : place + 4] = source.choice([b"\xff" * 4, bytes(4), b"\x7f\xff\xff\xff", b"\0\0\0\1"])
            case 3:
                del broken[place : place + source.randrange(1, 40)]
            case 4:
                broken[place:place] = broken[place : place + source.randrange(1, 40)]
            case 5:
                del broken[max(place, 8) :]
    return bytes(broken)


def outcome(read: Callable[[], object], path: Path) -> tuple[int, int] | None:
    """(height, width), or None for a refusal, which must name the file in one line."""
    try:
        found = read()
    except ImageError as error:
        assert str(path) in str(error) and "BytesIO" not in str(error), error
        return None
    except ValueError as error:
        assert str(path) in str(error), error  # a damaged PDF
        return None
    return (found.height, found.width) if isinstance(found, Image.Image) else found  # type: ignore[return-value]


@pytest.mark.slow
@pytest.mark.parametrize("format", FORMATS)
def test_damaged_files(format: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # no other program can be started
    source = random.Random(f"{format} 1")
    processors = [ConvLlavaImageProcessor(preprocessing=preprocessing) for preprocessing in ("exact", "fast")]
    path = tmp_path / "p.png"
    opened = 0
    for case in range(CASES // len(FORMATS) + 1):
        path.write_bytes(spoiled(seed_file(format, source), source))
        start = time.monotonic()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            measured = outcome(lambda: image_size(path), path)
            shown = outcome(lambda: open_image(path), path)
            assert outcome(lambda: open_stored(path), path) == shown, case
            assert outcome(lambda: stored_size(path), path) == measured, case
            as_user = outcome(lambda: open_as_user(path), path)
            assert format == "PDF" or as_user == shown, case
            if shown is not None:
                opened += 1
                assert shown == measured, case
            for processor in processors:
                try:
                    pixels, _ = processor.prepare([str(path)])
                    assert pixels.isfinite().all() and shown is not None, case
                except ValueError as error:
                    assert shown is None or "becomes" in str(error), (case, error)
            try:
                open_image(path.read_bytes(), name=str(path), limits=SERVER_LIMITS)
            except ImageError as error:
                assert str(path) in str(error)
        assert time.monotonic() - start < SECONDS_PER_CASE, case
    assert opened == 0 or format not in ("EPS", "PDF")
