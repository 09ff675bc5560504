"""Write the split layout that the authors' code reads; :mod:`official` draws it.

Small files that the authors' code once wrote are kept by a conversion and restored here; otherwise they are made anew.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import torch

from ...constants import IMAGE_TOKEN
from ...model import ConvLlavaVisionConfig
from ...model.modeling_convllava import VISION_TOWER_PREFIX
from ...support import atomic_directory, dtype_name, read_json, write_json
from ..checkpoint import EMBEDDINGS, HEAD, Checkpoint, WriteOptions
from ..config_files import BICUBIC, SENTENCEPIECE, load_tokenizer
from ..weights import OutputTensor, write_weights
from .convllava import find_original_files
from .official import NAMES, PROMPT_FORMAT, TOWER_FOLDER

_TOKENIZER_FILES = (SENTENCEPIECE, "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
_TEXT_KEYS = (
    "attention_bias attention_dropout bos_token_id eos_token_id hidden_act hidden_size initializer_range "
    "intermediate_size max_position_embeddings num_attention_heads num_hidden_layers num_key_value_heads pad_token_id "
    "pretraining_tp rms_norm_eps use_cache"
).split()

_TRANSFORMERS_VERSION = "4.39.3"
"""The version of transformers that the authors' code requires."""


def write(checkpoint: Checkpoint, destination: Path, options: WriteOptions) -> list[OutputTensor]:
    """Write a checkpoint as the authors' code reads it, without the row of ``<image>``.

    Args:
        checkpoint: A checked checkpoint in any layout.
        destination: A directory that does not exist yet; it appears complete or not at all.
        options: The dtype and the size of shards.

    Returns:
        The tensors that were written.

    Raises:
        ValueError: The model has a property that the authors' code does not support; names it.
        OSError: Writing failed; nothing is left behind.
    """
    _check_supported(checkpoint)
    config = _model_config(checkpoint, options.dtype)
    model, tower = _output_tensors(checkpoint, options.dtype, config["vocab_size"])
    with atomic_directory(destination, sum(tensor.num_bytes for tensor in [*model, *tower])) as folder:
        write_json(folder / "config.json", config)
        _write_generation_config(checkpoint, folder)
        _write_tokenizer(checkpoint, folder)
        (folder / TOWER_FOLDER).mkdir()
        write_json(folder / TOWER_FOLDER / "config.json", _tower_config(checkpoint, tower[0].dtype))
        write_json(folder / TOWER_FOLDER / "preprocessor_config.json", _preprocessor_config(checkpoint))
        write_weights(folder / TOWER_FOLDER, tower, options.max_shard_size)
        write_weights(folder, model, options.max_shard_size)
    return [*model, *tower]


def _check_supported(checkpoint: Checkpoint) -> None:
    config, vision = checkpoint.config, checkpoint.config.vision_config
    if not isinstance(vision, ConvLlavaVisionConfig):
        raise ValueError(f"{checkpoint.folder}: the authors' layout is for ConvNeXt; this encoder is a CLIP ViT")
    properties = {
        "the language model": (config.text_config.model_type, "llama"),
        "prompt_format": (config.prompt_format, PROMPT_FORMAT),
        "kernel_size": (vision.kernel_size, 7),
        "the encoder's hidden_act": (vision.hidden_act, "gelu"),
        "layer_norm_eps": (vision.layer_norm_eps, 1e-6),
        "projector_hidden_act": (config.projector_hidden_act, "gelu"),
    }
    for name, (value, supported) in properties.items():
        if value != supported:
            raise ValueError(
                f"{checkpoint.folder}: {name} is {value!r}, and the authors' code supports only {supported!r}"
            )
    if config.resolution is None:
        raise ValueError(
            f"{checkpoint.folder}: resolution is not set, and the authors' code supports only square images: pass "
            "--resolution, the side of the squares in pixels"
        )


def _output_tensors(
    checkpoint: Checkpoint, dtype: torch.dtype | None, rows: int
) -> tuple[list[OutputTensor], list[OutputTensor]]:
    """Return the tensors of the model's own files, and those of the encoder."""
    model, tower = [], []
    for name, weight in sorted(checkpoint.weights.items()):
        written = dtype or weight.dtype
        if name.startswith(VISION_TOWER_PREFIX):
            tower.append(OutputTensor(name.removeprefix(VISION_TOWER_PREFIX), weight, written))
        else:
            kept = rows if name in (EMBEDDINGS, HEAD) and weight.shape[0] != rows else None
            model.append(OutputTensor(NAMES.theirs(name), weight, written, kept))
    return model, tower


def _model_config(checkpoint: Checkpoint, dtype: torch.dtype | None) -> dict[str, Any]:
    original = find_original_files(checkpoint)
    config = read_json(original / "config.json") if original else _new_model_config(checkpoint)
    config |= {"mm_vision_tower": TOWER_FOLDER, "image_aspect_ratio": "pad"}
    config.pop("mm_vision_resolution", None)  # the encoder's own files say it
    if dtype is not None:
        config["torch_dtype"] = dtype_name(dtype)
    return config


def _new_model_config(checkpoint: Checkpoint) -> dict[str, Any]:
    config, text = checkpoint.config, checkpoint.config.text_config
    image_is_last_row = config.image_token_id == text.vocab_size - 1
    rope = dict(text.rope_parameters or {})
    theta, rope_type = rope.pop("rope_theta", 10000.0), rope.pop("rope_type", "default")
    return {
        **{name: getattr(text, name) for name in _TEXT_KEYS if getattr(text, name, None) is not None},
        "architectures": ["LlavaLlamaForCausalLM"],
        "model_type": "llava_llama",
        "vocab_size": text.vocab_size - image_is_last_row,
        "tie_word_embeddings": config.tie_word_embeddings,
        "rope_theta": theta,
        "rope_scaling": None if rope_type == "default" else {"type": rope_type, **rope},
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
        "transformers_version": _TRANSFORMERS_VERSION,
    }


def _write_generation_config(checkpoint: Checkpoint, folder: Path) -> None:
    original = find_original_files(checkpoint)
    if original and (original / "generation_config.json").is_file():
        shutil.copyfile(original / "generation_config.json", folder / "generation_config.json")
        return
    kept = {"bos_token_id", "eos_token_id", "pad_token_id", "max_length"}
    values = {name: value for name, value in checkpoint.generation_config.to_diff_dict().items() if name in kept}
    write_json(folder / "generation_config.json", {**values, "transformers_version": _TRANSFORMERS_VERSION})


def _write_tokenizer(checkpoint: Checkpoint, folder: Path) -> None:
    original = find_original_files(checkpoint)
    source = original or checkpoint.folder
    if not (source / SENTENCEPIECE).is_file():
        raise ValueError(
            f"{checkpoint.folder} has no {SENTENCEPIECE}, and the authors' code reads no other tokenizer: copy that of "
            "its language model there"
        )
    for name in _TOKENIZER_FILES if original else [SENTENCEPIECE]:
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)
    if not original:
        write_json(folder / "tokenizer_config.json", _new_tokenizer_config(checkpoint))
        _check_vocabulary(checkpoint, folder)


def _new_tokenizer_config(checkpoint: Checkpoint) -> dict[str, Any]:
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
    """Check that a tokenizer.model that was copied by hand has the vocabulary of the model's tokenizer."""
    ours = {token: index for token, index in checkpoint.processor.tokenizer.get_vocab().items() if token != IMAGE_TOKEN}
    theirs = load_tokenizer(folder).get_vocab()
    if ours != theirs:
        raise ValueError(
            f"{checkpoint.folder / SENTENCEPIECE} does not belong to this model: it has {len(theirs)} tokens, the "
            f"model's tokenizer {len(ours)}, and {len(ours.items() - theirs.items())} differ; copy that of its "
            "language model"
        )


def _tower_config(checkpoint: Checkpoint, dtype: torch.dtype) -> dict[str, Any]:
    original = find_original_files(checkpoint)
    kept = original / TOWER_FOLDER / "config.json" if original else None
    vision = checkpoint.config.vision_config
    stages = vision.num_stages
    new = {
        "architectures": ["ConvNextModel"],
        "model_type": "convnext",
        "drop_path_rate": 0.0,
        "hidden_act": vision.hidden_act,
        "initializer_range": 0.02,
        "layer_norm_eps": 1e-12,  # of the unused last norm; transformers fixes 1e-6 in the layers
        "layer_scale_init_value": vision.layer_scale_init_value,
        "num_channels": vision.num_channels,
        "patch_size": 4,
        "stage_names": ["stem", *(f"stage{number}" for number in range(1, stages + 1))],
        "out_features": [f"stage{stages}"],
        "out_indices": [stages],
        "transformers_version": _TRANSFORMERS_VERSION,
    }
    return {
        **(read_json(kept) if kept and kept.is_file() else new),
        "depths": list(vision.depths),
        "hidden_sizes": list(vision.hidden_sizes),
        "num_stages": stages,
        "image_size": checkpoint.config.resolution,
        "torch_dtype": dtype_name(dtype),
    }


def _preprocessor_config(checkpoint: Checkpoint) -> dict[str, Any]:
    original = find_original_files(checkpoint)
    kept = original / TOWER_FOLDER / "preprocessor_config.json" if original else None
    images, side = checkpoint.processor.image_processor, checkpoint.config.resolution
    new = {
        "image_processor_type": "CLIPImageProcessor",
        "do_center_crop": True,
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "resample": BICUBIC,
    }
    return {
        **(read_json(kept) if kept and kept.is_file() else new),
        "crop_size": {"height": side, "width": side},
        "size": {"shortest_edge": side},
        "image_mean": list(images.image_mean),
        "image_std": list(images.image_std),
        "rescale_factor": images.rescale_factor,
    }
