"""Orientation and transparency: what is measured is what is shown, and nothing visible vanishes."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from convllava.images import image_size, open_image
from convllava.model import ConvLlavaImageProcessor

MODES = {
    "JPEG": ("RGB", "L", "CMYK"),
    "MPO": ("RGB",),
    "PNG": ("RGB", "L", "LA", "RGBA", "P", "I;16"),
    "WEBP": ("RGB", "RGBA"),
    "TIFF": ("RGB", "L", "RGBA", "P", "CMYK", "I;16"),
    "AVIF": ("RGB", "RGBA"),
}
CASES = [(format, mode) for format, modes in MODES.items() for mode in modes]

BROKEN_EXIF = {
    "byte order": b"Exif\0\0MM\0\x2a\0\0\0\x08\0\1\1\x12\0\3\0\0\0\1\0\6\0\0\0\0\0\0"[:10] + bytes(30),
    "garbage": b"Exif\0\0" + bytes(range(100, 140)),
    "cut": b"Exif\0\0I",
}


def in_mode(mode: str, width: int = 96, height: int = 32) -> Image.Image:
    """A bright left half, a dark right half."""
    image = Image.new("L", (width, height), 250)
    image.paste(10, (width // 2, 0, width, height))
    if mode == "I;16":
        return Image.fromarray(np.asarray(image).astype(np.uint16) << 8)
    if mode == "P":
        return image.convert("RGB").quantize(8)
    return image.convert("RGB").convert(mode) if mode != "LA" else image.convert("LA")


def saved(image: Image.Image, format: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


def exif_of(orientation: object) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def png_chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def with_late_chunk(png: bytes, name: bytes, data: bytes) -> bytes:
    return png[:-12] + png_chunk(name, data) + png[-12:]


@pytest.mark.parametrize(("format", "mode"), CASES)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_size_of_the_header_is_the_size_of_the_pixels(
    format: str, mode: str, orientation: int, tmp_path: Path
) -> None:
    path = tmp_path / "p"
    path.write_bytes(saved(in_mode(mode), format, exif=exif_of(orientation)))
    expected = (96, 32) if orientation >= 5 else (32, 96)
    undecoded, decoded = Image.open(path), Image.open(io.BytesIO(path.read_bytes()))
    decoded.load()
    for source in (path, path.read_bytes(), undecoded, decoded):
        assert image_size(source) == expected
    for source in (path, path.read_bytes(), undecoded, decoded):
        opened = open_image(source)
        assert np.array_equal(np.asarray(opened), np.asarray(open_image(path)))
        assert (opened.height, opened.width) == expected
        assert open_image(opened) is opened and image_size(opened) == expected
    for preprocessing in ("exact", "fast"):
        processor = ConvLlavaImageProcessor(preprocessing=preprocessing)
        for source in (str(path), undecoded, decoded):
            _, sizes = processor.prepare([source])
            assert tuple(sizes[0].tolist()) == processor.resized_shape(*expected)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        (b"eXIf", exif_of(6).tobytes()[6:]),
        (b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + b'<x tiff:Orientation="6"/>'),
    ],
)
def test_metadata_behind_the_pixels_of_a_png(name: bytes, data: bytes) -> None:
    png = with_late_chunk(saved(in_mode("RGB"), "PNG"), name, data)
    image = Image.open(io.BytesIO(png))
    assert image_size(png) == image_size(image) == (96, 32)
    opened = open_image(png)
    assert opened.size == (32, 96) and open_image(opened) is opened
    assert open_image(image).size == (32, 96)


def test_other_text_behind_the_pixels_is_not_decoded_for() -> None:
    png = with_late_chunk(saved(in_mode("RGB"), "PNG"), b"tEXt", b"date:create\0today and tomorrow, and so on")
    image = Image.open(io.BytesIO(png))
    assert image_size(image) == (32, 96) and image.tile  # still undecoded
    assert open_image(image).size == (96, 32)


@pytest.mark.parametrize("broken", BROKEN_EXIF.values(), ids=BROKEN_EXIF)
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
def test_broken_exif_data_means_unrotated(format: str, broken: bytes, tmp_path: Path) -> None:
    path = tmp_path / "p"
    path.write_bytes(saved(in_mode("RGB"), format, exif=broken))
    assert image_size(path) == (32, 96)
    assert open_image(path).size == (96, 32)
    for preprocessing in ("exact", "fast"):
        _, sizes = ConvLlavaImageProcessor(preprocessing=preprocessing).prepare([str(path)])
        assert sizes.tolist() == [[64, 128]] or sizes.tolist() == [[64, 192]]


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_an_unknown_orientation_means_unrotated(value: int) -> None:
    data = saved(in_mode("RGB"), "JPEG", exif=exif_of(value))
    assert image_size(data) == (32, 96) and open_image(data).size == (96, 32)


def drawing(ink: tuple[int, int, int], ground: int = 0, opacity: int = 255) -> Image.Image:
    image = Image.new("RGBA", (160, 48), (ground, ground, ground, 0))
    ImageDraw.Draw(image).text((8, 8), "12:50", fill=(*ink, opacity), font_size=30)
    return image


class TestTransparentGround:
    @pytest.mark.parametrize("ink", [(255, 255, 255), (255, 255, 0), (200, 200, 200)])
    @pytest.mark.parametrize("ground", [0, 255])
    @pytest.mark.parametrize(
        ("format", "mode"), [("PNG", "RGBA"), ("PNG", "LA"), ("PNG", "P"), ("WEBP", "RGBA"), ("AVIF", "RGBA")]
    )
    def test_pale_ink_is_shown_on_black(self, ink: tuple[int, int, int], ground: int, format: str, mode: str) -> None:
        image = drawing(ink, ground)
        image = image.quantize(16) if mode == "P" else image.convert(mode)
        shown = np.asarray(open_image(saved(image, format)).convert("L")).astype(int)
        assert shown[0, 0] < 8 and shown.max() - shown.min() > 150

    @pytest.mark.parametrize("ink", [(0, 0, 0), (150, 150, 150), (255, 0, 0), (0, 0, 255)])
    def test_any_other_ink_is_shown_on_white(self, ink: tuple[int, int, int]) -> None:
        image = drawing(ink)
        white = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
        assert np.array_equal(np.asarray(open_image(image)), np.asarray(white))

    def test_a_dark_mark_among_pale_ones_is_still_seen(self) -> None:
        image = drawing((255, 255, 255))
        image.paste((0, 0, 0, 255), (150, 4, 154, 8))
        assert open_image(image).getpixel((0, 0)) == (255, 255, 255)

    def test_a_pale_watermark_is_shown_on_black(self) -> None:
        assert open_image(drawing((255, 255, 255), opacity=90)).getpixel((0, 0)) == (0, 0, 0)

    def test_nothing_visible_is_white(self) -> None:
        assert open_image(Image.new("RGBA", (8, 8), (0, 0, 0, 0))).getpixel((0, 0)) == (255, 255, 255)

    def test_an_opaque_image_is_unchanged(self) -> None:
        image = in_mode("RGBA")
        assert np.array_equal(np.asarray(open_image(image)), np.asarray(image.convert("RGB")))
