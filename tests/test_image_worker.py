"""The process that decodes images for a server: its results are those of the processor in this process."""

import base64
import json
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from convllava.image_worker import read_message, write_message
from convllava.model import ConvLlavaImageProcessor

Ask = Callable[..., tuple[dict[str, Any], bytes]]


@pytest.fixture(scope="module")
def ask() -> Iterator[Ask]:
    """A worker, and a way to ask it."""
    command = [sys.executable, "-m", "convllava.image_worker"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def asked(data: bytes, *, is_data_url: bool = False, **order: Any) -> tuple[dict[str, Any], bytes]:
        assert process.stdin is not None and process.stdout is not None
        write_message(process.stdin, {"max_pixels": 1 << 22, "is_data_url": is_data_url, **order}, data)
        return read_message(process.stdout)

    yield asked
    process.communicate()


def photo(width: int, height: int) -> Image.Image:
    """Smooth colors, as JPEG is made for."""
    x, y = np.meshgrid(np.linspace(0, 7, width), np.linspace(0, 5, height))
    levels = np.stack([np.sin(x), np.cos(y), np.sin(x + y)], axis=-1)
    return Image.fromarray((127 + 127 * levels).astype(np.uint8))


def jpeg(image: Image.Image, **options: Any) -> bytes:
    stream = BytesIO()
    image.save(stream, "JPEG", **options)
    return stream.getvalue()


@pytest.mark.parametrize("escaped", [False, True])
def test_data_urls_as_they_are_in_json(ask: Ask, escaped: bool) -> None:
    url = "data:image/jpeg;base64," + base64.b64encode(jpeg(photo(64, 48))).decode()
    text = url.replace("/", "\\/") if escaped else url
    assert json.loads(f'"{text}"') == url
    head, _ = ask(text.encode(), is_data_url=True, work="measure")
    assert head == {"size": [48, 64]}


@pytest.mark.parametrize("text", [b"data:image/png;base64,\\x", "data:image/png;base64,ä".encode(), b"data:,", b""])
def test_data_urls_that_are_none(ask: Ask, text: bytes) -> None:
    head, _ = ask(text, is_data_url=True, work="measure")
    assert head["error"][0] in ("data_url", "base64")


@pytest.mark.parametrize("size", [(1600, 1200), (400, 1000), (150, 130)])
@pytest.mark.parametrize(
    "options",
    [
        {"image_aspect_ratio": "native", "resolution": None, "max_visual_tokens": 12},
        {"image_aspect_ratio": "native", "resolution": 128},
        {"image_aspect_ratio": "pad", "resolution": 128},
    ],
)
def test_reduced_jpegs_become_what_fast_preprocessing_shows(
    ask: Ask, tmp_path: Path, size: tuple[int, int], options: dict[str, Any]
) -> None:
    processor = ConvLlavaImageProcessor(preprocessing="fast", **options)
    data = jpeg(photo(*size))
    (tmp_path / "a.jpg").write_bytes(data)
    (expected,) = processor.prepare_each([str(tmp_path / "a.jpg")])
    full = (size[1], size[0])
    shape, ratio = processor.resized_shape(*full), options["image_aspect_ratio"]
    form = {"least": processor.least_size(full, shape, ratio)}
    head, levels = ask(data, work="decode", form=form)
    height, width = head["size"]
    if size == (1600, 1200):
        assert height < full[0]  # it was reduced
    image = Image.frombytes("RGB", (width, height), levels)
    assert torch.equal(processor.to_pixels_fast(image, full, shape, ratio), expected)


def test_turned_jpegs_are_not_reduced(ask: Ask) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = jpeg(photo(800, 600), exif=exif.tobytes())
    assert ask(data, work="measure")[0] == {"size": [800, 600]}
    assert ask(data, work="decode", form={"least": [80, 60]})[0] == {"size": [800, 600]}


def test_a_header_that_takes_too_long(ask: Ask) -> None:
    stream = BytesIO()
    photo(64, 64).save(stream, "PNG")
    data, empty = stream.getvalue(), b"\0\0\0\0teSt" + zlib.crc32(b"teSt").to_bytes(4, "big")
    head, _ = ask(data[:33] + empty * 1_000_000 + data[33:], work="measure")
    assert head["error"][1].startswith("has a header that takes too long")
    assert ask(data, work="measure")[0] == {"size": [64, 64]}
