"""Configurations by name: the published models, the paper's controls, and the nano model."""

from collections.abc import Callable
from functools import partial
from typing import Any

from ..constants import RESOLUTIONS
from ..support import did_you_mean
from .configuration_convllava import CONVNEXT_L_DEPTHS, CONVNEXT_L_WIDTHS, ConvLlavaConfig, ConvLlavaVisionConfig
from .nano_model import nano

VICUNA_7B: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": 32001,  # Vicuna's 32000 and <image>
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-5,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
"""Configuration of Vicuna-7B v1.5, with one more token."""

QWEN3_0_6B: dict[str, Any] = {
    "model_type": "qwen3",
    "vocab_size": 151936,  # 151,669 of them used: <image> needs no new row
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "max_position_embeddings": 40960,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": True,
    "bos_token_id": 151643,
    "eos_token_id": 151645,
}
"""Configuration of Qwen3-0.6B."""

CONVNEXT_B_FOUR_STAGES: dict[str, Any] = {"depths": [3, 3, 27, 3], "hidden_sizes": [128, 256, 512, 1024]}
"""ConvNeXt-B, as published; the size of DINOv3's and EUPE's ConvNeXt-B."""

CONVNEXT_L_FIVE_STAGES: dict[str, Any] = {"depths": list(CONVNEXT_L_DEPTHS), "hidden_sizes": list(CONVNEXT_L_WIDTHS)}
"""ConvNeXt-L with the fifth stage of ConvLLaVA (paper section 3.3 and appendix B)."""

CONVNEXT_L_FOUR_STAGES: dict[str, Any] = {name: values[:4] for name, values in CONVNEXT_L_FIVE_STAGES.items()}
"""ConvNeXt-L, as published."""

CLIP_L_336: dict[str, Any] = {
    "model_type": "clip_vision_model",
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 336,
    "patch_size": 14,
    "projection_dim": 768,
}
"""Configuration of openai/clip-vit-large-patch14-336, the control of the paper's Tables 2, 3 and 8."""


def published(resolution: int, stages: dict[str, Any] = CONVNEXT_L_FIVE_STAGES) -> ConvLlavaConfig:
    """Return a published configuration: ConvNeXt-L with Vicuna-7B at 768, 1024 or 1536 pixels."""
    return ConvLlavaConfig(vision_config=ConvLlavaVisionConfig(**stages), text_config=VICUNA_7B, resolution=resolution)


def control() -> ConvLlavaConfig:
    """Return the configuration of the paper's control, LLaVA-1.5: CLIP's ViT-L/14 with Vicuna-7B."""
    return ConvLlavaConfig(vision_config=CLIP_L_336, text_config=VICUNA_7B, resolution=CLIP_L_336["image_size"])


def small() -> ConvLlavaConfig:
    """Return a small configuration of today's parts: ConvNeXt-B (DINOv3, EUPE) with Qwen3-0.6B at 1024 pixels."""
    vision_config = ConvLlavaVisionConfig(**CONVNEXT_B_FOUR_STAGES)
    return ConvLlavaConfig(
        vision_config=vision_config, text_config=QWEN3_0_6B, resolution=1024, prompt_format="tokenizer"
    )


PRESETS: dict[str, Callable[[], ConvLlavaConfig]] = {
    "nano": nano,
    **{f"convllava-7b-{side}": partial(published, side) for side in RESOLUTIONS},
    **{f"convnext-l-four-stage-7b-{side}": partial(published, side, CONVNEXT_L_FOUR_STAGES) for side in RESOLUTIONS},
    "clip-vit-l-336-7b": control,
    "convnext-b-four-stage-qwen3-0.6b": small,
}
"""Builders of configurations by name."""


def preset(name: str) -> ConvLlavaConfig:
    """Return the configuration called ``name``.

    Raises:
        ValueError: The name is unknown; the message suggests the nearest.
    """
    if name not in PRESETS:
        raise ValueError(f"unknown preset {name!r}: choose one of {', '.join(PRESETS)}{did_you_mean(name, PRESETS)}")
    return PRESETS[name]()
