"""Features of a frozen encoder kept on disk, so that an image is encoded once, in whatever epoch or run it returns.

An image is known by its pixels after resizing, an encoder by its weights and the precision it computes in: what is
read is what would have been computed, and a changed encoder or resolution finds nothing. Images are still opened
and resized; only the encoder is spared.
"""

import hashlib
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..data.mixture import Mixture
from ..model import ConvLlavaForConditionalGeneration, ConvLlavaProcessor, ConvLlavaVisionModel
from ..support import atomic_write
from .recipe import Recipe

ESTIMATED_FROM = 256
"""Samples spread over the mixture, whose images the estimate is made from."""


def use_feature_cache(
    model: ConvLlavaForConditionalGeneration, processor: ConvLlavaProcessor, recipe: Recipe, mixture: Mixture
) -> None:
    """Put the cache between a model and its frozen encoder.

    Raises:
        ValueError: When the features would take more room than the recipe or the disk has.
    """
    assert recipe.feature_cache is not None
    tower, is_mixed = model.model.vision_tower, recipe.precision == "bfloat16"
    needed = estimate_bytes(model, processor, mixture, bytes_per_number=2 if is_mixed else 4)
    folder = recipe.feature_cache.folder
    folder.mkdir(parents=True, exist_ok=True)
    _check_room(needed, folder, recipe.feature_cache.limit_gb)
    tower.set_backend(CachedEncoder(tower, folder / fingerprint(tower, recipe.precision)))


def estimate_bytes(
    model: ConvLlavaForConditionalGeneration, processor: ConvLlavaProcessor, mixture: Mixture, *, bytes_per_number: int
) -> float:
    """Return what the features of a mixture's images take, from a sample of it and as if none came twice."""
    count = min(ESTIMATED_FROM, len(mixture))
    chosen = [number * len(mixture) // count for number in range(count)]
    sizes = [size for index in chosen for size in mixture.image_sizes(index)]
    tokens = sum(_tokens(processor, size) for size in sizes) / max(count, 1)
    return tokens * len(mixture) * model.config.vision_config.hidden_sizes[-1] * bytes_per_number


def fingerprint(tower: ConvLlavaVisionModel, precision: str) -> str:
    """Return a name that changes with any weight of an encoder, and with the precision it computes in."""
    digest = hashlib.blake2b(precision.encode(), digest_size=16)
    for name, tensor in tower.state_dict().items():
        digest.update(name.encode())
        digest.update(_bytes(tensor))
    return digest.hexdigest()


class CachedEncoder:
    """A backend of a frozen encoder that looks an image up before it encodes it.

    Args:
        tower: The frozen encoder.
        folder: Where the features are written, one file an image, in 256 folders.
    """

    name = "cached"
    for_training = True

    def __init__(self, tower: ConvLlavaVisionModel, folder: Path) -> None:
        self._tower = tower
        self._output_stride = tower.config.output_stride
        self._folder = folder

    def __call__(self, pixel_values: Tensor) -> Tensor:
        """Return the features (N, h, w, C) of images (N, 3, H, W)."""
        height, width = (size // self._output_stride for size in pixel_values.shape[-2:])
        paths = [self._path(image) for image in pixel_values]
        absent = [index for index, path in enumerate(paths) if not path.is_file()]
        if absent:
            self._encode(pixel_values[absent], [paths[index] for index in absent])
        features = torch.stack([load_file(path)["features"] for path in paths])  # (N, h * w, C)
        return features.unflatten(1, (height, width)).to(pixel_values.device)

    def close(self) -> None:
        """Do nothing: the encoder is unchanged."""

    @torch.no_grad()
    def _encode(self, pixel_values: Tensor, paths: list[Path]) -> None:
        """Encode images (n, 3, H, W) and write the features (h * w, C) of each."""
        features = self._tower.feature_maps(pixel_values)[-1].flatten(1, 2)
        for path, image_features in zip(paths, features, strict=True):
            with atomic_write(path) as temporary:
                save_file({"features": image_features.contiguous().cpu()}, temporary)

    def _path(self, image: Tensor) -> Path:
        digest = hashlib.blake2b(repr(tuple(image.shape)).encode(), digest_size=16)
        digest.update(_bytes(image))
        name = digest.hexdigest()
        return self._folder / name[:2] / f"{name[2:]}.safetensors"


def _tokens(processor: ConvLlavaProcessor, size: tuple[int, int]) -> int:
    counted = processor._get_num_multimodal_tokens(image_sizes=[size])
    return int(counted["num_image_tokens"][0])


def _check_room(needed: float, folder: Path, limit_gb: float) -> None:
    free = shutil.disk_usage(folder).free
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
