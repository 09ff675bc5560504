"""Opening and measuring images: the same answer for a path, bytes and an image in memory."""

import base64
import io
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from convllava.data.images import EncodedImage, open_stored, stored_size
from convllava.eval.table import LoadedImage
from convllava.images import (
    DATA_SET_LIMITS,
    LOCAL_LIMITS,
    SERVER_LIMITS,
    ImageError,
    ImageLimits,
    image_files,
    image_size,
    open_image,
)
from convllava.model import ConvLlavaImageProcessor

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF")


def photograph(width: int = 64, height: int = 192) -> Image.Image:
    """Red above, blue below."""
    image = Image.new("RGB", (width, height), "red")
    image.paste("blue", (0, height // 2, width, height))
    return image


def encoded(image: Image.Image, format: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


def turned(orientation: int, format: str) -> bytes:
    """The photograph as a file that holds it turned, and says so."""
    methods = {
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    method = methods[orientation]
    image = photograph() if method is None else photograph().transpose(method)
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(image, format, exif=exif)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("orientation", range(1, 9))
class TestUpright:
    def test_every_reader_of_sizes_sees_the_image_upright(self, orientation: int, format: str, tmp_path: Path) -> None:
        data = turned(orientation, format)
        path = tmp_path / f"p.{format.lower()}"
        path.write_bytes(data)
        stored = EncodedImage(data, "p", "shard.tar")
        undecoded = Image.open(io.BytesIO(data))
        decoded = Image.open(io.BytesIO(data))
        decoded.load()
        assert [image_size(source) for source in (path, data, undecoded, decoded)] == [(192, 64)] * 4
        assert [stored_size(source) for source in (path, stored, decoded)] == [(192, 64)] * 3
        assert LoadedImage(decoded).size == (192, 64)

    def test_every_opener_shows_the_image_upright(self, orientation: int, format: str, tmp_path: Path) -> None:
        data = turned(orientation, format)
        path = tmp_path / f"p.{format.lower()}"
        path.write_bytes(data)
        sources = [path, str(path), data, io.BytesIO(data), Image.open(io.BytesIO(data))]
        images = [open_image(source) for source in sources]
        images += [open_image(path, lazily=True), open_stored(EncodedImage(data, "p", "shard.tar"))]
        for image in images:
            assert (image.mode, image.size) == ("RGB", (64, 192))
            red, _, blue = image.getpixel((32, 20))
            assert red > 200 > 50 > blue

    @pytest.mark.parametrize("preprocessing", ["exact", "fast"])
    def test_the_image_processor_shows_it_upright(
        self, preprocessing: str, orientation: int, format: str, tmp_path: Path
    ) -> None:
        data = turned(orientation, format)
        (tmp_path / "p").write_bytes(data)
        processor = ConvLlavaImageProcessor(preprocessing=preprocessing)
        for source in (str(tmp_path / "p"), Image.open(io.BytesIO(data))):
            pixels, sizes = processor.prepare([source])
            assert sizes.tolist() == [[192, 64]]
            assert pixels[0, 0, 20, 32] > 1 > 0 > pixels[0, 0, 170, 32]  # red above


class TestOnce:
    def test_an_upright_rgb_image_is_not_copied(self) -> None:
        image = photograph()
        assert open_image(image) is image

    @pytest.mark.parametrize("mode", ["L", "RGBA", "P", "I;16", "F"])
    def test_opening_twice_changes_nothing(self, mode: str) -> None:
        image = Image.new(mode, (8, 8))
        opened = open_image(image)
        assert opened.mode == "RGB"
        assert open_image(opened) is opened

    def test_one_image_is_neither_padded_nor_copied(self) -> None:
        pixels, sizes = ConvLlavaImageProcessor().prepare([photograph(64, 128)])
        (alone,) = ConvLlavaImageProcessor().prepare_each([photograph(64, 128)])
        assert torch.equal(pixels[0], alone) and sizes.tolist() == [[128, 64]]


class TestSources:
    def test_all_forms_of_one_image(self, tmp_path: Path) -> None:
        data = encoded(photograph())
        (tmp_path / "p.png").write_bytes(data)
        text = base64.b64encode(data).decode()
        wrapped = "\n".join(text[start : start + 76] for start in range(0, len(text), 76))
        sources = [
            tmp_path / "p.png",
            str(tmp_path / "p.png"),
            data,
            io.BytesIO(data),
            text,
            f"data:image/png;base64,{text}",
            f"DATA:image/png;charset=utf-8;base64,{wrapped}",
            np.asarray(photograph()),
            torch.from_numpy(np.array(photograph())).permute(2, 0, 1),
        ]
        for source in sources:
            assert np.array_equal(np.asarray(open_image(source)), np.asarray(photograph()))

    @pytest.mark.parametrize("source", ["x" * 80, "x" * 5000, "a/b.png"])
    def test_a_path_is_not_taken_for_base64(self, source: str) -> None:
        with pytest.raises(ImageError, match="does not exist") as caught:
            open_image(source)
        assert caught.value.kind == "missing" and len(str(caught.value)) < 400

    @pytest.mark.parametrize(
        ("url", "kind"),
        [
            ("data:text/html;base64,PGI+", "data_url"),
            ("data:image/png;base64,****", "base64"),
            ("data:image/png;base64,", "empty"),
            ("data:image/png;base64," + "AAAA" * 2000, "unreadable"),
        ],
    )
    def test_a_data_url_that_is_wrong_is_named_in_short(self, url: str, kind: str) -> None:
        with pytest.raises(ImageError) as caught:
            open_image(url)
        assert caught.value.kind == kind and len(str(caught.value)) < 400

    def test_the_error_can_be_handed_between_processes(self) -> None:
        error = ImageError("missing", "a.png", "does not exist")
        copy = pickle.loads(pickle.dumps(error))
        assert (str(copy), copy.kind, copy.name) == (str(error), "missing", "a.png")


class TestLimits:
    @pytest.mark.parametrize(
        ("limits", "allowed"), [(LOCAL_LIMITS, 1000), (DATA_SET_LIMITS, 2000), (ImageLimits(max_pixels=500), 500)]
    )
    @pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
    def test_pixels(self, limits: ImageLimits, allowed: int, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
        fits, large = (encoded(Image.new("RGB", (height, 10))) for height in (allowed // 10, allowed // 10 + 1))
        assert open_image(fits, limits=limits).height == 10
        for read in (open_image, image_size):
            with pytest.raises(ImageError, match=f"at most {allowed} are allowed") as caught:
                read(large, limits=limits)
            assert caught.value.kind == "too_large"

    def test_formats(self) -> None:
        data = encoded(photograph(), "TIFF")
        assert open_image(data).size == (64, 192)
        with pytest.raises(ImageError, match="not an image that can be read") as caught:
            open_image(data, limits=SERVER_LIMITS)
        assert caught.value.kind == "unreadable"

    @pytest.mark.parametrize("limits", [LOCAL_LIMITS, DATA_SET_LIMITS, SERVER_LIMITS])
    def test_no_format_that_runs_other_programs(self, limits: ImageLimits) -> None:
        with pytest.raises(ImageError, match="not an image that can be read"):
            open_image(encoded(photograph(), "EPS"), limits=limits)

    def test_animations(self) -> None:
        data = encoded(photograph(), "GIF", save_all=True, append_images=[Image.new("RGB", (64, 192))])
        assert open_image(data).size == (64, 192)
        with pytest.raises(ImageError, match="is animated"):
            open_image(data, limits=SERVER_LIMITS)


def test_folders_are_walked_in_order(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    for name in ("z.PNG", "b/a.png", "a.jpeg"):
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no image")
    assert [path.relative_to(tmp_path).as_posix() for path in image_files(tmp_path)] == ["a.jpeg", "b/a.png", "z.PNG"]


def test_what_is_wrong_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no images"):
        image_files(tmp_path)
    (tmp_path / "broken.png").write_text("no image")
    with pytest.raises(ValueError, match=r"broken\.png is not an image"):
        image_size(tmp_path / "broken.png")
