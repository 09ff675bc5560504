"""Other people's checkpoints in, ours out; what a checkpoint is, and whether two are the same."""

from .checkpoint import Checkpoint, Weight, Weights, check_head, check_tensors, tensor_faults
from .converting import Converted, convert
from .export import OnnxCheck, export_backbone, export_onnx, export_with_code
from .inspecting import inspect_checkpoint
from .joining import join, open_parts
from .json_files import read_json
from .llava_lora import check_llava_lora_base, is_llava_lora, with_llava_lora
from .opening import open_checkpoint
from .own import set_resolution
from .published import PUBLISHED
from .quantized import check_not_quantized, check_quantized, quantization_method
from .quiet import quiet
from .towers import is_whole_model, load_tower
from .verifying import Difference, LogitDifference, logit_difference, tensor_differences, text_difference

__all__ = [
    "PUBLISHED",
    "Checkpoint",
    "Converted",
    "Difference",
    "LogitDifference",
    "OnnxCheck",
    "Weight",
    "Weights",
    "check_head",
    "check_llava_lora_base",
    "check_not_quantized",
    "check_quantized",
    "check_tensors",
    "convert",
    "export_backbone",
    "export_onnx",
    "export_with_code",
    "inspect_checkpoint",
    "is_llava_lora",
    "is_whole_model",
    "join",
    "load_tower",
    "logit_difference",
    "open_checkpoint",
    "open_parts",
    "quantization_method",
    "quiet",
    "read_json",
    "set_resolution",
    "tensor_differences",
    "tensor_faults",
    "text_difference",
    "with_llava_lora",
]
