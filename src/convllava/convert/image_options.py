"""How images were shown to a model when it was trained, as its files say it."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..model import ConvLlavaImageProcessor
from .json_files import read_json

CLIP_MEAN = [0.48145466, 0.4578275, 0.40821073]
CLIP_STD = [0.26862954, 0.26130258, 0.27577711]

BICUBIC = 3

_DEFAULTS: dict[str, Any] = {
    "do_resize": True,
    "do_center_crop": True,
    "do_rescale": True,
    "do_normalize": True,
    "resample": BICUBIC,
    "rescale_factor": 1 / 255,
    "image_mean": CLIP_MEAN,
    "image_std": CLIP_STD,
}
"""Of transformers' CLIPImageProcessor, which the authors use."""

_MUST_BE: dict[str, Any] = {
    "do_resize": True,
    "do_center_crop": True,
    "do_rescale": True,
    "do_normalize": True,
    "resample": BICUBIC,
}


def read_clip_preprocessor(path: Path) -> dict[str, Any]:
    """Return ``resolution``, ``image_mean``, ``image_std`` and ``rescale_factor`` of a CLIP image processor's file.

    Raises:
        ValueError: It prepares images in a way that is not ConvLLaVA's.
    """
    stored = {**_DEFAULTS, **read_json(path)}
    for name, wanted in _MUST_BE.items():
        if stored[name] != wanted:
            raise ValueError(f"{path}: {name} is {stored[name]!r}, and only {wanted!r} is known of such models")
    crop, size = _side(stored.get("crop_size")), _side(stored.get("size"))
    if crop is None or size is None or crop != size:
        raise ValueError(
            f"{path}: size is {stored.get('size')!r} and crop_size {stored.get('crop_size')!r}; both must be one square"
        )
    return {"resolution": crop, **{name: stored[name] for name in ("image_mean", "image_std", "rescale_factor")}}


def _side(value: Any) -> int | None:
    """Return the side of a square given in one of transformers' ways."""
    if isinstance(value, Mapping):
        sides = {value[name] for name in ("height", "width", "shortest_edge") if name in value}
        value = sides.pop() if len(sides) == 1 else None
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def check_image_processor(processor: ConvLlavaImageProcessor, where: Path) -> None:
    """Check that images stay finite and in range.

    Raises:
        ValueError: Names the option and its value.
    """
    numbers = {
        "image_mean": (processor.image_mean, lambda value: 0 <= value <= 1, "numbers from 0 to 1"),
        "image_std": (processor.image_std, lambda value: 0 < value <= 1, "numbers above 0, up to 1"),
        "rescale_factor": ([processor.rescale_factor], lambda value: 0 < value <= 1, "a number above 0, up to 1"),
    }
    for name, (values, fits, wanted) in numbers.items():
        if not all(_is_number(value) and fits(value) for value in values):
            raise ValueError(f"{where}: {name} is {list(values)} in the image processor's options; it needs {wanted}")
        if name != "rescale_factor" and len(values) != 3:
            raise ValueError(f"{where}: {name} has {len(values)} values in the image processor's options; it needs 3")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
