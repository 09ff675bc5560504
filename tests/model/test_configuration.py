"""Configurations: derived values, rejected values, and the published sizes."""

from pathlib import Path
from typing import Any

import pytest
import torch

from convllava.constants import PRESET_NAMES
from convllava.model import (
    PRESETS,
    ConvLlavaConfig,
    ConvLlavaForConditionalGeneration,
    ConvLlavaVisionConfig,
    preset,
)


@pytest.mark.parametrize(("stages", "stride"), [(1, 4), (4, 32), (5, 64), (6, 128)])
def test_stride_follows_from_the_stages(stages: int, stride: int) -> None:
    config = ConvLlavaVisionConfig(depths=[1] * stages, hidden_sizes=[8] * stages)
    assert (config.num_stages, config.output_stride) == (stages, stride)
    assert config.out_features == [f"stage{stages}"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"depths": [1, 1], "hidden_sizes": [8]}, "depths has 2 stages .* hidden_sizes has 1"),
        ({"depths": [], "hidden_sizes": []}, "at least one stage"),
        ({"depths": [1, 0], "hidden_sizes": [8, 8]}, "depths must be at least 1"),
        ({"depths": [1], "hidden_sizes": [8], "kernel_size": 4}, "kernel_size must be odd"),
        ({"depths": [1], "hidden_sizes": [8], "layer_scale_init_value": 0.0}, "layer_scale_init_value"),
    ],
)
def test_impossible_encoders_are_rejected(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ConvLlavaVisionConfig(**values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"image_aspect_ratio": "anyres"}, "image_aspect_ratio is 'anyres'; choose one of pad, native"),
        ({"prompt_format": "v1"}, "prompt_format is 'v1'"),
        ({"image_aspect_ratio": "pad", "resolution": None}, "resolution is None: image_aspect_ratio 'pad' needs it"),
        ({"resolution": 32}, "resolution 32 is less than the 64 pixels of one visual token"),
        ({"image_token_id": 50}, "image_token_id 50 is outside the vocabulary of 50"),
        ({"trained_visual_tokens": [9, 4]}, r"trained_visual_tokens must be .* got \[9, 4\]"),
        ({"trained_visual_tokens": [0, 4]}, r"trained_visual_tokens must be .* got \[0, 4\]"),
    ],
)
def test_contradictions_are_rejected(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ConvLlavaConfig(text_config={"vocab_size": 50, "hidden_size": 64, "num_attention_heads": 2}, **values)


def test_the_sizes_of_the_training_are_stored_or_follow_from_the_square(tmp_path: Path) -> None:
    assert [preset(f"convllava-7b-{side}").visual_token_range for side in (768, 1024, 1536)] == [
        (144, 144),
        (256, 256),
        (576, 576),
    ]
    assert preset("nano").visual_token_range is None
    text_config = {"vocab_size": 64, "hidden_size": 32, "num_attention_heads": 2}
    config = ConvLlavaConfig(
        text_config=text_config, image_aspect_ratio="native", resolution=None, trained_visual_tokens=[1, 35]
    )
    config.save_pretrained(tmp_path)
    assert ConvLlavaConfig.from_pretrained(tmp_path).visual_token_range == (1, 35)


def test_the_names_of_the_presets_are_known_without_torch() -> None:
    assert tuple(PRESETS) == PRESET_NAMES


def test_any_language_model_config_round_trips(tmp_path: Path) -> None:
    text_config = {"model_type": "qwen2", "vocab_size": 64, "hidden_size": 32, "num_attention_heads": 2}
    config = ConvLlavaConfig(text_config=text_config, image_aspect_ratio="native", resolution=None)
    config.save_pretrained(tmp_path)
    again = ConvLlavaConfig.from_pretrained(tmp_path)
    assert again.text_config.model_type == "qwen2"
    assert (again.image_aspect_ratio, again.resolution, again.image_token_id) == ("native", None, 63)
    assert again.to_dict() == config.to_dict()


def test_published_sizes() -> None:
    """669 M parameters in the five-stage encoder, 200 M in the four-stage one (paper, section 3 and appendix B)."""
    with torch.device("meta"):
        five = ConvLlavaForConditionalGeneration(preset("convllava-7b-1536"))
        four = ConvLlavaForConditionalGeneration(preset("convnext-l-four-stage-7b-768"))
    counts = [sum(p.numel() for p in model.model.vision_tower.parameters()) for model in (five, four)]
    assert [round(count / 1e6) for count in counts] == [669, 196]
    assert five.config.output_stride == 64
    assert sum(p.numel() for p in five.model.language_model.parameters()) > 6.5e9


def test_unknown_preset_names_the_nearest() -> None:
    assert all(preset(name).output_stride in (14, 32, 64) for name in PRESETS)
    with pytest.raises(ValueError, match=r"unknown preset 'convllava-7b-1563': .*; did you mean 'convllava-7b-1536'\?"):
        preset("convllava-7b-1563")
