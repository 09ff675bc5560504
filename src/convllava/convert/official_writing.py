"""Writing what the authors' code reads: the split layout, the tower in a folder of its own."""

import json
import shutil
from pathlib import Path
from typing import Any

import torch

from ..constants import IMAGE_TOKEN
from ..model import ConvLlavaVisionConfig
from .checkpoint import Checkpoint
from .destination import whole_or_nothing
from .image_options import BICUBIC
from .json_files import read_json, write_json
from .names import AUTHORS, VISION_TOWER
from .official import EMBEDDINGS, HEAD, PROMPT_FORMAT, TOWER_FOLDER
from .shards import Piece, write_weights
from .tokenizers import SENTENCEPIECE, load_tokenizer

ORIGINAL = "original"
"""Folder of our layout in which the small files of a foreign checkpoint are kept for the way back."""

_TOKENIZER_FILES = (SENTENCEPIECE, "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
_TEXT_KEYS = (
    "attention_bias attention_dropout bos_token_id eos_token_id hidden_act hidden_size initializer_range "
    "intermediate_size max_position_embeddings num_attention_heads num_hidden_layers num_key_value_heads pad_token_id "
    "pretraining_tp rms_norm_eps use_cache"
).split()
_OLDEST_TRANSFORMERS = "4.39.3"


def original_folder(checkpoint: Checkpoint) -> Path | None:
    """Return where the small files that the authors' code wrote are; None where they are lost."""
    if checkpoint.layout in ("official-split", "official-consolidated"):
        return checkpoint.folder
    if checkpoint.layout == "parts":  # whatever lies beside the language model is not of this checkpoint
        return None
    kept = checkpoint.folder / ORIGINAL
    return kept if (kept / "config.json").is_file() else None


def write_official(
    checkpoint: Checkpoint, destination: Path, dtype: torch.dtype | None, shard_size: int
) -> list[Piece]:
    """Write a checkpoint as the authors' code reads it, the row of ``<image>`` dropped.

    Raises:
        ValueError: The model has something that their code does not know; the message names it.
        OSError: Writing failed; nothing is left behind.
    """
    _check_known_there(checkpoint)
    config = _model_config(checkpoint, dtype)
    model, tower = _pieces(checkpoint, dtype, config["vocab_size"])
    with whole_or_nothing(destination, sum(piece.num_bytes for piece in [*model, *tower])) as folder:
        write_json(folder / "config.json", config)
        _write_generation_config(checkpoint, folder)
        _write_tokenizer(checkpoint, folder)
        (folder / TOWER_FOLDER).mkdir()
        write_json(folder / TOWER_FOLDER / "config.json", _tower_config(checkpoint, tower[0].dtype))
        write_json(folder / TOWER_FOLDER / "preprocessor_config.json", _preprocessor(checkpoint))
        write_weights(folder / TOWER_FOLDER, tower, shard_size)
        write_weights(folder, model, shard_size)
    return [*model, *tower]


def _check_known_there(checkpoint: Checkpoint) -> None:
    config, vision = checkpoint.config, checkpoint.config.vision_config
    if not isinstance(vision, ConvLlavaVisionConfig):
        raise ValueError(f"{checkpoint.folder}: the authors' layout is for ConvNeXt; this encoder is a CLIP ViT")
    facts = {
        "the language model": (config.text_config.model_type, "llama"),
        "prompt_format": (config.prompt_format, PROMPT_FORMAT),
        "kernel_size": (vision.kernel_size, 7),
        "the encoder's hidden_act": (vision.hidden_act, "gelu"),
        "layer_norm_eps": (vision.layer_norm_eps, 1e-6),
        "projector_hidden_act": (config.projector_hidden_act, "gelu"),
    }
    for name, (value, wanted) in facts.items():
        if value != wanted:
            raise ValueError(f"{checkpoint.folder}: {name} is {value!r}, and the authors' code knows only {wanted!r}")
    if config.resolution is None:
        raise ValueError(
            f"{checkpoint.folder} shows images at their own size, which the authors' code cannot: give a resolution "
            "(--resolution), the side of its squares"
        )


def _pieces(checkpoint: Checkpoint, dtype: torch.dtype | None, rows: int) -> tuple[list[Piece], list[Piece]]:
    model, tower = [], []
    for name, weight in sorted(checkpoint.weights.items()):
        wanted = dtype or weight.dtype
        if name.startswith(VISION_TOWER):
            tower.append(Piece(name.removeprefix(VISION_TOWER), weight, wanted))
        else:
            kept = rows if name in (EMBEDDINGS, HEAD) and weight.shape[0] != rows else None
            model.append(Piece(AUTHORS.theirs(name), weight, wanted, kept))
    return model, tower


def _model_config(checkpoint: Checkpoint, dtype: torch.dtype | None) -> dict[str, Any]:
    origin = original_folder(checkpoint)
    config = read_json(origin / "config.json") if origin else _fresh_model_config(checkpoint)
    config |= {"mm_vision_tower": TOWER_FOLDER, "image_aspect_ratio": "pad"}
    config.pop("mm_vision_resolution", None)  # the tower's own files say it
    if dtype is not None:
        config["torch_dtype"] = str(dtype).removeprefix("torch.")
    return config


def _fresh_model_config(checkpoint: Checkpoint) -> dict[str, Any]:
    config, text = checkpoint.config, checkpoint.config.text_config
    has_row_of_its_own = config.image_token_id == text.vocab_size - 1
    rope = dict(text.rope_parameters or {})
    theta, kind = rope.pop("rope_theta", 10000.0), rope.pop("rope_type", "default")
    return {
        **{name: getattr(text, name) for name in _TEXT_KEYS if getattr(text, name, None) is not None},
        "architectures": ["LlavaLlamaForCausalLM"],
        "model_type": "llava_llama",
        "vocab_size": text.vocab_size - has_row_of_its_own,
        "tie_word_embeddings": config.tie_word_embeddings,
        "rope_theta": theta,
        "rope_scaling": None if kind == "default" else {"type": kind, **rope},
        "mm_hidden_size": config.vision_config.hidden_size,
        "mm_projector_type": "mlp2x_gelu",
        "mm_patch_merge_type": "flat",
        "mm_use_im_patch_token": False,
        "mm_use_im_start_end": False,
        "mm_vision_select_feature": "patch",
        "mm_vision_select_layer": -1,
        "use_mm_proj": True,
        "tokenizer_padding_side": "right",
        "tokenizer_model_max_length": min(text.max_position_embeddings, 2048),
        "transformers_version": _OLDEST_TRANSFORMERS,
    }


def _write_generation_config(checkpoint: Checkpoint, folder: Path) -> None:
    origin = original_folder(checkpoint)
    if origin and (origin / "generation_config.json").is_file():
        shutil.copyfile(origin / "generation_config.json", folder / "generation_config.json")
        return
    kept = {"bos_token_id", "eos_token_id", "pad_token_id", "max_length"}
    values = {name: value for name, value in checkpoint.generation_config.to_diff_dict().items() if name in kept}
    write_json(folder / "generation_config.json", {**values, "transformers_version": _OLDEST_TRANSFORMERS})


def _write_tokenizer(checkpoint: Checkpoint, folder: Path) -> None:
    origin = original_folder(checkpoint)
    place = origin or checkpoint.folder
    if not (place / SENTENCEPIECE).is_file():
        raise ValueError(
            f"{checkpoint.folder} has no {SENTENCEPIECE}, and the authors' code reads no other tokenizer: put that of "
            "its language model there"
        )
    for name in _TOKENIZER_FILES if origin else [SENTENCEPIECE]:
        if (place / name).is_file():
            shutil.copyfile(place / name, folder / name)
    if not origin:
        write_json(folder / "tokenizer_config.json", _fresh_tokenizer_config(checkpoint))
        _check_vocabulary(checkpoint, folder)


def _fresh_tokenizer_config(checkpoint: Checkpoint) -> dict[str, Any]:
    tokenizer = checkpoint.processor.tokenizer
    boundaries = json.loads(tokenizer.backend_tokenizer.to_str())["pre_tokenizer"] or {}
    return {
        "tokenizer_class": "LlamaTokenizer",
        "legacy": boundaries.get("prepend_scheme") == "always",
        "add_bos_token": True,
        "add_eos_token": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": tokenizer.model_max_length,
        **{name: str(getattr(tokenizer, name)) for name in ("bos_token", "eos_token", "unk_token", "pad_token")},
    }


def _check_vocabulary(checkpoint: Checkpoint, folder: Path) -> None:
    """Check that the tokenizer's model, which somebody put there, is the one that the language model knows."""
    ours = {token: index for token, index in checkpoint.processor.tokenizer.get_vocab().items() if token != IMAGE_TOKEN}
    theirs = load_tokenizer(folder).get_vocab()
    if ours != theirs:
        raise ValueError(
            f"{checkpoint.folder / SENTENCEPIECE} is not this model's: it has {len(theirs)} tokens, the model's "
            f"tokenizer {len(ours)}, and {len(ours.items() - theirs.items())} differ; take the one of its language "
            "model"
        )


def _tower_config(checkpoint: Checkpoint, dtype: torch.dtype) -> dict[str, Any]:
    origin = original_folder(checkpoint)
    kept = origin / TOWER_FOLDER / "config.json" if origin else None
    vision = checkpoint.config.vision_config
    stages = vision.num_stages
    fresh = {
        "architectures": ["ConvNextModel"],
        "model_type": "convnext",
        "drop_path_rate": 0.0,
        "hidden_act": vision.hidden_act,
        "initializer_range": 0.02,
        "layer_norm_eps": 1e-12,  # of the last norm, which is never applied; blocks have 1e-6 there without asking
        "layer_scale_init_value": vision.layer_scale_init_value,
        "num_channels": vision.num_channels,
        "patch_size": 4,
        "stage_names": ["stem", *(f"stage{number}" for number in range(1, stages + 1))],
        "out_features": [f"stage{stages}"],
        "out_indices": [stages],
        "transformers_version": _OLDEST_TRANSFORMERS,
    }
    return {
        **(read_json(kept) if kept and kept.is_file() else fresh),
        "depths": list(vision.depths),
        "hidden_sizes": list(vision.hidden_sizes),
        "num_stages": stages,
        "image_size": checkpoint.config.resolution,
        "torch_dtype": str(dtype).removeprefix("torch."),
    }


def _preprocessor(checkpoint: Checkpoint) -> dict[str, Any]:
    origin = original_folder(checkpoint)
    kept = origin / TOWER_FOLDER / "preprocessor_config.json" if origin else None
    images, side = checkpoint.processor.image_processor, checkpoint.config.resolution
    fresh = {
        "image_processor_type": "CLIPImageProcessor",
        "do_center_crop": True,
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "resample": BICUBIC,
    }
    return {
        **(read_json(kept) if kept and kept.is_file() else fresh),
        "crop_size": {"height": side, "width": side},
        "size": {"shortest_edge": side},
        "image_mean": list(images.image_mean),
        "image_std": list(images.image_std),
        "rescale_factor": images.rescale_factor,
    }
