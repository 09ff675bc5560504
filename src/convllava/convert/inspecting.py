"""Saying what a checkpoint is: everything that its files tell, and everything odd about them."""

from collections import Counter
from pathlib import Path
from typing import Any

from ..model import ConvLlavaVisionConfig, num_image_tokens
from .checkpoint import Checkpoint, tensor_faults
from .findings import odd_values
from .names import VISION_TOWER
from .opening import open_checkpoint
from .quantized import quantization_method

PROJECTOR = "model.multi_modal_projector."
RESOLUTIONS = (768, 1024, 1536)
"""Of the published models; a model's own resolution is listed with them."""

_BYTES = {"float32": 4.0, "bfloat16": 2.0, "int8": 1.0, "nf4": 0.5}


def inspect_checkpoint(folder: Path, *, resolution: int | None = None, hub_id: str | None = None) -> dict[str, Any]:
    """Return what a checkpoint is, as plain data.

    ``findings`` lists everything suspicious: tensors that do not fit the configuration, NaN, untouched layer scales,
    zero or repeated weights, a head that is tied in one place only.

    Args:
        folder: In any known layout; every tensor is read once, a few at a time.
        resolution: Replaces the checkpoint's own.
        hub_id: Where it was fetched from.

    Raises:
        ValueError: It cannot be opened at all.
    """
    checkpoint = open_checkpoint(folder, resolution=resolution, hub_id=hub_id, needs_resolution=False)
    weights = checkpoint.weights
    return {
        "path": str(folder),
        "layout": checkpoint.layout,
        "training_stage": checkpoint.notes.get("training_stage"),
        "vision_encoder": _vision(checkpoint),
        "projector": {"type": "mlp2x_gelu", "parameters": _parameters(checkpoint, PROJECTOR)},
        "language_model": _language_model(checkpoint),
        "tokenizer": _tokenizer(checkpoint),
        "prompt_format": checkpoint.config.prompt_format,
        "image_aspect_ratio": _aspect_ratio(checkpoint),
        "resolution": checkpoint.config.resolution,
        "resolution_from": checkpoint.notes.get("resolution_from"),
        "parameters": _parameters(checkpoint, ""),
        "tensors": len(weights),
        "dtypes": dict(Counter(str(weight.dtype).removeprefix("torch.") for weight in weights.values())),
        "bytes": sum(weight.files[weight.stored_name].num_bytes for weight in weights.values()),
        "visual_tokens": _visual_tokens(checkpoint),
        "weight_bytes": _weight_bytes(checkpoint),
        "kv_cache_bytes_per_token": _kv_bytes(checkpoint),
        "findings": _findings(checkpoint),
    }


def _findings(checkpoint: Checkpoint) -> list[str]:
    if (method := quantization_method(checkpoint)) is not None:
        return [f"quantized with {method}: sizes are those of what is stored, and values are not looked into"]
    return [*_oddities(checkpoint), *tensor_faults(checkpoint), *odd_values(checkpoint)]


def _parameters(checkpoint: Checkpoint, prefix: str) -> int:
    weights = checkpoint.weights.items()
    return sum(weight.num_bytes // weight.dtype.itemsize for name, weight in weights if name.startswith(prefix))


def _vision(checkpoint: Checkpoint) -> dict[str, Any]:
    config = checkpoint.config.vision_config
    common = {
        "output_stride": checkpoint.config.output_stride,
        "parameters": _parameters(checkpoint, VISION_TOWER),
        "named": checkpoint.notes.get("vision_tower_named"),
    }
    if isinstance(config, ConvLlavaVisionConfig):
        return {
            "type": "ConvNeXt",
            "stages": config.num_stages,
            "depths": list(config.depths),
            "hidden_sizes": list(config.hidden_sizes),
            "kernel_size": config.kernel_size,
            "layer_norm_eps": config.layer_norm_eps,
            **common,
        }
    return {"type": "CLIP ViT", "layers": config.num_hidden_layers, "hidden_size": config.hidden_size, **common}


def _language_model(checkpoint: Checkpoint) -> dict[str, Any]:
    config = checkpoint.config.get_text_config(decoder=True)
    kept = (
        "model_type num_hidden_layers hidden_size intermediate_size num_attention_heads num_key_value_heads vocab_size "
        "max_position_embeddings"
    ).split()
    vision, projector = _parameters(checkpoint, VISION_TOWER), _parameters(checkpoint, PROJECTOR)
    return {
        **{name: getattr(config, name, None) for name in kept},
        "tie_word_embeddings": checkpoint.config.tie_word_embeddings,
        "parameters": _parameters(checkpoint, "") - vision - projector,
    }


def _tokenizer(checkpoint: Checkpoint) -> dict[str, Any]:
    tokenizer = checkpoint.processor.tokenizer
    return {
        "type": type(tokenizer).__name__,
        "tokens": len(tokenizer),
        "image_token_id": checkpoint.processor.image_token_id,
        "legacy": getattr(tokenizer, "legacy", None),
        **{name: getattr(tokenizer, name) for name in ("bos_token", "eos_token", "pad_token")},
    }


def _aspect_ratio(checkpoint: Checkpoint) -> str:
    return checkpoint.config.image_aspect_ratio if checkpoint.layout == "convllava" else "pad"


def _visual_tokens(checkpoint: Checkpoint) -> dict[str, int]:
    own = checkpoint.config.resolution
    sides = {own} if not isinstance(checkpoint.config.vision_config, ConvLlavaVisionConfig) else {own, *RESOLUTIONS}
    stride = checkpoint.config.output_stride
    return {f"{side}x{side}": num_image_tokens(side, side, stride) for side in sorted(filter(None, sides))}


def _weight_bytes(checkpoint: Checkpoint) -> dict[str, int]:
    """Return the memory of the weights at each precision.

    Quantized are the matrices of the language model's layers; all else is bfloat16 there, scales are not counted.
    """
    total = _parameters(checkpoint, "")
    matrices = sum(
        weight.num_bytes // weight.dtype.itemsize
        for name, weight in checkpoint.weights.items()
        if name.startswith("model.language_model.layers.") and len(weight.shape) == 2
    )
    return {
        name: int(total * size) if size >= 2 else int((total - matrices) * 2 + matrices * size)
        for name, size in _BYTES.items()
    }


def _kv_bytes(checkpoint: Checkpoint) -> int | None:
    """Return the bytes that keys and values of one position take in bfloat16."""
    config = checkpoint.config.get_text_config(decoder=True)
    heads = getattr(config, "num_key_value_heads", None)
    if heads is None:
        return None
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return int(2 * config.num_hidden_layers * heads * head_dim * 2)


def _oddities(checkpoint: Checkpoint) -> list[str]:
    found = []
    if checkpoint.config.resolution is None and checkpoint.layout != "convllava":
        found.append("no file says at which resolution images are shown: load it with resolution=")
    dtypes = {str(weight.dtype).removeprefix("torch.") for weight in checkpoint.weights.values()}
    if len(dtypes) > 1:
        found.append(f"tensors of several dtypes: {', '.join(sorted(dtypes))}")
    return found
