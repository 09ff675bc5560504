"""Read LLaVA-1.5 as transformers saves it (``LlavaForConditionalGeneration``): the paper's control with a CLIP ViT.

Images are padded to a square as in LLaVA-1.5's own code; transformers' processor crops them instead.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import AutoConfig, CLIPVisionConfig, PreTrainedTokenizerBase

from ...constants import IMAGE_TOKEN
from ...model import ConvLlavaConfig, ConvLlavaImageProcessor, ConvLlavaProcessor
from ...model.image_processing_convllava import CLIP_MEAN, CLIP_STD
from ...model.modeling_convllava import LANGUAGE_MODEL_PREFIX, PROJECTOR_PREFIX, VISION_TOWER_PREFIX
from ...support import read_json
from ..checkpoint import Checkpoint, ReadOptions, TensorNames
from ..config_files import (
    check_image_processor,
    image_token_id,
    load_tokenizer,
    read_clip_preprocessor,
    read_generation_config,
)
from ..config_values import check_depth, check_sections
from ..tensor_files import open_weights
from ..weights import Weights
from .official import PROMPT_FORMAT

NAMES = TensorNames(
    prefixes=[
        ("model.language_model.", LANGUAGE_MODEL_PREFIX),
        ("model.vision_tower.vision_model.", VISION_TOWER_PREFIX),
        ("model.", "model."),
        # older versions of transformers
        ("language_model.model.", LANGUAGE_MODEL_PREFIX),
        ("language_model.lm_head.", "lm_head."),
        ("vision_tower.vision_model.", VISION_TOWER_PREFIX),
        ("vision_tower.", VISION_TOWER_PREFIX),
        ("multi_modal_projector.", PROJECTOR_PREFIX),
    ],
    unused=r".*\.embeddings\.position_ids",
)

_REQUIRED: dict[str, Any] = {
    "vision_feature_layer": -2,
    "vision_feature_select_strategy": "default",
    "multimodal_projector_bias": True,
}
"""The only supported values; they are those of LLaVA-1.5."""


def is_layout(config: Mapping[str, Any]) -> bool:
    """Return whether a ``config.json`` is that of transformers' LLaVA."""
    return config.get("model_type") == "llava" and "mm_vision_tower" not in config


def read(folder: Path, options: ReadOptions) -> Checkpoint:
    """Read a checkpoint of transformers' ``LlavaForConditionalGeneration``.

    Raises:
        ValueError: Its files are damaged, or its encoder is not a CLIP ViT.
    """
    path = folder / "config.json"
    config = read_json(path)
    _check_config(config, path)
    files = open_weights(folder)
    check_depth(config.get("text_config") or {}, files, f"{path} (text_config)")
    check_depth(config["vision_config"], files, f"{path} (vision_config)", vision=True)
    vision = {name: value for name, value in config["vision_config"].items() if name != "model_type"}
    vision_config = CLIPVisionConfig(**vision)
    text = dict(config.get("text_config") or {})
    tokenizer = load_tokenizer(folder)
    _check_image_token(tokenizer, config, folder)
    ours = ConvLlavaConfig(
        vision_config=vision_config,
        text_config=AutoConfig.for_model(text.pop("model_type", "llama"), **text),
        image_token_id=image_token_id(tokenizer),
        image_aspect_ratio="pad",
        resolution=_resolution(folder, vision_config, options.resolution),
        prompt_format=PROMPT_FORMAT,
        projector_hidden_act=config.get("projector_hidden_act", "gelu"),
    )
    image_processor = ConvLlavaImageProcessor(
        output_stride=ours.output_stride,
        image_aspect_ratio="pad",
        resolution=ours.resolution,
        image_mean=list(CLIP_MEAN),
        image_std=list(CLIP_STD),
    )
    check_image_processor(image_processor, folder)
    return Checkpoint(
        folder=folder,
        layout="transformers-llava",
        config=ours,
        weights=Weights.renamed(files, NAMES),
        processor=ConvLlavaProcessor(image_processor, tokenizer, prompt_format=PROMPT_FORMAT),
        generation_config=read_generation_config(folder, ours.image_token_id, ours.text_config),
        names=NAMES,
    )


def _check_config(config: Mapping[str, Any], path: Path) -> None:
    check_sections(config, path, ("vision_config", "text_config"))
    encoder = (config.get("vision_config") or {}).get("model_type")
    if encoder not in ("clip_vision_model", "clip"):
        raise ValueError(
            f"{path.parent} holds a model of type 'llava' (config.json) whose vision encoder is {encoder!r}: only "
            "LLaVA-1.5 with a CLIP ViT is supported, as the control"
        )
    for name, wanted in _REQUIRED.items():
        if config.get(name, wanted) != wanted:
            raise ValueError(f"{path}: {name} is {config[name]!r}, and only {wanted!r} is supported")


def _check_image_token(tokenizer: PreTrainedTokenizerBase, config: Mapping[str, Any], folder: Path) -> None:
    found = image_token_id(tokenizer)
    stored = config.get("image_token_index", config.get("image_token_id", found))
    if found != stored:
        raise ValueError(
            f"{folder} contradicts itself: {IMAGE_TOKEN} is {found} in the tokenizer and {stored} in config.json; take "
            "both from the same model"
        )


def _resolution(folder: Path, vision_config: CLIPVisionConfig, wanted: int | None) -> int:
    side = int(vision_config.image_size)
    stored = folder / "preprocessor_config.json"
    found = read_clip_preprocessor(stored)["resolution"] if stored.is_file() else side
    for name, value in (("preprocessor_config.json", found), ("the caller", wanted or side)):
        if value != side:
            raise ValueError(
                f"{folder}: {name} says resolution {value}, but a CLIP ViT takes only its own, {side}: do not change it"
            )
    return side
