"""The image processor: images of any size and mode become one padded batch.

Reading order: shapes (pure arithmetic), options of a call, the processor.

Shapes: N images, (height, width) in pixels; a grid is (rows, columns) of visual tokens.
"""

import math
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers.image_processing_backends import PilBackend
from transformers.image_processing_utils import BatchFeature
from transformers.image_utils import make_flat_list_of_images
from transformers.processing_utils import ImagesKwargs

from ..image_conversion import pad_to_square
from ..image_options import IMAGE_OPTIONS, check_aspect_ratio
from ..images import open_image
from ..support import did_you_mean
from .fast_image_processing import decode, in_threads, least_size, normalize_into, resize, resize_padded

PREPROCESSING = ("exact", "fast")

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)

MAX_RESIZED_PIXELS = 1 << 27
"""Largest number of pixels in one resized image (128 Mi, 32768 visual tokens at stride 64).

With its short side scaled up to the resolution, an image 1 pixel high and 4000 wide would otherwise need gigabytes
before its tokens are counted.
"""


MOST_ENLARGED = 4.0
"""Factor by which a small image is enlarged, at most: one thinner than a visual token, or below `min_visual_tokens`.

A line of text 32 pixels high fills the 64 pixels of a token undistorted, and a line one pixel high stays short.
"""


def num_image_tokens(height: int, width: int, output_stride: int) -> int:
    """Return the number of visual tokens of an image with this resized shape."""
    return (height // output_stride) * (width // output_stride)


def resized_shape(
    height: int,
    width: int,
    *,
    image_aspect_ratio: str,
    resolution: int | None,
    max_visual_tokens: int | None,
    output_stride: int,
    min_visual_tokens: int | None = None,
) -> tuple[int, int]:
    """Return the (height, width) at which an image is shown to the vision encoder.

    Args:
        height: Height of the original image in pixels.
        width: Width of the original image in pixels.
        image_aspect_ratio: "pad" (a square) or "native" (the image's own).
        resolution: Side of the square under "pad", short side under "native". None (native only) keeps the
            image's own size, each side rounded to the nearest multiple of the stride; an image thinner
            than one visual token is enlarged first, keeping its shape, at most fourfold.
        max_visual_tokens: Most tokens of one image. Applied last; a shape that fits is unchanged.
        output_stride: Pixels per visual token and side.
        min_visual_tokens: Tokens up to which a shape with fewer is enlarged, at most fourfold along each side.

    Raises:
        ValueError: An option is out of range, or the shape is larger than ``MAX_RESIZED_PIXELS``.
    """
    _check_options(height, width, image_aspect_ratio, resolution, (min_visual_tokens, max_visual_tokens), output_stride)
    if image_aspect_ratio == "pad" and resolution is not None:  # checked to be set
        shape = (resolution, resolution)
    elif resolution is None:
        shape = _original_shape(height, width, output_stride)
    else:
        shape = _with_short_side(height, width, resolution)
    if min_visual_tokens is not None and num_image_tokens(*shape, output_stride) < min_visual_tokens:
        sides = (max(height, width),) * 2 if image_aspect_ratio == "pad" else (height, width)
        enlarged = _enlarged(*sides, min_visual_tokens, output_stride)
        if num_image_tokens(*enlarged, output_stride) > num_image_tokens(*shape, output_stride):
            shape = enlarged
    if max_visual_tokens is not None and num_image_tokens(*shape, output_stride) > max_visual_tokens:
        shape = _within_budget(*shape, max_visual_tokens, output_stride, square=image_aspect_ratio == "pad")
    if shape[0] * shape[1] > MAX_RESIZED_PIXELS:
        raise ValueError(
            f"an image of {width}x{height} pixels becomes {shape[1]}x{shape[0]}, more than the "
            f"{MAX_RESIZED_PIXELS} pixels allowed: lower resolution or set max_visual_tokens"
        )
    return shape


def _check_options(
    height: int,
    width: int,
    image_aspect_ratio: str,
    resolution: int | None,
    budgets: tuple[int | None, int | None],
    output_stride: int,
) -> None:
    if height < 1 or width < 1:
        raise ValueError(f"an image has at least one pixel a side, got {width}x{height}")
    check_aspect_ratio(image_aspect_ratio)
    if resolution is None and image_aspect_ratio == "pad":
        raise ValueError("image_aspect_ratio='pad' needs a resolution (the side of the square in pixels), got None")
    if resolution is not None and resolution < output_stride:
        raise ValueError(f"resolution is at least the output stride of {output_stride}, got {resolution}")
    for name, budget in zip(("min_visual_tokens", "max_visual_tokens"), budgets, strict=True):
        if budget is not None and budget < 1:
            raise ValueError(f"{name} is at least 1, or None for no limit, got {budget}")


def _nearest_multiple(length: int, unit: int) -> int:
    return max(1, (length + unit // 2) // unit) * unit


def _original_shape(height: int, width: int, stride: int) -> tuple[int, int]:
    scale = min(max(stride / min(height, width), 1.0), MOST_ENLARGED)
    return _nearest_multiple(round(height * scale), stride), _nearest_multiple(round(width * scale), stride)


def _with_short_side(height: int, width: int, resolution: int) -> tuple[int, int]:
    """Scale the short side to ``resolution``; the long one is cut to a whole pixel, as in CLIP's resize."""
    short, long = sorted((height, width))
    scaled = int(resolution * long / short)
    return (resolution, scaled) if height <= width else (scaled, resolution)


def _enlarged(height: int, width: int, budget: int, stride: int) -> tuple[int, int]:
    """Return the smallest shape near the aspect ratio, in multiples of the stride, of at least ``budget`` tokens.

    It is at most four times as large as the image along each side, and then may have fewer.
    """
    longest = max(height, width)
    for length in range(1, max(1, int(MOST_ENLARGED * longest) // stride) + 1):
        scale = length / longest
        rows, columns = (max(1, round(side * scale)) for side in (height, width))
        if rows * columns >= budget:
            break
    return rows * stride, columns * stride


def _within_budget(height: int, width: int, budget: int, stride: int, *, square: bool) -> tuple[int, int]:
    """Return the largest shape near the aspect ratio, in multiples of the stride, of at most ``budget`` tokens."""
    if square:
        side = math.isqrt(budget) * stride
        return side, side
    # a stretched image is as sharp as its more shrunken side: more tokens along the other side add no detail
    rows, columns = max(
        _grids_near(height, width, budget, stride),
        key=lambda grid: (min(grid[0] / height, grid[1] / width), -grid[0] * grid[1]),
    )
    return rows * stride, columns * stride


def _grids_near(height: int, width: int, budget: int, stride: int) -> list[tuple[int, int]]:
    """Return the grids (rows, columns) nearest to the ideal one, none larger than the image."""
    ideal_rows, ideal_columns = math.sqrt(budget * height / width), math.sqrt(budget * width / height)
    candidates = (math.floor(ideal_rows), math.ceil(ideal_rows), budget // math.ceil(ideal_columns))
    grids = []
    for rows in candidates:
        rows = min(max(rows, 1), height // stride, budget)
        columns = min(max(math.ceil(rows * width / height), 1), width // stride, budget // rows)
        grids.append((rows, columns))
    return grids


# transformers passes these to every image processor; this one ignores them
_WITHOUT_EFFECT = ("device", "disable_grouping")


def check_option_names(names: Iterable[str]) -> None:
    """Raise a ValueError for the first name that is not an image option."""
    for name in names:
        if name not in IMAGE_OPTIONS:
            hint = did_you_mean(name, IMAGE_OPTIONS) or f": one of {', '.join(IMAGE_OPTIONS)}"
            raise ValueError(f"unknown image option {name!r}{hint}")


class ConvLlavaImagesKwargs(ImagesKwargs, total=False):  # type: ignore[call-arg]
    """Options that are stored with the image processor, in addition to those of all image processors."""

    output_stride: int
    image_aspect_ratio: str
    resolution: int | None
    max_visual_tokens: int | None
    min_visual_tokens: int | None
    preprocessing: str


class ConvLlavaImageProcessor(PilBackend):
    """Prepares images as ``pixel_values`` (N, 3, Hmax, Wmax), zero right and below, and ``image_sizes`` (N, 2).

    Args:
        output_stride: Pixels per visual token and side of the vision encoder.
        image_aspect_ratio: "pad": centered on a square of the mean color. "native": the image's own.
        resolution: Side of the square ("pad") or short side ("native"); None (native only) keeps the size.
        max_visual_tokens: Most tokens of one image, None for no limit.
        min_visual_tokens: Tokens up to which a smaller image is enlarged, None for as it is.
        preprocessing: "exact": values equal those of CLIP's image processor. "fast": values differ by
            about one level on average and take a fraction of the time; see `fast_image_processing`.

    All but the stride and the preprocessing can be replaced in every call.
    """

    model_input_names = ["pixel_values", "image_sizes"]
    valid_kwargs = ConvLlavaImagesKwargs

    output_stride = 64
    image_aspect_ratio = "native"
    resolution: int | None = None
    max_visual_tokens: int | None = None
    min_visual_tokens: int | None = None
    preprocessing = "exact"
    image_mean = CLIP_MEAN
    image_std = CLIP_STD
    rescale_factor = 1 / 255

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_aspect_ratio(self.image_aspect_ratio)
        self.set_preprocessing(self.preprocessing)

    def set_preprocessing(self, preprocessing: str) -> None:
        """Prepare images exactly or fast from now on.

        Raises:
            ValueError: The name is unknown.
        """
        if preprocessing not in PREPROCESSING:
            raise ValueError(f"preprocessing is one of {', '.join(PREPROCESSING)}, got {preprocessing!r}")
        self.preprocessing = preprocessing

    @property
    def ground(self) -> tuple[int, int, int]:
        """Color of the square on which an image is centered, 8 bits a channel: the mean, which becomes about 0."""
        red, green, blue = (int(mean * 255) for mean in self.image_mean)
        return red, green, blue

    def to_pixels(self, image: Image.Image) -> torch.Tensor:
        """Return an RGB image that has its final size as float32 (3, H, W), rescaled and normalized."""
        return self._normalized(image)

    def least_size(self, size: tuple[int, int], shape: tuple[int, int], image_aspect_ratio: str) -> tuple[int, int]:
        """Return the least (height, width) at which fast preprocessing decodes a JPEG.

        Args:
            size: (height, width) of the file.
            shape: (height, width) of the resized image, its square included.
            image_aspect_ratio: "pad" or "native".
        """
        return least_size(*self._within(size, shape, image_aspect_ratio))

    def to_pixels_fast(
        self, image: Image.Image, size: tuple[int, int], shape: tuple[int, int], image_aspect_ratio: str
    ) -> torch.Tensor:
        """Return an RGB image as fast preprocessing does, float32 (3, H, W).

        Args:
            image: Decoded at least at `least_size`.
            size, shape, image_aspect_ratio: Same as for `least_size`.
        """
        return self._normalized_fast(self._resized_fast(image, size, shape, image_aspect_ratio))

    def resized_shape(self, height: int, width: int, **options: Any) -> tuple[int, int]:
        """Return the (height, width) to which an image of this size is resized, with the options of a call."""
        return resized_shape(height, width, **self._options(options))

    def fetch_images(self, image_url_or_urls: Any) -> Any:
        """Open images given by path or URL; keep loaded ones and any nesting as they are."""
        if isinstance(image_url_or_urls, (list, tuple)):
            return [self.fetch_images(image) for image in image_url_or_urls]
        if not isinstance(image_url_or_urls, (str, Path)):
            return image_url_or_urls
        return open_image(image_url_or_urls, lazily=self.preprocessing == "fast")

    def preprocess(self, images: Any, *args: Any, **kwargs: Any) -> BatchFeature:
        """Prepare one image or any nesting of images, loaded or by path or URL; see the class."""
        return_tensors = kwargs.pop("return_tensors", None)
        options = {name: value for name, value in kwargs.items() if name not in _WITHOUT_EFFECT}
        flat = make_flat_list_of_images(self.fetch_images(images))
        pixel_values, image_sizes = self.prepare(flat, **options)
        data = {"pixel_values": pixel_values, "image_sizes": image_sizes}
        return BatchFeature(data, tensor_type=return_tensors)

    def prepare(self, images: Sequence[Any], **options: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """Return ``pixel_values`` (N, 3, Hmax, Wmax) float32, zero-padded, and ``image_sizes`` (N, 2) int64."""
        each = self.prepare_each(images, **options)
        sizes = [tuple(pixels.shape[1:]) for pixels in each]
        image_sizes = torch.tensor(sizes, dtype=torch.int64).reshape(-1, 2)
        if len(each) == 1:
            return each[0][None], image_sizes
        height, width = (max(side) for side in zip(*sizes, strict=True)) if sizes else (0, 0)
        pixel_values = torch.zeros(len(each), 3, height, width)
        for target, pixels in zip(pixel_values, each, strict=True):
            target[:, : pixels.shape[1], : pixels.shape[2]] = pixels
        return pixel_values, image_sizes

    def prepare_each(self, images: Sequence[Any], **options: Any) -> list[torch.Tensor]:
        """Return each image as float32 (3, H, W), resized and normalized, without padding to the others.

        Args:
            images: Loaded images, or their paths or URLs.
            options: Image options that replace the stored ones.

        Raises:
            ValueError: An image cannot be opened, or an option is out of range.
        """
        shown = self._options(options)
        if self.preprocessing == "exact":
            return [self._normalized(self._resize(open_image(image), shown)) for image in images]
        return in_threads(
            lambda image: self._normalized_fast(self._resize_fast(open_image(image, lazily=True), shown)), images
        )

    def _resize_fast(self, image: Image.Image, options: dict[str, Any]) -> torch.Tensor:
        """Return an upright image, decoded or not, resized as uint8 (3, H, W)."""
        size, ratio = (image.height, image.width), options["image_aspect_ratio"]
        shape = resized_shape(*size, **options)
        return self._resized_fast(decode(image, *self._within(size, shape, ratio)), size, shape, ratio)

    def _resized_fast(
        self, image: Image.Image, size: tuple[int, int], shape: tuple[int, int], image_aspect_ratio: str
    ) -> torch.Tensor:
        """Return a decoded image, possibly smaller than its file of (height, width) ``size``, as uint8 (3, H, W)."""
        if image_aspect_ratio == "native":
            return resize(image, *shape)
        return resize_padded(image, size, shape[0], self.ground)

    def _within(self, size: tuple[int, int], shape: tuple[int, int], image_aspect_ratio: str) -> tuple[int, int]:
        """Return the (height, width) of the part of the resized image that shows the image: on a square, not all."""
        if image_aspect_ratio == "native":
            return shape
        height, width = (-(-length * shape[0] // max(size)) for length in size)
        return height, width

    def _options(self, given: dict[str, Any]) -> dict[str, Any]:
        check_option_names(given)
        stored = {name: getattr(self, name) for name in IMAGE_OPTIONS}
        return stored | given | {"output_stride": self.output_stride}

    def _resize(self, image: Image.Image, options: dict[str, Any]) -> Image.Image:
        height, width = resized_shape(image.height, image.width, **options)
        if options["image_aspect_ratio"] == "pad":
            image = pad_to_square(image, self.ground)
        if image.size == (width, height):
            return image
        return image.resize((width, height), Image.Resampling.BICUBIC)

    def _normalized(self, image: Image.Image) -> torch.Tensor:
        """Return an RGB image rescaled and normalized, float32 (3, H, W)."""
        tables = _level_tables(tuple(self.image_mean), tuple(self.image_std), self.rescale_factor)
        pixels = np.empty((3, image.height, image.width), dtype=np.float32)
        for channel, (table, band) in enumerate(zip(tables, image.split(), strict=True)):
            np.take(table, np.asarray(band), out=pixels[channel], mode="clip")
        return torch.from_numpy(pixels)

    def _normalized_fast(self, levels: torch.Tensor) -> torch.Tensor:
        """Return 8-bit levels (3, H, W) rescaled and normalized, float32 (3, H, W)."""
        pixels = torch.empty(levels.shape)
        normalize_into(pixels, levels, self.image_mean, self.image_std, self.rescale_factor)
        return pixels


@lru_cache(maxsize=8)
def _level_tables(mean: tuple[float, ...], std: tuple[float, ...], rescale_factor: float) -> np.ndarray:
    """Return the normalized value of each 8-bit level and channel, (3, 256) float32: a table is faster than arithmetic.

    The order of roundings is that of the CLIP image processor, so that values equal it to the last bit.
    """
    levels = (np.arange(256) * rescale_factor).astype(np.float32)
    centers = np.asarray(mean, dtype=np.float32)[:, None]
    widths = np.asarray(std, dtype=np.float32)[:, None]
    return (levels - centers) / widths
