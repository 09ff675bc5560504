"""Checkpoints of LLaVA's family of code: ConvLLaVA in its authors' two layouts, and LLaVA-1.5 as the control."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from ..constants import IMAGE_TOKEN
from ..model import ConvLlavaConfig, ConvLlavaImageProcessor, ConvLlavaProcessor, ConvLlavaVisionConfig
from .checkpoint import Checkpoint, Layout, Weights
from .generation import read_generation_config
from .image_options import CLIP_MEAN, CLIP_STD, check_image_processor, read_clip_preprocessor
from .json_files import read_json
from .names import AUTHORS, AUTHORS_CLIP, AUTHORS_CLIP_TOWER, AUTHORS_TOWER, Names
from .official_config import check_official, check_select_layer, llama_config, training_stage
from .published import PUBLISHED, Published
from .tensor_files import WeightFiles, open_weights
from .tokenizers import load_tokenizer
from .tower_shape import clip_config, convnext_config, is_clip

TOWER_FOLDER = "vision_tower"
"""Where the tower lies in the split layout, whatever path the configuration names."""

PROMPT_FORMAT = "vicuna_v1"
"""Of the authors' inference, and of LLaVA-1.5's."""

EMBEDDINGS, HEAD = "model.language_model.embed_tokens.weight", "lm_head.weight"


def read_official(
    folder: Path,
    config: Mapping[str, Any],
    resolution: int | None,
    hub_id: str | None,
    *,
    needs_resolution: bool = True,
) -> Checkpoint:
    """Open a checkpoint that the authors' code, or LLaVA-1.5's, has written.

    Args:
        folder: Where it lies.
        config: Its config.json.
        resolution: Replaces its own; needed where neither its files nor the table of published ids tell it.
        hub_id: Where it was fetched from.
        needs_resolution: Whether to refuse a checkpoint whose resolution nobody tells; otherwise it is open.

    Raises:
        ValueError: Its files are damaged, contradict each other, or say what is not known here.
    """
    path = folder / "config.json"
    check_official(config, path)
    tower_folder = folder / TOWER_FOLDER
    main, tower = _open_files(folder, tower_folder)
    tokenizer = load_tokenizer(folder)
    image_token_id = _image_token_id(tokenizer)
    rows = max(config["vocab_size"], image_token_id + 1)
    names, weights = _rename(main, tower, rows - config["vocab_size"], bool(config.get("tie_word_embeddings")))
    vision_config = _vision_config(weights, tower_folder, folder, config, path)
    options = _image_options(tower_folder, config, resolution, hub_id, folder, needs_resolution)
    ours = ConvLlavaConfig(
        vision_config=vision_config,
        text_config=llama_config(config, rows),
        image_token_id=image_token_id,
        image_aspect_ratio=_aspect_ratio(options),
        resolution=options["resolution"],
        prompt_format=PROMPT_FORMAT,
    )
    return Checkpoint(
        folder=folder,
        layout=_layout(vision_config, tower),
        config=ours,
        weights=weights,
        processor=_processor(ours, tokenizer, options, folder),
        generation_config=_generation_config(folder, ours),
        names=names,
        notes=_notes(config, options, hub_id),
    )


def _open_files(folder: Path, tower_folder: Path) -> tuple[WeightFiles, WeightFiles | None]:
    main = open_weights(folder)
    if not tower_folder.is_dir():
        return main, None
    inside = [name for name in main if name.startswith("model.vision_tower.")]
    if inside:
        raise ValueError(
            f"{folder} has two vision encoders: {len(inside)} tensors such as {inside[0]} in the model's own files and "
            f"another in {TOWER_FOLDER}/; remove the one that the model was not trained with"
        )
    return main, open_weights(tower_folder)


def _image_token_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """Return the id that ``<image>`` has or, as the next free one, will get."""
    return int(tokenizer.get_vocab().get(IMAGE_TOKEN, len(tokenizer)))


def _rename(main: WeightFiles, tower: WeightFiles | None, rows: int, tied: bool) -> tuple[Names, Weights]:
    places = main if tower is None else tower
    clip = any(name.endswith("embeddings.class_embedding") for name in places)
    names = AUTHORS_CLIP if clip else AUTHORS
    grown = {EMBEDDINGS: rows, HEAD: rows} if not tied else {EMBEDDINGS: rows}
    weights = Weights.named(main, names, grown)
    if tower is not None:
        weights = weights.joined(Weights.named(tower, AUTHORS_CLIP_TOWER if clip else AUTHORS_TOWER))
    return names, weights


def _vision_config(
    weights: Weights, tower_folder: Path, folder: Path, config: Mapping[str, Any], path: Path
) -> PreTrainedConfig:
    shapes = weights.tower_shapes()
    if not shapes:
        raise ValueError(
            f"{folder} has no vision encoder: config.json names {config.get('mm_vision_tower')!r}, which may not be "
            f"the one the model was trained with; put that into {TOWER_FOLDER}/ of the checkpoint"
        )
    stored = read_json(tower_folder / "config.json") if tower_folder.is_dir() else None
    if is_clip(shapes):
        check_select_layer(config, path, -2, "CLIP ViT")
        return clip_config(shapes, None if stored is None else stored.get("vision_config", stored), str(folder))
    check_select_layer(config, path, -1, "ConvNeXt")
    found = convnext_config(shapes, str(folder))
    if stored is not None:
        _check_tower_config(found, stored, tower_folder / "config.json")
    _check_published_shape(found, config, folder)
    _check_width(found, config, path)
    return found


def _check_tower_config(found: ConvLlavaVisionConfig, stored: Mapping[str, Any], path: Path) -> None:
    says = {
        "depths": found.depths,
        "hidden_sizes": found.hidden_sizes,
        "num_stages": found.num_stages,
        "num_channels": found.num_channels,
        "hidden_act": found.hidden_act,
        "patch_size": 4,
    }
    for name, value in says.items():
        if name in stored and stored[name] != value:
            raise ValueError(f"{path}: {name} is {stored[name]}, but the tensors say {value}; repair one of the two")


def _check_published_shape(found: ConvLlavaVisionConfig, config: Mapping[str, Any], folder: Path) -> None:
    known = PUBLISHED.get(str(config.get("mm_vision_tower")))
    shape = (tuple(found.depths), tuple(found.hidden_sizes))
    if known is not None and known.shape is not None and shape != known.shape:
        raise ValueError(
            f"{folder}: {config['mm_vision_tower']} has depths and widths {known.shape}, but the tensors say {shape}; "
            "copy or download the checkpoint again, or correct mm_vision_tower"
        )


def _check_width(found: ConvLlavaVisionConfig, config: Mapping[str, Any], path: Path) -> None:
    if config.get("mm_hidden_size", found.hidden_size) != found.hidden_size:
        raise ValueError(
            f"{path}: mm_hidden_size is {config['mm_hidden_size']}, but the encoder's last stage is "
            f"{found.hidden_size} wide; repair one of the two"
        )


def _image_options(
    tower_folder: Path,
    config: Mapping[str, Any],
    resolution: int | None,
    hub_id: str | None,
    folder: Path,
    needs_resolution: bool,
) -> dict[str, Any]:
    """Find resolution, mean and std: in the caller's word, then in the files, then in the table of hub ids."""
    options: dict[str, Any] = {"image_mean": CLIP_MEAN, "image_std": CLIP_STD, "rescale_factor": 1 / 255}
    found: dict[str, int] = {}
    stored = tower_folder / "preprocessor_config.json"
    if stored.is_file():
        options |= read_clip_preprocessor(stored)
        found["vision_tower/preprocessor_config.json"] = options["resolution"]
    if tower_folder.is_dir() and isinstance(side := read_json(tower_folder / "config.json").get("image_size"), int):
        found["vision_tower/config.json"] = side
    if isinstance(side := config.get("mm_vision_resolution"), int):
        found["config.json"] = side
    for name in (hub_id, config.get("mm_vision_tower")):
        if not found and (published := _published(name)) is not None:
            found[f"the published {name}"] = published.resolution
    if resolution is not None:
        return options | {"resolution": resolution, "resolution_from": "the caller"}
    if not found and not needs_resolution:
        return options | {"resolution": None, "resolution_from": None}
    return options | _agreed(found, config, folder)


def _aspect_ratio(options: Mapping[str, Any]) -> str:
    return "pad" if options["resolution"] is not None else "native"


def _published(name: Any) -> Published | None:
    return PUBLISHED.get(name) if isinstance(name, str) else None


def _agreed(found: Mapping[str, int], config: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    if not found:
        raise ValueError(
            f"{folder} does not say at which resolution its images are shown, and "
            f"{config.get('mm_vision_tower')!r} is no published encoder: give it as resolution (--resolution), or "
            "write it down once with `convllava convert SRC DST --resolution PIXELS`"
        )
    if len(set(found.values())) > 1:
        said = ", ".join(f"{side} in {place}" for place, side in found.items())
        raise ValueError(f"{folder} contradicts itself: the resolution is {said}; give the right one as resolution")
    place, side = next(iter(found.items()))
    return {"resolution": side, "resolution_from": place}


def _layout(vision_config: PreTrainedConfig, tower: WeightFiles | None) -> Layout:
    if not isinstance(vision_config, ConvLlavaVisionConfig):
        return "llava-1.5"
    return "official-consolidated" if tower is None else "official-split"


def _processor(
    config: ConvLlavaConfig, tokenizer: PreTrainedTokenizerBase, options: Mapping[str, Any], folder: Path
) -> ConvLlavaProcessor:
    image_processor = ConvLlavaImageProcessor(
        output_stride=config.output_stride,
        image_aspect_ratio=config.image_aspect_ratio,
        **{name: options[name] for name in ("resolution", "image_mean", "image_std", "rescale_factor")},
    )
    check_image_processor(image_processor, folder)
    return ConvLlavaProcessor(image_processor, tokenizer, prompt_format=config.prompt_format)


def _generation_config(folder: Path, config: ConvLlavaConfig) -> Any:
    text = config.text_config
    defaults = {name: getattr(text, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    return read_generation_config(folder, config.image_token_id, **defaults)


def _notes(config: Mapping[str, Any], options: Mapping[str, Any], hub_id: str | None) -> dict[str, Any]:
    published = _published(hub_id)
    return {
        "vision_tower_named": config.get("mm_vision_tower"),
        "resolution_from": options["resolution_from"],
        "training_stage": published.training_stage if published else training_stage(config),
    }
