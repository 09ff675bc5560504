"""Weights of the language model in fewer bits; the vision encoder and the projector keep the compute dtype."""

import importlib.util
from typing import Any, Literal, get_args

import torch

Quantize = Literal["int8", "nf4"]

PACKAGES = {"int8": "torchao", "nf4": "bitsandbytes"}

KEPT = ["model.vision_tower", "model.multi_modal_projector", "lm_head"]
"""By their full names: the bare ones match nothing, and the encoder would be quantized in silence."""

KEPT_WITH_VISION = ["lm_head"]


def quantization_config(quantize: str, dtype: torch.dtype, *, quantize_vision: bool = False) -> Any:
    """Return what transformers' ``from_pretrained`` takes to quantize while it loads.

    Args:
        quantize: "int8" (torchao, weights only) or "nf4" (bitsandbytes, 4 bits with double quantization).
        dtype: Computations and everything that is not quantized.
        quantize_vision: Also the matrices of the vision encoder and the projector.

    Raises:
        ValueError: Unknown method, or the package for it is not installed.
    """
    if quantize not in get_args(Quantize):
        raise ValueError(f"quantize is one of {', '.join(get_args(Quantize))}, got {quantize!r}")
    package = PACKAGES[quantize]
    if importlib.util.find_spec(package) is None:
        raise ValueError(f"quantize={quantize!r} needs {package}: pip install 'convllava[quant]'")
    kept = KEPT_WITH_VISION if quantize_vision else KEPT
    if quantize == "int8":
        from torchao.quantization import Int8WeightOnlyConfig
        from transformers import TorchAoConfig

        return TorchAoConfig(Int8WeightOnlyConfig(), modules_to_not_convert=kept)
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
        llm_int8_skip_modules=kept,
    )
