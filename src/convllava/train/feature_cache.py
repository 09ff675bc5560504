"""Features of a frozen encoder on disk, so that each image is encoded once, in whatever epoch or run it appears.

A cached image is identified by its pixels after resizing, the encoder by its weights and the precision that it computes
in: cached features are those that would be computed, and a changed encoder or resolution finds none. Images are still
opened and resized; only the encoder is skipped.
"""

import hashlib
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..data.mixture import Mixture
from ..model import (
    ConvLlavaConfig,
    ConvLlavaForConditionalGeneration,
    ConvLlavaProcessor,
    ConvLlavaVisionModel,
    num_image_tokens,
)
from ..support import atomic_write
from .recipe import Recipe
from .stages import check_is_convnext

ESTIMATE_SAMPLES = 256
"""Number of samples, spread over the mixture, whose images the size of the cache is estimated from."""


def use_feature_cache(
    model: ConvLlavaForConditionalGeneration, processor: ConvLlavaProcessor, recipe: Recipe, mixture: Mixture
) -> None:
    """Let a frozen encoder look images up before it encodes them.

    Raises:
        ValueError: The features would exceed the recipe's limit or the free space on the disk.
    """
    cache = recipe.feature_cache
    if cache is None:
        return
    check_cache_size(model.config, processor, recipe, mixture)
    tower: ConvLlavaVisionModel = model.model.vision_tower
    tower.set_backend(CachedEncoder(tower, cache.folder / fingerprint(tower, recipe.precision)))


def check_cache_size(config: ConvLlavaConfig, processor: ConvLlavaProcessor, recipe: Recipe, mixture: Mixture) -> None:
    """Check that the features of a recipe's images fit into its cache, if it has one.

    Raises:
        ValueError: The features would exceed the recipe's limit or the free space on the disk, or the encoder's
            features cannot be cached.
    """
    cache = recipe.feature_cache
    if cache is None:
        return
    check_is_convnext(config.vision_config, "feature_cache")
    needed = estimate_bytes(config, processor, mixture, bytes_per_number=2 if recipe.precision == "bfloat16" else 4)
    _check_room(needed, cache.folder, cache.limit_gb)


def estimate_bytes(
    config: ConvLlavaConfig, processor: ConvLlavaProcessor, mixture: Mixture, *, bytes_per_number: int
) -> float:
    """Estimate the bytes of the features of a mixture's images, from some of them and as if none appeared twice."""
    count = min(ESTIMATE_SAMPLES, len(mixture))
    chosen = [number * len(mixture) // count for number in range(count)]
    sizes = [size for index in chosen for size in mixture.image_sizes(index)]
    shapes: list[tuple[int, int]] = [processor.image_processor.resized_shape(*size) for size in sizes]
    stride = config.output_stride
    tokens = sum(num_image_tokens(height, width, stride) for height, width in shapes) / max(count, 1)
    return tokens * len(mixture) * config.vision_config.hidden_sizes[-1] * bytes_per_number


def fingerprint(tower: ConvLlavaVisionModel, precision: str) -> str:
    """Return a name that changes with any weight of an encoder, and with the precision that it computes in."""
    digest = hashlib.blake2b(precision.encode(), digest_size=16)
    for name, tensor in tower.state_dict().items():
        digest.update(name.encode())
        digest.update(_bytes(tensor))
    return digest.hexdigest()


class CachedEncoder:
    """Backend of a frozen encoder that computes only the features that are not in a folder yet.

    Args:
        tower: The encoder.
        folder: Folder of the features, one file per image in 256 subfolders.
    """

    name = "feature-cache"
    for_training = True  # the encoder is frozen, so its weights do not change

    def __init__(self, tower: ConvLlavaVisionModel, folder: Path) -> None:
        self.tower = tower
        self.folder = folder

    def __call__(self, pixel_values: Tensor) -> Tensor:
        """Return the features (N, h, w, C) of images (N, 3, H, W)."""
        paths = [self._path(image) for image in pixel_values]
        absent = [index for index, path in enumerate(paths) if not path.is_file()]
        if absent:
            self._encode(pixel_values[absent], [paths[index] for index in absent])
        stride = self.tower.config.output_stride
        grid = (pixel_values.shape[-2] // stride, pixel_values.shape[-1] // stride)
        features = [load_file(path)["features"].unflatten(0, grid) for path in paths]  # each (h, w, C)
        return torch.stack(features).to(pixel_values.device)

    @torch.no_grad()
    def _encode(self, pixel_values: Tensor, paths: list[Path]) -> None:
        """Encode images (N, 3, H, W) and write their features (h * w, C)."""
        maps = self.tower.feature_maps(pixel_values)[-1]  # (N, h, w, C)
        for path, features in zip(paths, maps.flatten(1, 2), strict=True):
            with atomic_write(path) as temporary:  # another process may write the same image
                save_file({"features": features.contiguous().cpu()}, temporary)

    def close(self) -> None:
        """Do nothing: the encoder is unchanged."""

    def _path(self, image: Tensor) -> Path:
        digest = hashlib.blake2b(repr(tuple(image.shape)).encode(), digest_size=16)
        digest.update(_bytes(image))
        name = digest.hexdigest()
        return self.folder / name[:2] / f"{name[2:]}.safetensors"


def _check_room(needed: float, folder: Path, limit_gb: float) -> None:
    existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if needed > limit_gb * 1e9:
        raise ValueError(
            f"feature_cache would take about {needed / 1e9:.1f} GB, more than its limit_gb {limit_gb:g}; raise it, "
            "lower the resolution or do without"
        )
    if needed > free:
        raise ValueError(
            f"feature_cache would take about {needed / 1e9:.1f} GB and {folder} has {free / 1e9:.1f} GB left; "
            "choose another folder or do without"
        )


def _bytes(tensor: Tensor) -> bytes:
    return tensor.detach().contiguous().cpu().view(torch.uint8).numpy().tobytes()
