"""LLaVA-1.5 as transformers saves it: the paper's control with a CLIP ViT."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import AutoConfig, CLIPVisionConfig

from ..constants import IMAGE_TOKEN
from ..model import ConvLlavaConfig, ConvLlavaImageProcessor, ConvLlavaProcessor
from .checkpoint import Checkpoint, Weights
from .generation import read_generation_config
from .image_options import CLIP_MEAN, CLIP_STD, check_image_processor, read_clip_preprocessor
from .names import TRANSFORMERS_LLAVA
from .official import PROMPT_FORMAT
from .tensor_files import open_weights
from .tokenizers import load_tokenizer

_MUST_BE: dict[str, Any] = {
    "vision_feature_layer": -2,
    "vision_feature_select_strategy": "default",
    "multimodal_projector_bias": True,
}


def read_transformers_llava(folder: Path, config: Mapping[str, Any], resolution: int | None) -> Checkpoint:
    """Open a ``LlavaForConditionalGeneration``.

    Images are padded to a square as in LLaVA-1.5's own code; transformers' processor crops them instead.

    Raises:
        ValueError: Its files are damaged, or its encoder is no CLIP ViT.
    """
    path = folder / "config.json"
    _check(config, path)
    vision_config = CLIPVisionConfig(**_without_type(config["vision_config"]))
    text = dict(config.get("text_config") or {})
    text_config = AutoConfig.for_model(text.pop("model_type", "llama"), **text)
    tokenizer = load_tokenizer(folder)
    image_token_id = int(tokenizer.get_vocab().get(IMAGE_TOKEN, len(tokenizer)))
    if image_token_id != config.get("image_token_index", config.get("image_token_id", image_token_id)):
        raise ValueError(
            f"{folder} contradicts itself: {IMAGE_TOKEN} is {image_token_id} in the tokenizer and "
            f"{config.get('image_token_index')} in config.json; take both from the same model"
        )
    side = _resolution(folder, vision_config, resolution)
    ours = ConvLlavaConfig(
        vision_config=vision_config,
        text_config=text_config,
        image_token_id=image_token_id,
        image_aspect_ratio="pad",
        resolution=side,
        prompt_format=PROMPT_FORMAT,
        projector_hidden_act=config.get("projector_hidden_act", "gelu"),
    )
    image_processor = ConvLlavaImageProcessor(
        output_stride=ours.output_stride,
        image_aspect_ratio="pad",
        resolution=side,
        image_mean=CLIP_MEAN,
        image_std=CLIP_STD,
    )
    check_image_processor(image_processor, folder)
    ends = {name: getattr(text_config, name, None) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    return Checkpoint(
        folder=folder,
        layout="transformers-llava",
        config=ours,
        weights=Weights.named(open_weights(folder), TRANSFORMERS_LLAVA),
        processor=ConvLlavaProcessor(image_processor, tokenizer, prompt_format=PROMPT_FORMAT),
        generation_config=read_generation_config(folder, image_token_id, **ends),
        names=TRANSFORMERS_LLAVA,
    )


def _check(config: Mapping[str, Any], path: Path) -> None:
    encoder = (config.get("vision_config") or {}).get("model_type")
    if encoder not in ("clip_vision_model", "clip"):
        raise ValueError(
            f"{path.parent} holds a model of type 'llava' (config.json) whose vision encoder is {encoder!r}: of these "
            "only LLaVA-1.5 with a CLIP ViT can be loaded, as the control"
        )
    for name, wanted in _MUST_BE.items():
        if config.get(name, wanted) != wanted:
            raise ValueError(f"{path}: {name} is {config[name]!r}, and only {wanted!r} can be loaded")


def _without_type(config: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in config.items() if name != "model_type"}


def _resolution(folder: Path, vision_config: CLIPVisionConfig, resolution: int | None) -> int:
    side = int(vision_config.image_size)
    stored = folder / "preprocessor_config.json"
    says = read_clip_preprocessor(stored)["resolution"] if stored.is_file() else side
    for name, value in (("preprocessor_config.json", says), ("the caller", resolution or side)):
        if value != side:
            raise ValueError(
                f"{folder}: {name} says resolution {value}, but a CLIP ViT takes only its own, {side}: do not change it"
            )
    return side
