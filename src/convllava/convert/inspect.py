"""Describe a checkpoint: the facts in its files, and everything suspicious about its tensors."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedConfig

from ..model import ConvLlavaVisionConfig, num_image_tokens
from ..model.modeling_convllava import LANGUAGE_MODEL_PREFIX, PROJECTOR_PREFIX, VISION_TOWER_PREFIX
from ..model.presets import RESOLUTIONS
from ..support import dtype_name
from .checkpoint import EMBEDDINGS, HEAD, Checkpoint, checkpoint_faults, quantization_method
from .config_files import unsupported_settings
from .encoders import open_vision_tower, stated_license
from .end_tokens import end_token_fault
from .layouts.registry import open_checkpoint
from .tensor_files import shorten
from .weights import ReadBudget, Weights

_BYTES = {"float32": 4.0, "bfloat16": 2.0, "int8": 1.0, "nf4": 0.5}
"""Bytes of one value, without the scales of quantized matrices."""

UNTRAINED_LAYER_SCALE = 1e-6
"""Initial value of ConvNeXt's layer scales; training moves them by orders of magnitude."""

_SAMPLE = 4096
"""Values of a tensor that are compared first when equal tensors are searched."""


def inspect_checkpoint(folder: Path, *, resolution: int | None = None, hub_id: str | None = None) -> dict[str, Any]:
    """Return a description of a checkpoint as plain data.

    ``findings`` lists everything suspicious: tensors that do not fit the configuration, NaN, untrained layer scales,
    zero or repeated weights, a head that equals the embeddings without being tied.

    Args:
        folder: A directory in any known layout; every tensor is read once, a few at a time.
        resolution: Pixels that replace the checkpoint's own resolution; None keeps it.
        hub_id: The hub id that the checkpoint was downloaded from, if any.

    Raises:
        ValueError: The directory cannot be opened as a checkpoint.
    """
    checkpoint = open_checkpoint(folder, resolution=resolution, hub_id=hub_id, needs_resolution=False)
    weights = checkpoint.weights
    return {
        "path": str(folder),
        "layout": checkpoint.layout,
        "training_stage": checkpoint.notes.get("training_stage"),
        "vision_encoder": _vision_encoder(checkpoint),
        "projector": {"type": "mlp2x_gelu", "parameters": _parameters(checkpoint, PROJECTOR_PREFIX)},
        "language_model": _language_model(checkpoint),
        "tokenizer": _tokenizer(checkpoint),
        "prompt_format": checkpoint.config.prompt_format,
        "image_aspect_ratio": checkpoint.config.image_aspect_ratio if checkpoint.layout == "convllava" else "pad",
        "resolution": checkpoint.config.resolution,
        "resolution_from": checkpoint.notes.get("resolution_from"),
        "trained_visual_tokens": checkpoint.config.visual_token_range,
        "parameters": _parameters(checkpoint),
        "tensors": len(weights),
        "dtypes": dict(Counter(dtype_name(weight.dtype) for weight in weights.values())),
        "bytes": sum(weight.files[weight.stored_name].num_bytes for weight in weights.values()),
        "visual_tokens": _visual_tokens(checkpoint),
        "weight_bytes": _weight_bytes(checkpoint),
        "kv_cache_bytes_per_token": _kv_cache_bytes(checkpoint),
        "findings": _findings(checkpoint),
    }


def inspect_encoder(path: Path) -> dict[str, Any]:
    """Return a description of a vision encoder alone as plain data; ``findings`` lists what is suspicious.

    Args:
        path: Same as the source of :func:`load_vision_tower`; every tensor is read once.

    Raises:
        ValueError: The path cannot be opened as an encoder.
    """
    stored = open_vision_tower(path)
    weights = stored.weights
    is_clip = not isinstance(stored.config, ConvLlavaVisionConfig)
    stride = stored.config.patch_size if is_clip else stored.config.output_stride
    parameters = sum(weight.num_elements for weight in weights.values())
    report = _ValueReport()
    for name, weight in weights.items():
        _inspect_tensor(name, weight.load(), report)
    return {
        "path": str(path),
        "layout": "vision encoder alone" + (f", tensor names of {stored.naming.source}" if stored.naming else ""),
        "license": stated_license(path),
        "has_final_norm": stored.has_final_norm,
        "vision_encoder": {**_encoder_shape(stored.config), "output_stride": stride, "parameters": parameters},
        "tensors": len(weights),
        "dtypes": dict(Counter(dtype_name(weight.dtype) for weight in weights.values())),
        "bytes": sum(weight.num_bytes for weight in weights.values()),
        "findings": list(_sentences(report, weights)),
    }


def _parameters(checkpoint: Checkpoint, prefix: str = "") -> int:
    return sum(weight.num_elements for name, weight in checkpoint.weights.items() if name.startswith(prefix))


def _vision_encoder(checkpoint: Checkpoint) -> dict[str, Any]:
    config = checkpoint.config.vision_config
    common = {
        "output_stride": checkpoint.config.output_stride,
        "parameters": _parameters(checkpoint, VISION_TOWER_PREFIX),
        "named": checkpoint.notes.get("vision_tower_named"),
    }
    return {**_encoder_shape(config), **common}


def _encoder_shape(config: PreTrainedConfig) -> dict[str, Any]:
    if isinstance(config, ConvLlavaVisionConfig):
        return {
            "type": "ConvNeXt",
            "stages": config.num_stages,
            "depths": list(config.depths),
            "hidden_sizes": list(config.hidden_sizes),
            "kernel_size": config.kernel_size,
            "layer_norm_eps": config.layer_norm_eps,
        }
    return {"type": "CLIP ViT", "layers": config.num_hidden_layers, "hidden_size": config.hidden_size}


def _language_model(checkpoint: Checkpoint) -> dict[str, Any]:
    config = checkpoint.config.get_text_config(decoder=True)
    names = (
        "model_type num_hidden_layers hidden_size intermediate_size num_attention_heads num_key_value_heads vocab_size "
        "max_position_embeddings"
    ).split()
    return {
        **{name: getattr(config, name, None) for name in names},
        "tie_word_embeddings": checkpoint.config.tie_word_embeddings,
        "parameters": _parameters(checkpoint)
        - _parameters(checkpoint, VISION_TOWER_PREFIX)
        - _parameters(checkpoint, PROJECTOR_PREFIX),
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


def _visual_tokens(checkpoint: Checkpoint) -> dict[str, int]:
    """Return the number of visual tokens of a square image at the checkpoint's own and the published resolutions."""
    sides = {checkpoint.config.resolution}
    if isinstance(checkpoint.config.vision_config, ConvLlavaVisionConfig):
        sides |= {*RESOLUTIONS}
    stride = checkpoint.config.output_stride
    return {f"{side}x{side}": num_image_tokens(side, side, stride) for side in sorted(filter(None, sides))}


def _weight_bytes(checkpoint: Checkpoint) -> dict[str, int]:
    """Return the memory of the weights at each precision.

    Below 16 bits, only the matrices of the language model's layers are quantized and the rest is bfloat16.
    """
    total = _parameters(checkpoint)
    matrices = sum(
        weight.num_elements
        for name, weight in checkpoint.weights.items()
        if name.startswith(f"{LANGUAGE_MODEL_PREFIX}layers.") and len(weight.shape) == 2
    )
    return {
        name: int(total * size) if size >= 2 else int((total - matrices) * 2 + matrices * size)
        for name, size in _BYTES.items()
    }


def _kv_cache_bytes(checkpoint: Checkpoint) -> int | None:
    """Return the bytes of keys and values of one position in bfloat16."""
    config = checkpoint.config.get_text_config(decoder=True)
    heads = getattr(config, "num_key_value_heads", None)
    if heads is None:
        return None
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return int(2 * config.num_hidden_layers * heads * head_dim * 2)


def _findings(checkpoint: Checkpoint) -> list[str]:
    if (method := quantization_method(checkpoint)) is not None:
        return [f"quantized with {method}: sizes are those of the stored tensors, and values are not inspected"]
    found = []
    if checkpoint.config.resolution is None and checkpoint.layout != "convllava":
        found.append("resolution is not set in any file: load with resolution= (--resolution)")
    if ignored := checkpoint.notes.get("ignored_keys"):
        found.append(f"keys of config.json that are not known and are ignored: {', '.join(ignored)}")
    found += [
        f"{setting}, so ask, serve and eval refuse it" for setting in unsupported_settings(checkpoint.generation_config)
    ]
    if fault := end_token_fault(checkpoint.processor, checkpoint.generation_config):
        found.append(fault)
    dtypes = {dtype_name(weight.dtype) for weight in checkpoint.weights.values()}
    if len(dtypes) > 1:
        found.append(f"tensors of several dtypes: {', '.join(sorted(dtypes))}")
    return [*found, *checkpoint_faults(checkpoint), *_suspicious_values(checkpoint)]


@dataclass
class _ValueReport:
    """Names of tensors by what is suspicious about their values."""

    not_finite: list[str] = field(default_factory=list)
    zero: list[str] = field(default_factory=list)
    constant: list[str] = field(default_factory=list)
    layer_scales: list[str] = field(default_factory=list)
    untrained_scales: list[str] = field(default_factory=list)
    by_sample: dict[bytes, list[str]] = field(default_factory=dict)


def _suspicious_values(checkpoint: Checkpoint) -> list[str]:
    report, budget = _ValueReport(), ReadBudget()
    for name, weight in checkpoint.weights.items():
        _inspect_tensor(name, weight.load(), report)
        budget.add(weight.num_bytes, checkpoint.weights)
    return [*_sentences(report, checkpoint.weights), *_head_findings(checkpoint)]


def _inspect_tensor(name: str, tensor: Tensor, report: _ValueReport) -> None:
    if not tensor.is_floating_point() or not tensor.numel():
        return
    if not bool(tensor.sum().isfinite()) and not bool(tensor.isfinite().all()):
        report.not_finite.append(f"{name} ({int((~tensor.isfinite()).sum())} values)")
        return
    first = tensor.reshape(-1)[0]
    is_constant = tensor.numel() > 1 and bool((tensor == first).all())
    if name.endswith("layer_scale_parameter"):
        report.layer_scales.append(name)
        if is_constant and abs(float(first) - UNTRAINED_LAYER_SCALE) < 1e-8:
            report.untrained_scales.append(name)
    elif is_constant and float(first) == 0 and name.endswith("weight"):
        report.zero.append(name)
    elif is_constant and tensor.ndim > 1:
        report.constant.append(name)
    elif not is_constant and tensor.ndim > 1:
        flat = tensor.reshape(-1)
        sample = flat[:: max(1, len(flat) // _SAMPLE)].float().contiguous()
        key = bytes(sample.numpy().data) + str(tuple(tensor.shape)).encode()
        report.by_sample.setdefault(key, []).append(name)


def _sentences(report: _ValueReport, weights: Weights) -> Iterator[str]:
    if report.not_finite:
        yield f"NaN or infinity in {shorten(report.not_finite)}"
    if report.untrained_scales:
        yield (
            f"{len(report.untrained_scales)} of {len(report.layer_scales)} layer scales are untrained (1e-6 "
            f"everywhere), so their layers have no effect yet: {shorten(report.untrained_scales)}"
        )
    if report.zero:
        yield f"weights of zeros only: {shorten(report.zero)}"
    if report.constant:
        yield f"matrices with one value everywhere: {shorten(report.constant)}"
    for names in report.by_sample.values():
        if len(names) > 1 and not set(names) <= {EMBEDDINGS, HEAD} and _all_equal(names, weights):
            yield f"the same values in {shorten(names)}"


def _all_equal(names: list[str], weights: Weights) -> bool:
    first = weights[names[0]].load()
    return all(torch.equal(first, weights[name].load()) for name in names[1:])


def _head_findings(checkpoint: Checkpoint) -> Iterator[str]:
    weights, tied = checkpoint.weights, checkpoint.config.tie_word_embeddings
    if HEAD not in weights or EMBEDDINGS not in weights or weights[HEAD].shape != weights[EMBEDDINGS].shape:
        return
    equal = torch.equal(weights[HEAD].load(), weights[EMBEDDINGS].load())
    if equal and not tied:
        yield "the head equals the token embeddings, but the config does not tie them"
    if not equal and tied:
        yield "the config ties the head to the token embeddings, but the stored two differ"
