"""Read, check, convert, join, compare and export checkpoints in any known layout.

``open_checkpoint`` gives one view of every layout, a :class:`Checkpoint`; the modules in ``layouts`` read and write
them, one module for each. The other modules are named after what they do.
"""

from .checkpoint import Checkpoint, check_head, check_quantized, check_tensors, expected_shapes, quantization_method
from .config_files import unsupported_settings
from .convert import Converted, convert
from .encoders import load_vision_tower
from .end_tokens import end_token_fault
from .export import OnnxCheck, export_backbone, export_onnx, export_with_code
from .inspect import inspect_checkpoint, inspect_encoder
from .join import JoinSettings, join, open_parts
from .layouts.registry import has_vision_and_language, is_encoder, open_checkpoint, open_config
from .lora import check_llava_lora_base, is_llava_lora, merge_llava_lora
from .verify import (
    Comparison,
    LogitDifference,
    TensorDifference,
    compare_logits,
    compare_tensors,
    compare_text_logits,
)
from .weights import DEFAULT_SHARD_SIZE, OutputTensor, Weight, Weights, parse_size, write_weights

__all__ = [
    "DEFAULT_SHARD_SIZE",
    "Checkpoint",
    "Comparison",
    "Converted",
    "JoinSettings",
    "LogitDifference",
    "OnnxCheck",
    "OutputTensor",
    "TensorDifference",
    "Weight",
    "Weights",
    "check_head",
    "check_llava_lora_base",
    "check_quantized",
    "check_tensors",
    "compare_logits",
    "compare_tensors",
    "compare_text_logits",
    "convert",
    "end_token_fault",
    "expected_shapes",
    "export_backbone",
    "export_onnx",
    "export_with_code",
    "has_vision_and_language",
    "inspect_checkpoint",
    "inspect_encoder",
    "is_encoder",
    "is_llava_lora",
    "join",
    "load_vision_tower",
    "merge_llava_lora",
    "open_checkpoint",
    "open_config",
    "open_parts",
    "parse_size",
    "quantization_method",
    "unsupported_settings",
    "write_weights",
]
