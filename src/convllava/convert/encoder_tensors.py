"""The tensors of vision encoders from elsewhere: their names, and the configuration that their shapes tell."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from transformers import CLIPVisionConfig

from ..model import ConvLlavaVisionConfig
from ..model.modeling_convllava import VISION_TOWER_PREFIX
from ..model.presets import CLIP_L_336
from .checkpoint import TensorNames

Shapes = Mapping[str, tuple[int, ...]]
"""Shapes of an encoder's tensors by this package's names, without the prefix ``model.vision_tower.``."""

CLIP_NAMES = TensorNames(
    prefixes=[("vision_model.", VISION_TOWER_PREFIX), ("", VISION_TOWER_PREFIX)],
    unused=r"(vision_model\.)?embeddings\.position_ids|text_model\..*|(visual|text)_projection\.weight|logit_scale",
)
"""Tensor names of a CLIP ViT in its own directory."""

_TIMM = [
    (re.compile(r"stem\.0\.(weight|bias)"), r"embeddings.patch_embeddings.\1"),
    (re.compile(r"stem\.1\.(weight|bias)"), r"embeddings.layernorm.\1"),
    (re.compile(r"stages\.(\d+)\.downsample\.([01])\.(weight|bias)"), r"encoder.stages.\1.downsampling_layer.\2.\3"),
    (re.compile(r"stages\.(\d+)\.blocks\.(\d+)\.conv_dw\.(weight|bias)"), r"encoder.stages.\1.layers.\2.dwconv.\3"),
    (re.compile(r"stages\.(\d+)\.blocks\.(\d+)\.norm\.(weight|bias)"), r"encoder.stages.\1.layers.\2.layernorm.\3"),
    (re.compile(r"stages\.(\d+)\.blocks\.(\d+)\.mlp\.fc1\.(weight|bias)"), r"encoder.stages.\1.layers.\2.pwconv1.\3"),
    (re.compile(r"stages\.(\d+)\.blocks\.(\d+)\.mlp\.fc2\.(weight|bias)"), r"encoder.stages.\1.layers.\2.pwconv2.\3"),
    (re.compile(r"stages\.(\d+)\.blocks\.(\d+)\.gamma"), r"encoder.stages.\1.layers.\2.layer_scale_parameter"),
]
_TIMM_AFTER_LAST_STAGE = re.compile(r"(head|norm_pre|fc)\..*")
_TRANSFORMERS_AFTER_LAST_STAGE = re.compile(r"(layernorm|classifier|hidden_states_norms\..*)\.(weight|bias)")

_TIMM_PREFIXES = ("visual.trunk.", "trunk.", "")
"""Prefixes of timm's network in an OpenCLIP model, in the image half of one, and by itself."""

_TRANSFORMERS_PREFIXES = ("convnext.", "")

_STEM = "embeddings.patch_embeddings.weight"
_LAYER = re.compile(r"encoder\.stages\.(\d+)\.layers\.(\d+)\.")
_CLIP_LAYER = re.compile(r"encoder\.layers\.(\d+)\.")

_XXLARGE = ([3, 4, 30, 3], [384, 768, 1536, 3072])
"""Depths and widths of OpenCLIP's convnext_xxlarge, whose LayerNorms have the epsilon 1e-5; all others have 1e-6."""


def convnext_names(names: Iterable[str], where: str) -> dict[str, str]:
    """Map the tensor names of a ConvNeXt of timm, OpenCLIP or transformers to this package's names.

    Tensors behind the last stage (norms, heads, CLIP's text half) are left out. An unknown tensor keeps its name, so
    that it is reported as surplus later.

    Args:
        names: The names in a file.
        where: The file or directory, for the message.

    Raises:
        ValueError: The names are not those of a ConvNeXt, or are those of a ConvNeXt V2.
    """
    given = list(names)
    grn = next((name for name in given if ".grn." in name), None)
    if grn is not None:
        raise ValueError(f"{where} is a ConvNeXt V2: its GRN layers ({grn}) are not part of this encoder")
    for prefix in _TIMM_PREFIXES:
        if f"{prefix}stem.0.weight" in given:
            return _timm_names(given, prefix)
    for prefix in _TRANSFORMERS_PREFIXES:
        if prefix + _STEM in given:
            return _transformers_names(given, prefix)
    raise ValueError(
        f"{where} holds no ConvNeXt: neither timm's or OpenCLIP's names (stem.0.weight) nor transformers' ({_STEM}) "
        "are there"
    )


def _timm_names(names: list[str], prefix: str) -> dict[str, str]:
    renamed = {}
    for name in names:
        inner = name.removeprefix(prefix)
        if name.startswith(prefix) and not _TIMM_AFTER_LAST_STAGE.fullmatch(inner):
            matches = (pattern.sub(ours, inner) for pattern, ours in _TIMM if pattern.fullmatch(inner))
            renamed[name] = next(matches, name)
    return renamed


def _transformers_names(names: list[str], prefix: str) -> dict[str, str]:
    inner = {name: name.removeprefix(prefix) for name in names}
    return {name: ours for name, ours in inner.items() if not _TRANSFORMERS_AFTER_LAST_STAGE.fullmatch(ours)}


def is_clip(shapes: Shapes) -> bool:
    """Return whether an encoder is a CLIP ViT."""
    return "embeddings.class_embedding" in shapes


def convnext_config(shapes: Shapes, where: str, **values: Any) -> ConvLlavaVisionConfig:
    """Return the configuration of a ConvNeXt as its tensors' shapes tell it.

    Args:
        shapes: Shapes by name.
        where: The file or directory, for the message.
        values: Further options, which shapes do not tell. Without ``layer_norm_eps`` it is 1e-6, or 1e-5 if the first
            four stages are those of OpenCLIP's xxlarge.

    Raises:
        ValueError: The tensors are not those of a ConvNeXt, or a stage has no layers.
    """
    layers = [tuple(map(int, found.groups())) for name in shapes if (found := _LAYER.match(name))]
    if not layers or _STEM not in shapes:
        raise ValueError(
            f"{where} holds no ConvNeXt: tensors such as {_STEM} and encoder.stages.0.layers.0... are missing"
        )
    stages = max(stage for stage, _ in layers) + 1
    depths = [max((layer for at, layer in layers if at == stage), default=-1) + 1 for stage in range(stages)]
    if 0 in depths:
        raise ValueError(f"{where}: stage {depths.index(0) + 1} of {stages} has no layers; copy or download it again")
    widths = [_width(shapes, stage, where) for stage in range(stages)]
    kernel_size = [
        shapes.get(f"encoder.stages.{stage}.layers.0.dwconv.weight", (0, 1, 7, 7))[-1] for stage in range(stages)
    ]
    values.setdefault("layer_norm_eps", 1e-5 if (depths[:4], widths[:4]) == _XXLARGE else 1e-6)
    return ConvLlavaVisionConfig(
        depths=depths, hidden_sizes=widths, num_channels=shapes[_STEM][1], kernel_size=kernel_size, **values
    )


def _width(shapes: Shapes, stage: int, where: str) -> int:
    prefix = f"encoder.stages.{stage}.layers.0."
    for name in ("dwconv.weight", "dwconv.bias", "layernorm.weight", "layer_scale_parameter"):
        if prefix + name in shapes:
            return shapes[prefix + name][0]
    raise ValueError(f"{where}: {prefix}dwconv.weight is missing; copy or download it again")


def clip_config(shapes: Shapes, stored: Mapping[str, Any] | None, where: str) -> CLIPVisionConfig:
    """Return the configuration of a CLIP ViT.

    Args:
        shapes: Shapes by name.
        stored: The content of its config.json, of the image half or of both; None assumes ViT-L/14-336.
        where: The file or directory, for the message.

    Raises:
        ValueError: Configuration and shapes contradict each other.
    """
    values = dict(CLIP_L_336 if stored is None else stored.get("vision_config", stored))
    values.pop("model_type", None)
    config = CLIPVisionConfig(**values)
    found = _clip_sizes(shapes)
    wanted = {name: getattr(config, name) for name in found}
    if found != wanted:
        hint = "" if stored is not None else " (openai/clip-vit-large-patch14-336); put its config.json next to it"
        raise ValueError(f"{where}: the tensors say {found}, its configuration {wanted}{hint}")
    return config


def _clip_sizes(shapes: Shapes) -> dict[str, int]:
    patch = shapes["embeddings.patch_embedding.weight"]  # (width, channels, patch size, patch size)
    positions = shapes["embeddings.position_embedding.weight"][0]
    layers = [int(found[1]) for name in shapes if (found := _CLIP_LAYER.match(name))]
    return {
        "hidden_size": patch[0],
        "patch_size": patch[-1],
        "image_size": round((positions - 1) ** 0.5) * patch[-1],
        "num_hidden_layers": max(layers, default=-1) + 1,
    }
