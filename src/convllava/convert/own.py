"""Checkpoints in our own layout."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from transformers import PreTrainedConfig

from ..model import ConvLlavaConfig, ConvLlavaProcessor
from .checkpoint import Checkpoint, Weights
from .generation import read_generation_config
from .image_options import check_image_processor
from .json_files import check_keys
from .names import OWN
from .tensor_files import open_weights

_SHARED_OPTIONS = ("image_aspect_ratio", "resolution", "output_stride")
"""What both the model's configuration and the image processor say."""

_WRITTEN_BY_TRANSFORMERS = frozenset(
    "_name_or_path architectures auto_map dtype torch_dtype transformers_version model_type "
    "_attn_implementation_autoset use_cache quantization_config rope_theta rope_scaling".split()
)


def read_own(folder: Path, config: Mapping[str, Any], resolution: int | None) -> Checkpoint:
    """Open a checkpoint in our own layout.

    Args:
        folder: Where it lies.
        config: Its config.json.
        resolution: Replaces its own.

    Raises:
        ValueError: Its files are damaged or contradict each other.
    """
    ours = _read_config(folder / "config.json", config)
    weights = Weights.named(open_weights(folder), OWN)
    processor = _read_processor(folder)
    check_image_processor(processor.image_processor, folder)
    _check_agreement(ours, processor, folder)
    if resolution is not None:
        set_resolution(ours, processor, resolution)
    return Checkpoint(
        folder=folder,
        layout="convllava",
        config=ours,
        weights=weights,
        processor=processor,
        generation_config=read_generation_config(folder, ours.image_token_id, **_end_tokens(ours)),
        notes={"training_stage": _training_stage(folder), "resolution_from": "config.json"},
    )


def set_resolution(config: ConvLlavaConfig, processor: ConvLlavaProcessor, resolution: int) -> None:
    """Show images at another resolution from now on.

    Raises:
        ValueError: It is less than one output cell.
    """
    if resolution < config.output_stride:
        raise ValueError(f"resolution {resolution} is less than one output cell of {config.output_stride} pixels")
    config.resolution = processor.image_processor.resolution = resolution


def _read_config(path: Path, stored: Mapping[str, Any]) -> ConvLlavaConfig:
    try:
        config = ConvLlavaConfig.from_dict(dict(stored))
    except Exception as error:  # transformers checks types with errors of its own
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ValueError(f"{path} describes no model: {reason}") from error
    _check_known_keys(path, stored, config)
    return config


def _check_known_keys(path: Path, stored: Mapping[str, Any], config: ConvLlavaConfig) -> None:
    parts: list[tuple[Mapping[str, Any], PreTrainedConfig, str]] = [
        (stored, ConvLlavaConfig(), str(path)),
        (stored.get("vision_config") or {}, type(config.vision_config)(), f"{path} (vision_config)"),
        (stored.get("text_config") or {}, type(config.text_config)(), f"{path} (text_config)"),
    ]
    for given, default, where in parts:
        check_keys(given, {*default.to_dict(), *_fields(default), *_WRITTEN_BY_TRANSFORMERS}, where)


def _fields(config: PreTrainedConfig) -> list[str]:
    return [name for name in vars(config) if not name.startswith("_")] + ["out_features", "out_indices"]


def _read_processor(folder: Path) -> ConvLlavaProcessor:
    try:
        return ConvLlavaProcessor.from_pretrained(folder)
    except Exception as error:  # tokenizer files can be wrong in any way
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ValueError(
            f"cannot load the processor (tokenizer and image options) of {folder}: {reason}; "
            "save it beside the model with processor.save_pretrained"
        ) from error


def _check_agreement(config: ConvLlavaConfig, processor: ConvLlavaProcessor, folder: Path) -> None:
    """Check that model and processor mean the same images and the same vocabulary."""
    pairs = {name: (getattr(config, name), getattr(processor.image_processor, name)) for name in _SHARED_OPTIONS}
    pairs["image_token_id"] = (config.image_token_id, processor.image_token_id)
    pairs["prompt_format"] = (config.prompt_format, processor.prompt_format)
    for name, (of_model, of_processor) in pairs.items():
        if of_model != of_processor:
            raise ValueError(
                f"{folder} contradicts itself: {name} is {of_model!r} in config.json and {of_processor!r} in "
                "processor_config.json; make them equal"
            )
    tokens, rows = len(processor.tokenizer), config.get_text_config(decoder=True).vocab_size
    if tokens > rows:
        raise ValueError(
            f"{folder}: the tokenizer has {tokens} tokens and the language model only {rows}; save both from "
            "the same model"
        )


def _end_tokens(config: ConvLlavaConfig) -> dict[str, Any]:
    text = config.get_text_config(decoder=True)
    return {name: getattr(text, name, None) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}


def _training_stage(folder: Path) -> str | None:
    """Return the training stage whose recipe was saved with the checkpoint."""
    path = folder / "recipe.yaml"
    if not path.is_file():
        return None
    try:
        recipe = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not valid YAML: remove or repair it") from error
    return recipe.get("training_stage") if isinstance(recipe, dict) else None
