"""The ``config.json`` of LLaVA's family of code: its keys, their supported values, and the published checkpoints.

Every project of that family adds keys of its own, most of which record how the model was trained. A key that is known
to change what the model computes is refused unless its value changes nothing; a key that is not known is reported, but
does not prevent reading.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import LlamaConfig

from ...model.presets import CONVNEXT_L_FIVE_STAGES, CONVNEXT_L_FOUR_STAGES, RESOLUTIONS
from ...support import did_you_mean
from ..config_values import check_sections

_LLAMA_KEYS = frozenset({*LlamaConfig().to_dict(), "rope_theta", "rope_scaling", "num_key_value_heads", "head_dim"})

_WRITTEN_BY_TRANSFORMERS = frozenset(
    "_name_or_path architectures torch_dtype dtype transformers_version model_type auto_map "
    "_attn_implementation_autoset attn_implementation _attn_implementation max_length max_new_tokens "
    "temperature top_p do_sample".split()
)
_MODEL_KEYS = frozenset(
    "mm_vision_tower mm_hidden_size mm_projector_type mm_vision_select_layer mm_vision_select_feature "
    "mm_patch_merge_type mm_use_im_start_end mm_use_im_patch_token image_aspect_ratio mm_vision_resolution "
    "use_mm_proj tokenizer_model_max_length tokenizer_padding_side max_sequence_length".split()
)
_TRAINING_KEYS = frozenset(
    # ConvLLaVA, LLaVA-1.5, ShareGPT4V
    "image_grid_pinpoints freeze_mm_mlp_adapter tune_mm_mlp_adapter tune_vision_tower tune_entire_model "
    "tune_vit_from_layer vision_tower_lr mm_projector_lr mm_vision_tower_lr vision_add_five_stage "
    "vision_five_stage_width freeze_backbone freeze_vision_tower version pretrain_mm_mlp_adapter vision_tower "
    "freeze_mm_vision_resampler tune_mm_vision_resampler unfreeze_mm_vision_tower "
    # LLaVA-1.6 and LLaVA-NeXT; the sizes of crops serve "anyres" alone
    "mm_tunable_parts image_crop_resolution image_split_resolution use_pos_skipping pos_skipping_range "
    "group_by_modality_length tune_embedded_tokens "
    # Mini-Gemini
    "optimize_vision_tower optimize_vision_tower_aux drop_path".split()
)
"""Keys that record the training, or serve image sizes that are refused; they change nothing here."""

_FUNCTION_KEYS: dict[str, tuple[Any, ...]] = {
    # resamplers between encoder and projector (LLaVA's first versions, LLaVA-NeXT)
    "mm_resampler_type": (None, "identity"),
    "resampler": (None, False),
    "mm_spatial_pool_stride": (None, 1),
    "mm_qformer_depth": (None,),
    "mm_perceiver_depth": (None,),
    # several scales or encoders (S2, Mini-Gemini)
    "s2": (None, False),
    "s2_scales": (None,),
    "mm_vision_tower_aux": (None,),
    "image_size_aux": (None,),
    "image_grid": (None, 1),
    "image_global": (None, False),
    # projectors
    "mm_projector_n_layers": (None, 2),
    # weights in fewer bits
    "quantization_config": (None,),
    # mixtures of experts (MoE-LLaVA)
    "moe": (None,),
}
"""Keys that change what a model of this family computes, with the values that change nothing."""

logger = logging.getLogger(__name__)

_SUPPORTED: dict[str, Any] = {
    "mm_projector_type": "mlp2x_gelu",
    "mm_vision_select_feature": "patch",
    "mm_patch_merge_type": "flat",
    "mm_use_im_start_end": False,
    "mm_use_im_patch_token": False,
    "image_aspect_ratio": "pad",
}
"""The only supported value of each option that changes the model."""

_DEFAULTS: dict[str, Any] = {"mm_projector_type": "linear", "mm_use_im_patch_token": True}
"""Defaults of the authors' code that are not the supported value, so that a file without the key is refused."""


@dataclass(frozen=True)
class Published:
    """Facts about a published checkpoint that its files may leave out.

    Args:
        resolution: Side of its square images in pixels.
        convnext: Depths and widths of its ConvNeXt; None for another encoder.
        training_stage: The training stage that it results from; None for an encoder alone.
    """

    resolution: int
    convnext: Mapping[str, list[int]] | None = None
    training_stage: str | None = None


def _published() -> dict[str, Published]:
    table = {
        "ConvLLaVA/LAION-CLIP-ConvNeXt-Large-512": Published(512, CONVNEXT_L_FOUR_STAGES),
        "openai/clip-vit-large-patch14-336": Published(336),
        "liuhaotian/llava-v1.5-7b": Published(336, training_stage="instruct"),
        "llava-hf/llava-1.5-7b-hf": Published(336, training_stage="instruct"),
    }
    for resolution in RESOLUTIONS:
        for name, stage in (("pretrain", "pretrain"), ("sft", "instruct"), ("ConvNeXt", None)):
            table[f"ConvLLaVA/ConvLLaVA-{name}-{resolution}"] = Published(resolution, CONVNEXT_L_FIVE_STAGES, stage)
    return table


PUBLISHED = _published()
"""Published checkpoints by their exact hub ids."""


def published(name: object) -> Published | None:
    """Return the facts about a hub id, or None for any other value."""
    return PUBLISHED.get(name) if isinstance(name, str) else None


def check_official(config: Mapping[str, Any], path: Path) -> None:
    """Check that a configuration of LLaVA's code describes a supported model; warn of keys that are not known.

    Raises:
        ValueError: Names the key, its value and the supported value.
    """
    check_sections(config, path)
    for name, supported in _SUPPORTED.items():
        value = config.get(name, _DEFAULTS.get(name, supported))
        if value != supported:
            raise ValueError(f"{path}: {name} is {value!r}, and only {supported!r} is supported")
    for name, harmless in _FUNCTION_KEYS.items():
        if name in config and config[name] not in harmless:
            raise ValueError(
                f"{path}: {name} is {config[name]!r}, which changes the model and is not supported (only "
                f"{' or '.join(map(repr, harmless))} is)"
            )
    if unknown := unknown_keys(config):
        known = _known_keys()
        named = ", ".join(f"{key!r}{did_you_mean(key, known, 0.85)}" for key in unknown)
        logger.warning("%s: keys that are not known are ignored: %s", path, named)


def unknown_keys(config: Mapping[str, Any]) -> list[str]:
    """Return the keys of a configuration of LLaVA's code whose effect, if any, is not known."""
    return sorted(set(config) - set(_known_keys()))


def _known_keys() -> list[str]:
    return sorted(_LLAMA_KEYS | _WRITTEN_BY_TRANSFORMERS | _MODEL_KEYS | _TRAINING_KEYS | set(_FUNCTION_KEYS))


def check_select_layer(config: Mapping[str, Any], path: Path, supported: int, encoder: str) -> None:
    """Check the encoder layer whose output the projector reads.

    Args:
        config: The content of ``config.json``.
        path: The path of ``config.json``, for the message.
        supported: The only supported layer.
        encoder: The name of the encoder, for the message.

    Raises:
        ValueError: The configuration names another layer.
    """
    layer = config.get("mm_vision_select_layer", supported)
    if layer != supported:
        raise ValueError(
            f"{path}: mm_vision_select_layer is {layer!r}, and of a {encoder} only layer {supported} is supported"
        )


def llama_config(config: Mapping[str, Any], vocab_size: int) -> LlamaConfig:
    """Return the configuration of the language model.

    Args:
        config: The content of ``config.json``.
        vocab_size: The number of embeddings, with that of ``<image>``; it replaces the stored number.
    """
    values = {name: config[name] for name in _LLAMA_KEYS if name in config}
    for name in ("architectures", "dtype", "torch_dtype", "transformers_version", "model_type", "_name_or_path"):
        values.pop(name, None)
    scaling = dict(values.pop("rope_scaling", None) or {})
    rope_type = scaling.pop("type", "default")  # older files say "type"
    theta = values.pop("rope_theta", 10000.0)
    values.setdefault("rope_parameters", {"rope_type": rope_type, "rope_theta": theta, **scaling})
    return LlamaConfig(**{**values, "vocab_size": vocab_size})


def training_stage(config: Mapping[str, Any]) -> str | None:
    """Return the training stage that a configuration's flags tell, or None if there are no flags.

    The authors' scripts set ``tune_mm_mlp_adapter`` in the first stage, ``tune_vision_tower`` or
    ``tune_entire_model`` in the second, and none of them in the third.
    """
    if config.get("tune_mm_mlp_adapter"):
        return "projector_init"
    if config.get("tune_vision_tower") or config.get("tune_entire_model"):
        return "pretrain"
    return "instruct" if "tune_vision_tower" in config else None
