"""The tensors of vision encoders from elsewhere: their names, and the configuration that their shapes tell."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
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
_STEM = "embeddings.patch_embeddings.weight"
_LAYER = re.compile(r"encoder\.stages\.(\d+)\.layers\.(\d+)\.")
_CLIP_LAYER = re.compile(r"encoder\.layers\.(\d+)\.")

_XXLARGE = ([3, 4, 30, 3], [384, 768, 1536, 3072])
"""Depths and widths of OpenCLIP's convnext_xxlarge, whose LayerNorms have the epsilon 1e-5; all others have 1e-6."""


_DINOV3 = [
    (re.compile(r"stages\.0\.downsample_layers\.0\.(weight|bias)"), r"embeddings.patch_embeddings.\1"),
    (re.compile(r"stages\.0\.downsample_layers\.1\.(weight|bias)"), r"embeddings.layernorm.\1"),
    (re.compile(r"stages\.(\d+)\.downsample_layers\.(.+)"), r"encoder.stages.\1.downsampling_layer.\2"),
    (re.compile(r"stages\.(\d+)\.layers\.(\d+)\.depthwise_conv\.(.+)"), r"encoder.stages.\1.layers.\2.dwconv.\3"),
    (re.compile(r"stages\.(\d+)\.layers\.(\d+)\.layer_norm\.(.+)"), r"encoder.stages.\1.layers.\2.layernorm.\3"),
    (
        re.compile(r"stages\.(\d+)\.layers\.(\d+)\.pointwise_conv([12])\.(.+)"),
        r"encoder.stages.\1.layers.\2.pwconv\3.\4",
    ),
    (re.compile(r"stages\.(\d+)\.layers\.(\d+)\.gamma"), r"encoder.stages.\1.layers.\2.layer_scale_parameter"),
]
_META = [
    (re.compile(r"downsample_layers\.0\.0\.(weight|bias)"), r"embeddings.patch_embeddings.\1"),
    (re.compile(r"downsample_layers\.0\.1\.(weight|bias)"), r"embeddings.layernorm.\1"),
    (re.compile(r"downsample_layers\.(\d+)\.(.+)"), r"encoder.stages.\1.downsampling_layer.\2"),
    (re.compile(r"stages\.(\d+)\.(\d+)\.norm\.(.+)"), r"encoder.stages.\1.layers.\2.layernorm.\3"),
    (re.compile(r"stages\.(\d+)\.(\d+)\.gamma"), r"encoder.stages.\1.layers.\2.layer_scale_parameter"),
    (re.compile(r"stages\.(\d+)\.(\d+)\.(dwconv|pwconv[12])\.(.+)"), r"encoder.stages.\1.layers.\2.\3.\4"),
]


@dataclass(frozen=True)
class Naming:
    """The tensor names of a kind of files with a ConvNeXt.

    Attributes:
        source: The code that writes such files.
        prefixes: Prefixes that the network may have.
        first: Name of a tensor that every such network has, and that no other naming has.
        patterns: Names without prefix, and this package's names for them; empty where the names are the same.
        unused: Names of tensors behind the last stage, which are left out.
        final_norm: Name of the weight of the norm behind the last stage.
        only_below_prefix: Whether tensors without the prefix belong to another network.
    """

    source: str
    prefixes: tuple[str, ...]
    first: str
    patterns: list[tuple[re.Pattern[str], str]]
    unused: re.Pattern[str]
    final_norm: str
    only_below_prefix: bool = False

    def prefix(self, names: Collection[str]) -> str | None:
        """Return the prefix of the network among tensor names, or None if there is no such network."""
        return next((prefix for prefix in self.prefixes if prefix + self.first in names), None)

    def rename(self, names: Collection[str], prefix: str) -> dict[str, str]:
        """Return this package's names by the stored ones; an unknown tensor keeps its name."""
        renamed = {}
        for name in names:
            inner = name.removeprefix(prefix)
            if self.unused.fullmatch(inner) or (self.only_below_prefix and not name.startswith(prefix)):
                continue
            matches = (pattern.sub(ours, inner) for pattern, ours in self.patterns if pattern.fullmatch(inner))
            renamed[name] = next(matches, name if self.patterns else inner)
        return renamed


TIMM = Naming(
    "timm or OpenCLIP",
    ("visual.trunk.", "trunk.", ""),  # in an OpenCLIP model, in the image half of one, by itself
    "stem.0.weight",
    _TIMM,
    re.compile(r"(head|norm_pre|norms|projectors|fc)\..*"),
    "head.norm.weight",
    only_below_prefix=True,
)
TRANSFORMERS = Naming(
    "transformers",
    ("convnext.", ""),
    _STEM,
    [],
    re.compile(r"(layernorm|classifier|hidden_states_norms\..*)\.(weight|bias)"),
    "layernorm.weight",
)
DINOV3 = Naming(
    "transformers' DINOv3",
    ("model.", ""),
    "stages.0.downsample_layers.0.weight",
    _DINOV3,
    re.compile(r"layer_norm\.(weight|bias)"),
    "layer_norm.weight",
)
META = Naming(
    "Meta (ConvNeXt, DINOv3, EUPE)",
    ("",),
    "downsample_layers.0.0.weight",
    _META,
    re.compile(r"(norm|norms|head|projectors)\..*"),  # EUPE keeps the projectors of its distillation
    "norm.weight",
)
NAMINGS = (TIMM, TRANSFORMERS, DINOV3, META)
"""The known namings."""


def naming_of(names: Collection[str], where: str) -> Naming:
    """Return the naming of a file's tensors.

    Args:
        names: The names in a file.
        where: The file or directory, for the message.

    Raises:
        ValueError: The names are not those of a ConvNeXt, or those of one that this encoder cannot be.
    """
    grn = next((name for name in names if ".grn." in name), None)
    if grn is not None:
        raise ValueError(f"{where} is a ConvNeXt V2: its GRN layers ({grn}) are not part of this encoder")
    for naming in NAMINGS:
        if (prefix := naming.prefix(names)) is not None:
            if naming is TIMM:
                _check_timm_variant(names, prefix, where)
            return naming
    raise ValueError(
        f"{where} holds no ConvNeXt: neither timm's or OpenCLIP's names ({TIMM.first}) nor transformers' "
        f"({TRANSFORMERS.first}), DINOv3's ({DINOV3.first}) or Meta's ({META.first}) are there"
    )


def _check_timm_variant(names: Collection[str], prefix: str, where: str) -> None:
    """Refuse timm's variants of ConvNeXt with other layers, by the suffix that their names have."""
    if f"{prefix}stem.2.weight" in names:
        raise ValueError(
            f"{where} is timm's variant _ols of ConvNeXt: its stem is two overlapping convolutions "
            f"({prefix}stem.2.weight), and this encoder has one of 4x4; choose a variant without _ols"
        )
    if f"{prefix}stem.1.weight" in names and f"{prefix}stem.1.bias" not in names:
        raise ValueError(
            f"{where} is timm's variant _rms of ConvNeXt: its norms have no bias ({prefix}stem.1.bias is missing), and "
            "this encoder has LayerNorms; choose a variant without _rms"
        )


def convnext_names(names: Collection[str], where: str) -> dict[str, str]:
    """Map the tensor names of a ConvNeXt of timm, OpenCLIP, transformers or Meta to this package's names.

    Tensors behind the last stage (norms, heads, CLIP's text half) are left out. An unknown tensor keeps its name, so
    that it is reported as surplus later.

    Args:
        names: The names in a file.
        where: The file or directory, for the message.

    Raises:
        ValueError: Same as in :func:`naming_of`.
    """
    naming = naming_of(names, where)
    return naming.rename(names, naming.prefix(names) or "")


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
