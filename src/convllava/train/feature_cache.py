"""Features of a frozen encoder kept on disk, so that an image is encoded once, in whatever epoch or run it returns.

An image is known by its pixels after resizing, an encoder by its weights and the precision it computes in: what is
read is what would have been computed, and a changed encoder or resolution finds nothing. Images are still opened
and resized; only the encoder is spared.
"""

import hashlib
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutputWithNoAttention

from ..data.mixture import Mixture
from ..model import ConvLlavaForConditionalGeneration, ConvLlavaProcessor, ConvLlavaVisionModel
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
    tower.forward = CachedEncoder(
        tower, folder / fingerprint(tower, recipe.precision)
    )  # its parameters keep their names


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
    """Stands in for an encoder's ``forward``: looks an image up before it encodes it.

    Args:
        encoder: Frozen.
        folder: Gets a file an image, in 256 folders.
    """

    def __init__(self, encoder: ConvLlavaVisionModel, folder: Path) -> None:
        self.encode = encoder.forward
        self.output_stride: int = encoder.config.output_stride
        self.folder = folder

    def __call__(self, pixel_values: Tensor, image_sizes: Tensor, **kwargs: Any) -> BaseModelOutputWithNoAttention:
        """Return the visual tokens of all images one after another, (sum of n_i, C)."""
        images = [
            image[:, :height, :width] for image, (height, width) in zip(pixel_values, image_sizes.tolist(), strict=True)
        ]
        paths = [self._path(image) for image in images]
        absent = [index for index, path in enumerate(paths) if not path.is_file()]
        if absent:
            self._encode(pixel_values, image_sizes, paths, absent)
        features = [load_file(path)["features"] for path in paths]
        return BaseModelOutputWithNoAttention(last_hidden_state=torch.cat(features).to(pixel_values.device))

    @torch.no_grad()
    def _encode(self, pixel_values: Tensor, image_sizes: Tensor, paths: list[Path], absent: list[int]) -> None:
        """Encode the images at ``absent`` and write their features."""
        sizes = image_sizes[absent]
        packed = self.encode(pixel_values[absent], sizes).last_hidden_state
        counts = (sizes // self.output_stride).prod(dim=-1).tolist()
        for index, features in zip(absent, packed.split(counts), strict=True):
            paths[index].parent.mkdir(parents=True, exist_ok=True)
            unfinished = paths[index].with_suffix(f".{os.getpid()}")  # another process may write the same image
            save_file({"features": features.contiguous().cpu()}, unfinished)
            unfinished.replace(paths[index])

    def _path(self, image: Tensor) -> Path:
        digest = hashlib.blake2b(repr(tuple(image.shape)).encode(), digest_size=16)
        digest.update(_bytes(image))
        name = digest.hexdigest()
        return self.folder / name[:2] / f"{name[2:]}.safetensors"


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
