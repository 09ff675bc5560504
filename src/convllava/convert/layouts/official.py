"""Read checkpoints of LLaVA's family of code: ConvLLaVA as its authors save it, and LLaVA-1.5 as the control.

::

    split                               consolidated (LLaVA-1.5 too)
      config.json                         config.json
      tokenizer.model, ...                tokenizer.model, ...
      pytorch_model.bin                   pytorch_model-00001-of-00002.bin, ...
        model.layers.*                      model.layers.*
        model.mm_projector.*                model.mm_projector.*
        lm_head.weight                      lm_head.weight
      vision_tower/                         model.vision_tower.vision_tower.*
        config.json
        preprocessor_config.json
        pytorch_model.bin

Reading checks ``config.json``, opens the weight files (names and shapes only), gives every tensor this package's name,
reads the encoder's shape off its tensors, finds the resolution, and builds the configuration and the processor.
``config.json`` names the encoder that training *started* from, so that path or hub id is never followed.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from ...model import ConvLlavaConfig, ConvLlavaImageProcessor, ConvLlavaProcessor, ConvLlavaVisionConfig
from ...model.image_processing_convllava import CLIP_MEAN, CLIP_STD
from ...model.modeling_convllava import VISION_TOWER_PREFIX
from ...model.presets import CLIP_L_336
from ...support import read_json
from ..checkpoint import EMBEDDINGS, HEAD, Checkpoint, LayoutName, ReadOptions, TensorNames
from ..config_files import (
    check_image_processor,
    image_token_id,
    load_tokenizer,
    read_clip_preprocessor,
    read_generation_config,
)
from ..config_values import check_depth, check_sections
from ..encoder_tensors import CLIP_NAMES, clip_config, convnext_config, is_clip
from ..tensor_files import WeightFiles, open_weights
from ..weights import Weights
from .official_config import check_official, check_select_layer, llama_config, published, training_stage, unknown_keys

MODEL_TYPES = ("llava_llama", "llava")
"""Values of ``model_type`` in LLaVA's family of code; transformers uses the second one too."""

TOWER_FOLDER = "vision_tower"
"""Folder of the vision encoder in the split layout."""

PROMPT_FORMAT = "vicuna_v1"
"""Prompt format of the authors' inference and of LLaVA-1.5."""

_LANGUAGE_NAMES = [
    ("model.mm_projector.0.", "model.multi_modal_projector.linear_1."),
    ("model.mm_projector.2.", "model.multi_modal_projector.linear_2."),
    ("model.", "model.language_model."),
]
_INNER_TOWER = "model.vision_tower.vision_tower."
_ROTARY_TABLE = r"model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq"  # saved by transformers before 4.32

NAMES = TensorNames(
    prefixes=[(_INNER_TOWER, VISION_TOWER_PREFIX), *_LANGUAGE_NAMES],
    unused=rf"{_ROTARY_TABLE}|{re.escape(_INNER_TOWER)}layernorm\.(weight|bias)",
)
"""Tensor names of the model's own files with a ConvNeXt, whose last norm is never applied."""

TOWER_NAMES = TensorNames(prefixes=[("", VISION_TOWER_PREFIX)], unused=r"layernorm\.(weight|bias)")
"""Tensor names of a ConvNeXt in ``vision_tower/``."""

LLAVA_NAMES = TensorNames(
    prefixes=[(_INNER_TOWER + "vision_model.", VISION_TOWER_PREFIX), *_LANGUAGE_NAMES],
    unused=rf"{_ROTARY_TABLE}|.*\.embeddings\.position_ids",
)
"""Tensor names of the model's own files with a CLIP ViT (LLaVA-1.5)."""


def is_layout(config: Mapping[str, Any]) -> bool:
    """Return whether a ``config.json`` was written by LLaVA's family of code."""
    return config.get("model_type") in MODEL_TYPES and "mm_vision_tower" in config


def read(folder: Path, options: ReadOptions) -> Checkpoint:
    """Read a checkpoint that the authors' code, or LLaVA-1.5's, has written.

    Raises:
        ValueError: Its files are damaged, contradict each other, or describe a model that is not supported.
    """
    path = folder / "config.json"
    config = read_json(path)
    check_official(config, path)
    model_files, tower_files = _open_files(folder)
    check_depth(config, model_files, str(path))
    tokenizer = load_tokenizer(folder)
    vocab_size = max(config["vocab_size"], image_token_id(tokenizer) + 1)
    names, weights = _rename(model_files, tower_files, config, vocab_size - config["vocab_size"])
    vision_config = _vision_config(weights, folder, config)
    images = _image_options(folder, config, options)
    resolution_from = images.pop("resolution_from")
    ours = ConvLlavaConfig(
        vision_config=vision_config,
        text_config=llama_config(config, vocab_size),
        image_token_id=image_token_id(tokenizer),
        image_aspect_ratio="native" if images["resolution"] is None else "pad",
        resolution=images["resolution"],
        prompt_format=PROMPT_FORMAT,
    )
    known = published(options.hub_id)
    return Checkpoint(
        folder=folder,
        layout=_layout_name(vision_config, tower_files),
        config=ours,
        weights=weights,
        processor=_processor(ours, tokenizer, images, folder),
        generation_config=read_generation_config(folder, ours.image_token_id, ours.text_config),
        names=names,
        notes={
            "vision_tower_named": config.get("mm_vision_tower"),
            "resolution_from": resolution_from,
            "training_stage": known.training_stage if known else training_stage(config),
            "ignored_keys": unknown_keys(config),
        },
    )


def published_config(config: Mapping[str, Any], path: Path, hub_id: str | None) -> ConvLlavaConfig:
    """Return the configuration of a published checkpoint, whose encoder is known without its weights.

    Args:
        config: The content of its ``config.json``.
        path: The path of that file, for the message.
        hub_id: The hub id that it was downloaded from, if any.

    Raises:
        ValueError: Neither the hub id nor the encoder that the file names is a published one.
    """
    check_official(config, path)
    known = published(hub_id) or published(config.get("mm_vision_tower"))
    if known is None:
        raise ValueError(
            f"{path}: the vision encoder {config.get('mm_vision_tower')!r} is not a published one, so its shape is "
            "only known from the weights, which are not there: download the checkpoint and give its directory"
        )
    vision = (
        CLIP_L_336 if known.convnext is None else {"model_type": ConvLlavaVisionConfig.model_type, **known.convnext}
    )
    vocab_size = config["vocab_size"] + 1  # <image>
    return ConvLlavaConfig(
        vision_config=vision,
        text_config=llama_config(config, vocab_size),
        image_token_id=vocab_size - 1,
        image_aspect_ratio="pad",
        resolution=known.resolution,
        prompt_format=PROMPT_FORMAT,
    )


def _open_files(folder: Path) -> tuple[WeightFiles, WeightFiles | None]:
    """Open the model's own files and, in the split layout, those of the encoder."""
    model_files = open_weights(folder)
    if not (folder / TOWER_FOLDER).is_dir():
        return model_files, None
    inside = [name for name in model_files if name.startswith("model.vision_tower.")]
    if inside:
        raise ValueError(
            f"{folder} has two vision encoders: {len(inside)} tensors such as {inside[0]} in the model's own files and "
            f"another in {TOWER_FOLDER}/; remove the one that the model was not trained with"
        )
    return model_files, open_weights(folder / TOWER_FOLDER)


def _rename(
    model_files: WeightFiles, tower_files: WeightFiles | None, config: Mapping[str, Any], new_rows: int
) -> tuple[TensorNames, Weights]:
    """Return the mapping of names and all tensors, with a row for ``<image>`` appended to embeddings and head."""
    searched = model_files if tower_files is None else tower_files
    clip = any(name.endswith("embeddings.class_embedding") for name in searched)
    names = LLAVA_NAMES if clip else NAMES
    growing = (EMBEDDINGS,) if config.get("tie_word_embeddings") else (EMBEDDINGS, HEAD)
    weights = Weights.renamed(model_files, names, dict.fromkeys(growing, new_rows))
    if tower_files is not None:
        weights = weights.merged(Weights.renamed(tower_files, CLIP_NAMES if clip else TOWER_NAMES))
    return names, weights


def _layout_name(vision_config: PreTrainedConfig, tower_files: WeightFiles | None) -> LayoutName:
    if not isinstance(vision_config, ConvLlavaVisionConfig):
        return "llava-1.5"
    return "official-consolidated" if tower_files is None else "official-split"


def _vision_config(weights: Weights, folder: Path, config: Mapping[str, Any]) -> PreTrainedConfig:
    """Read the encoder's configuration off its tensors, and compare it with every file that describes the encoder."""
    shapes = weights.below(VISION_TOWER_PREFIX).shapes()
    if not shapes:
        raise ValueError(
            f"{folder} has no vision encoder: config.json names {config.get('mm_vision_tower')!r}, which may not be "
            f"the one the model was trained with; put that into {TOWER_FOLDER}/ of the checkpoint"
        )
    path, tower_path = folder / "config.json", folder / TOWER_FOLDER / "config.json"
    stored = read_json(tower_path) if tower_path.parent.is_dir() else None
    check_sections(stored or {}, tower_path, ("vision_config",))
    if is_clip(shapes):
        check_select_layer(config, path, -2, "CLIP ViT")
        return clip_config(shapes, stored, str(folder))
    check_select_layer(config, path, -1, "ConvNeXt")
    found = convnext_config(shapes, str(folder))
    _check_tower_config(found, stored or {}, tower_path)
    _check_published(found, config, folder)
    if config.get("mm_hidden_size", found.hidden_size) != found.hidden_size:
        raise ValueError(
            f"{path}: mm_hidden_size is {config['mm_hidden_size']}, but the encoder's last stage is "
            f"{found.hidden_size} wide; repair one of the two"
        )
    return found


def _check_tower_config(found: ConvLlavaVisionConfig, stored: Mapping[str, Any], path: Path) -> None:
    expected = {
        "depths": found.depths,
        "hidden_sizes": found.hidden_sizes,
        "num_stages": found.num_stages,
        "num_channels": found.num_channels,
        "hidden_act": found.hidden_act,
        "patch_size": 4,
    }
    for name, value in expected.items():
        if name in stored and stored[name] != value:
            raise ValueError(f"{path}: {name} is {stored[name]}, but the tensors say {value}; repair one of the two")


def _check_published(found: ConvLlavaVisionConfig, config: Mapping[str, Any], folder: Path) -> None:
    known = published(config.get("mm_vision_tower"))
    if known is None or known.convnext is None:
        return
    wanted = tuple(tuple(known.convnext[name]) for name in ("depths", "hidden_sizes"))
    shape = (tuple(found.depths), tuple(found.hidden_sizes))
    if shape != wanted:
        raise ValueError(
            f"{folder}: {config['mm_vision_tower']} has depths and widths {wanted}, but the tensors say {shape}; "
            "copy or download the checkpoint again, or correct mm_vision_tower"
        )


def _image_options(folder: Path, config: Mapping[str, Any], options: ReadOptions) -> dict[str, Any]:
    """Return resolution, where it was found, mean, standard deviation and rescale factor.

    The caller's resolution comes first, then those in the files, which must agree, then that of a published hub id.
    """
    images: dict[str, Any] = {"image_mean": list(CLIP_MEAN), "image_std": list(CLIP_STD), "rescale_factor": 1 / 255}
    found: dict[str, int] = {}
    tower_folder = folder / TOWER_FOLDER
    stored = tower_folder / "preprocessor_config.json"
    if stored.is_file():
        images |= read_clip_preprocessor(stored)
        found[f"{TOWER_FOLDER}/preprocessor_config.json"] = images["resolution"]
    if tower_folder.is_dir() and isinstance(side := read_json(tower_folder / "config.json").get("image_size"), int):
        found[f"{TOWER_FOLDER}/config.json"] = side
    if isinstance(side := config.get("mm_vision_resolution"), int):
        found["config.json"] = side
    for name in (options.hub_id, config.get("mm_vision_tower")):
        if not found and (known := published(name)) is not None:
            found[f"the published {name}"] = known.resolution
    if options.resolution is not None:
        return images | {"resolution": options.resolution, "resolution_from": "the caller"}
    if not found and not options.needs_resolution:
        return images | {"resolution": None, "resolution_from": None}
    place, side = _agreed(found, config, folder)
    return images | {"resolution": side, "resolution_from": place}


def _agreed(found: Mapping[str, int], config: Mapping[str, Any], folder: Path) -> tuple[str, int]:
    if not found:
        raise ValueError(
            f"{folder}: resolution is not set, and {config.get('mm_vision_tower')!r} is no published encoder: pass "
            "resolution= (--resolution), which is 768, 1024 or 1536 in the paper, or store it once with `convllava "
            "convert SRC DST --resolution PIXELS`"
        )
    if len(set(found.values())) > 1:
        values = ", ".join(f"{side} in {place}" for place, side in found.items())
        raise ValueError(f"{folder} contradicts itself: resolution is {values}; pass the right one as resolution")
    return next(iter(found.items()))


def _processor(
    config: ConvLlavaConfig, tokenizer: PreTrainedTokenizerBase, images: Mapping[str, Any], folder: Path
) -> ConvLlavaProcessor:
    image_processor = ConvLlavaImageProcessor(
        output_stride=config.output_stride, image_aspect_ratio=config.image_aspect_ratio, **images
    )
    check_image_processor(image_processor, folder)
    return ConvLlavaProcessor(image_processor, tokenizer, prompt_format=config.prompt_format)
