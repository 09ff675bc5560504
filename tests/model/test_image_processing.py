"""Shapes, colors and the padded batch."""

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from convllava.images import open_image, to_pil, to_rgb
from convllava.model.image_processing_convllava import (
    ConvLlavaImageProcessor,
    num_image_tokens,
    pad_to_square,
    resized_shape,
)

SIDES = st.integers(1, 4000)


def shape(height: int, width: int, **options: Any) -> tuple[int, int]:
    defaults: dict[str, Any] = {
        "image_aspect_ratio": "native",
        "resolution": None,
        "max_visual_tokens": None,
        "output_stride": 64,
    }
    return resized_shape(height, width, **(defaults | options))


def gradient(height: int = 40, width: int = 60) -> Image.Image:
    """An image in which every pixel, row and column differ."""
    y, x = np.mgrid[0:height, 0:width]
    levels = np.stack([x * 255 // (width - 1), y * 255 // (height - 1), (x + y) * 2 % 256], axis=-1)
    return Image.fromarray(levels.astype(np.uint8))


def grey_gradient() -> Image.Image:
    return gradient().getchannel(0)


def same(image: Image.Image, expected: Image.Image, tolerance: int = 0) -> bool:
    assert image.mode == "RGB"
    assert image.size == expected.size
    difference = np.abs(np.asarray(image, dtype=int) - np.asarray(expected.convert("RGB"), dtype=int))
    return int(difference.max()) <= tolerance


class TestShapes:
    def test_pad_is_a_square_of_the_resolution(self) -> None:
        assert shape(97, 511, image_aspect_ratio="pad", resolution=200) == (200, 200)

    def test_native_scales_the_short_side_and_cuts_the_long_one_to_a_pixel(self) -> None:
        assert shape(200, 320, resolution=256) == (256, 409)
        assert shape(320, 200, resolution=256) == (409, 256)

    @pytest.mark.parametrize(
        ("size", "expected"),
        [
            ((31, 33), (64, 64)),
            ((96, 95), (128, 64)),
            ((32, 192), (64, 384)),
            ((1, 4000), (64, 16000)),
            ((64, 192), (64, 192)),
        ],
    )
    def test_without_resolution_sides_go_to_the_nearest_cell(
        self, size: tuple[int, int], expected: tuple[int, int]
    ) -> None:
        assert shape(*size) == expected

    def test_a_budget_that_fits_changes_nothing(self) -> None:
        assert shape(200, 320, resolution=256, max_visual_tokens=24) == (256, 409)
        assert shape(200, 320, resolution=256, max_visual_tokens=23) == (256, 320)

    def test_a_budget_under_pad_gives_the_largest_square(self) -> None:
        assert shape(10, 20, image_aspect_ratio="pad", resolution=1536, max_visual_tokens=143) == (704, 704)

    def test_elongated_images_keep_one_cell_a_side(self) -> None:
        assert shape(1, 4000, resolution=64, max_visual_tokens=10) == (64, 640)
        assert shape(4000, 1, max_visual_tokens=1) == (64, 64)

    @pytest.mark.parametrize(
        ("size", "fewest", "expected"),
        [
            ((130, 130), 4, (128, 128)),  # it has as many
            ((50, 130), 12, (128, 384)),
            ((130, 50), 12, (384, 128)),
            ((100, 100), 9, (192, 192)),
            ((10, 10), 100, (64, 64)),  # at most four times as large
            ((1, 4000), 100, (64, 16000)),
        ],
    )
    def test_a_small_image_is_enlarged_to_the_fewest_tokens(
        self, size: tuple[int, int], fewest: int, expected: tuple[int, int]
    ) -> None:
        assert shape(*size, min_visual_tokens=fewest) == expected

    def test_enlarging_keeps_squares_and_the_largest_number_of_tokens(self) -> None:
        padded: dict[str, Any] = {"image_aspect_ratio": "pad", "resolution": 128}
        assert shape(100, 200, **padded, min_visual_tokens=10) == (256, 256)
        assert shape(1000, 2000, resolution=128, min_visual_tokens=40) == (320, 640)
        assert shape(50, 130, min_visual_tokens=12, max_visual_tokens=6) == (64, 192)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"image_aspect_ratio": "anyres"}, r"image_aspect_ratio .*'pad', 'native', got 'anyres'"),
            ({"image_aspect_ratio": "pad"}, "'pad' needs a resolution"),
            ({"resolution": 63}, "resolution is at least .* 64, got 63"),
            ({"max_visual_tokens": 0}, "max_visual_tokens is at least 1.*got 0"),
            ({"min_visual_tokens": 0}, "min_visual_tokens is at least 1.*got 0"),
        ],
    )
    def test_wrong_options_name_themselves(self, options: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            shape(100, 100, **options)

    def test_a_thin_image_is_not_blown_up_to_gigabytes(self) -> None:
        with pytest.raises(ValueError, match=r"4000x1 .*max_visual_tokens"):
            shape(1, 4000, resolution=512)

    @settings(max_examples=200, deadline=None)
    @given(
        height=SIDES,
        width=SIDES,
        policy=st.sampled_from(["pad", "native"]),
        resolution=st.one_of(st.none(), st.integers(64, 700)),
        budget=st.integers(1, 400),
        stride=st.sampled_from([16, 32, 64]),
    )
    def test_any_image_fits_any_budget(
        self, height: int, width: int, policy: str, resolution: int | None, budget: int, stride: int
    ) -> None:
        if policy == "pad" and resolution is None:
            resolution = stride
        options: dict[str, Any] = {
            "image_aspect_ratio": policy,
            "resolution": resolution,
            "output_stride": stride,
        }
        shown = shape(height, width, **options, max_visual_tokens=budget)
        tokens = num_image_tokens(*shown, stride)
        assert 1 <= tokens <= budget
        try:
            free = shape(height, width, **options)
        except ValueError:  # without a budget this one would be too large
            return
        assert shown[0] <= free[0] and shown[1] <= free[1]
        if num_image_tokens(*free, stride) <= budget:
            assert shown == free
        else:
            assert shown[0] % stride == shown[1] % stride == 0

    @settings(deadline=None)
    @given(height=st.integers(64, 2000), width=st.integers(64, 2000), budget=st.integers(1, 99))
    def test_no_grid_within_the_budget_is_sharper(self, height: int, width: int, budget: int) -> None:
        """Sharpness is the scale of the more shrunken side."""
        rows, columns = (side // 64 for side in shape(height, width, resolution=1280, max_visual_tokens=budget))
        best = max(min(r / height, (budget // r) / width) for r in range(1, budget + 1))
        # the budget is applied to the resized shape, whose sides of 1280 and more are rounded to whole pixels
        assert min(rows / height, columns / width) == pytest.approx(best, rel=1 / 1280)

    def test_a_budget_keeps_the_aspect_ratio_near(self) -> None:
        assert shape(1000, 2000, resolution=1280, max_visual_tokens=200) == (640, 1280)
        assert shape(1019, 1010, resolution=1280, max_visual_tokens=120) == (704, 640)


class TestColors:
    @pytest.mark.parametrize("mode", ["L", "1", "P", "RGBA", "LA", "CMYK", "YCbCr", "HSV", "RGBX"])
    def test_modes_keep_their_colors(self, mode: str) -> None:
        original = gradient().convert(mode)
        tolerance = 4 if mode in ("YCbCr", "HSV") else 0
        assert same(to_rgb(original), original.convert("RGB"), tolerance)

    def test_greyscale_of_16_bits_is_scaled_not_clipped(self) -> None:
        grey = grey_gradient()
        deep = np.asarray(grey).astype(np.uint16) * 257
        assert same(to_rgb(Image.fromarray(deep)), grey)
        assert same(to_rgb(Image.fromarray(deep.astype(np.int32))), grey)

    def test_16_bit_png_from_a_file(self, tmp_path: Path) -> None:
        grey = grey_gradient()
        Image.fromarray(np.asarray(grey).astype(np.uint16) * 257).save(tmp_path / "deep.png")
        assert same(to_rgb(open_image(tmp_path / "deep.png")), grey)

    def test_fractions_of_brightness(self) -> None:
        grey = grey_gradient()
        assert same(to_rgb(Image.fromarray(np.asarray(grey, dtype=np.float32) / 255)), grey)

    @pytest.mark.parametrize("mode", ["RGBA", "LA", "RGBa"])
    def test_transparent_parts_are_white(self, mode: str) -> None:
        image = Image.new("RGBA", (2, 1), (0, 0, 0, 255))
        image.putpixel((1, 0), (0, 0, 0, 0))
        shown = to_rgb(image.convert("RGBA" if mode == "RGBA" else mode))
        assert [shown.getpixel((x, 0)) for x in (0, 1)] == [(0, 0, 0), (255, 255, 255)]

    def test_half_transparent_red_is_pink(self) -> None:
        assert to_rgb(Image.new("RGBA", (1, 1), (255, 0, 0, 128))).getpixel((0, 0)) == (255, 127, 127)

    def test_a_palette_with_a_transparent_color(self, tmp_path: Path) -> None:
        image = Image.new("P", (2, 1))
        image.putpalette([0, 0, 0, 200, 0, 0])
        image.putpixel((1, 0), 1)
        image.save(tmp_path / "palette.png", transparency=0)
        shown = to_rgb(open_image(tmp_path / "palette.png"))
        assert [shown.getpixel((x, 0)) for x in (0, 1)] == [(255, 255, 255), (200, 0, 0)]

    @pytest.mark.parametrize(("mode", "black"), [("L", 0), ("RGB", (0, 0, 0))])
    def test_a_transparent_color_without_alpha(self, tmp_path: Path, mode: str, black: Any) -> None:
        Image.new(mode, (2, 2), black).save(tmp_path / "keyed.png", transparency=black)
        assert to_rgb(open_image(tmp_path / "keyed.png")).getpixel((0, 0)) == (255, 255, 255)

    def test_cmyk_jpeg(self, tmp_path: Path) -> None:
        original = Image.new("RGB", (32, 32), (200, 60, 30))
        original.convert("CMYK").save(tmp_path / "print.jpg", quality=95)
        assert same(to_rgb(open_image(tmp_path / "print.jpg")), original, tolerance=6)

    def test_exif_orientation_is_applied(self, tmp_path: Path) -> None:
        original = gradient()
        exif = Image.Exif()
        exif[0x0112] = 6  # the camera was turned: show it a quarter turn clockwise
        original.save(tmp_path / "turned.png", exif=exif)
        assert same(to_rgb(open_image(tmp_path / "turned.png")), original.transpose(Image.Transpose.ROTATE_270))

    def test_animated_images_show_their_first_frame(self, tmp_path: Path) -> None:
        first, second = (Image.new("RGB", (8, 8), color) for color in ("red", "blue"))
        first.save(tmp_path / "moving.gif", save_all=True, append_images=[second])
        assert to_rgb(open_image(tmp_path / "moving.gif")).getpixel((0, 0)) == (255, 0, 0)

    def test_a_mode_without_colors_says_so(self) -> None:
        with pytest.raises(ValueError, match="mode La: save it as RGB"):
            to_rgb(Image.new("La", (2, 2)))


class TestArrays:
    @pytest.mark.parametrize("layout", ["HWC", "CHW"])
    @pytest.mark.parametrize("kind", ["uint8", "uint16", "float32", "int64", "torch", "torch-half"])
    def test_arrays_and_tensors(self, layout: str, kind: str) -> None:
        original = gradient()
        levels: Any = np.asarray(original)
        if layout == "CHW":
            levels = levels.transpose(2, 0, 1)
        if kind == "uint16":
            levels = levels.astype(np.uint16) * 257
        elif kind == "float32":
            levels = levels / np.float32(255)
        elif kind == "int64":
            levels = levels.astype(np.int64)
        elif kind == "torch":
            levels = torch.tensor(levels)
        elif kind == "torch-half":
            levels = torch.tensor(levels / 255).to(torch.bfloat16)
        assert same(to_rgb(to_pil(levels)), original, tolerance=1 if kind == "torch-half" else 0)

    def test_grey_and_bits(self) -> None:
        grey = np.asarray(grey_gradient())
        assert same(to_rgb(to_pil(grey)), grey_gradient())
        assert same(to_rgb(to_pil(grey[..., None])), grey_gradient())
        assert to_rgb(to_pil(grey > 100)).getpixel((59, 0)) == (255, 255, 255)

    @pytest.mark.parametrize(
        ("value", "message"),
        [
            (np.zeros((5, 6, 7)), r"shape .*got \(5, 6, 7\)"),
            (np.zeros((0, 3)), r"got \(0, 3\)"),
            (np.full((2, 2), 300), "from 0 to 255, got 300"),
            (np.full((2, 2), 255.0), "from 0 to 1, got 255"),
            ("cat.png", "got str"),
        ],
    )
    def test_what_is_no_image(self, value: Any, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            to_rgb(to_pil(value))


class TestSources:
    def test_base64_and_data_urls(self, tmp_path: Path) -> None:
        image = gradient()
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        text = base64.b64encode(buffer.getvalue()).decode()
        assert same(open_image(text), image)
        assert same(open_image(f"data:image/png;base64,{text}"), image)

    def test_missing_file(self) -> None:
        with pytest.raises(ValueError, match=r"nowhere\.png does not exist"):
            open_image("nowhere.png")

    @pytest.mark.parametrize("content", [b"", b"not an image"])
    def test_not_an_image(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "note.png").write_bytes(content)
        with pytest.raises(ValueError, match=r"note\.png is (empty|not an image)"):
            open_image(tmp_path / "note.png")

    def test_truncated_file(self, tmp_path: Path) -> None:
        path = tmp_path / "cut.jpg"
        gradient(300, 400).save(path)
        path.write_bytes(path.read_bytes()[:2000])
        with pytest.raises(ValueError, match=r"cut\.jpg is damaged .*truncated"):
            ConvLlavaImageProcessor()(str(path))

    def test_truncated_image_that_was_opened_elsewhere(self, tmp_path: Path) -> None:
        path = tmp_path / "cut.jpg"
        gradient(300, 400).save(path)
        path.write_bytes(path.read_bytes()[:2000])
        with Image.open(path) as image, pytest.raises(ValueError, match=r"image of 400x300 .*truncated"):
            ConvLlavaImageProcessor()(image)

    def test_decompression_bomb(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        gradient().save(tmp_path / "bomb.png")
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
        with pytest.raises(ValueError, match=r"bomb\.png is too large to open safely"):
            open_image(tmp_path / "bomb.png")


class TestBatch:
    def test_padding_is_zero_and_sizes_are_true(self) -> None:
        batch = ConvLlavaImageProcessor()([gradient(70, 200), gradient(130, 60)], return_tensors="pt")
        assert batch["pixel_values"].shape == (2, 3, 128, 192)
        assert batch["pixel_values"].dtype == torch.float32
        assert batch["image_sizes"].tolist() == [[64, 192], [128, 64]]
        assert batch["image_sizes"].dtype == torch.int64
        assert not batch["pixel_values"][0, :, 64:].any()
        assert not batch["pixel_values"][1, :, :, 64:].any()

    def test_each_image_is_prepared_as_if_alone(self) -> None:
        processor = ConvLlavaImageProcessor(resolution=80)
        images = [gradient(70, 200), gradient(130, 60)]
        together = processor(images)
        for index, image in enumerate(images):
            height, width = together["image_sizes"][index].tolist()
            alone = processor(image)["pixel_values"][0]
            assert alone.equal(together["pixel_values"][index, :, :height, :width])

    def test_values_are_clip_normalized(self) -> None:
        values = ConvLlavaImageProcessor()(Image.new("RGB", (64, 64), (255, 0, 128)))["pixel_values"]
        expected = [
            (1 - 0.48145466) / 0.26862954,
            -0.4578275 / 0.26130258,
            (128 / 255 - 0.40821073) / 0.27577711,
        ]
        torch.testing.assert_close(values[0, :, 5, 5], torch.tensor(expected))

    def test_padded_square_has_the_mean_color_at_integer_offsets(self) -> None:
        square = pad_to_square(Image.new("RGB", (10, 7), "red"), (122, 116, 104))
        levels = np.asarray(square)
        assert square.size == (10, 10)
        assert (levels[:1] == (122, 116, 104)).all()
        assert (levels[1:8] == (255, 0, 0)).all()
        assert (levels[8:] == (122, 116, 104)).all()

    def test_options_of_a_call(self) -> None:
        processor = ConvLlavaImageProcessor(image_aspect_ratio="pad", resolution=128)
        image = gradient(70, 200)
        assert processor(image)["image_sizes"].tolist() == [[128, 128]]
        assert processor(image, image_aspect_ratio="native")["image_sizes"].tolist() == [[128, 365]]
        own = processor(image, image_aspect_ratio="native", resolution=None, max_visual_tokens=2)
        assert own["image_sizes"].tolist() == [[64, 128]]
        assert processor(image)["image_sizes"].tolist() == [[128, 128]]

    def test_misspelled_option(self) -> None:
        with pytest.raises(ValueError, match="'resoluton'; did you mean 'resolution'"):
            ConvLlavaImageProcessor()(gradient(), resoluton=128)

    def test_unknown_policy_at_construction(self) -> None:
        with pytest.raises(ValueError, match="'anyres'"):
            ConvLlavaImageProcessor(image_aspect_ratio="anyres")

    def test_no_images(self) -> None:
        pixel_values, image_sizes = ConvLlavaImageProcessor().prepare([])
        assert pixel_values.shape == (0, 3, 0, 0)
        assert image_sizes.shape == (0, 2)

    def test_numpy_output(self) -> None:
        batch = ConvLlavaImageProcessor()(gradient(), return_tensors="np")
        assert isinstance(batch["pixel_values"], np.ndarray)

    def test_round_trip(self, tmp_path: Path) -> None:
        processor = ConvLlavaImageProcessor(output_stride=32, resolution=96, max_visual_tokens=5)
        processor.save_pretrained(tmp_path)
        loaded = ConvLlavaImageProcessor.from_pretrained(tmp_path)
        assert loaded.to_dict() == processor.to_dict()
        image = gradient(70, 200)
        assert loaded(image)["pixel_values"].equal(processor(image)["pixel_values"])
