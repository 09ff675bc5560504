"""Weights of the language model in fewer bits; the vision encoder and the projector keep the compute dtype."""

import importlib.util
import logging
from typing import Any, Literal, get_args

import torch
from torch import nn

from ..model import ConvLlavaConfig, ConvLlavaForConditionalGeneration
from ..support import dtype_name

logger = logging.getLogger(__name__)

Quantize = Literal["int8", "nf4"]

PACKAGES = {"int8": "torchao", "nf4": "bitsandbytes"}

KEPT = ["model.vision_tower", "model.multi_modal_projector", "lm_head"]
"""By their full names: the bare ones match nothing, and the encoder would be quantized in silence."""

KEPT_WITH_VISION = ["lm_head"]

NF4_INPUTS, NF4_OUTPUTS = 64, 32
"""Multiples that the matrices for nf4 must have: bitsandbytes 0.50 scales blocks of 64 inputs and, on processors with
AVX512-BF16, packs 32 outputs together; its forward pass fails there on any other shape."""


def quantization_config(
    quantize: str, config: ConvLlavaConfig, dtype: torch.dtype, *, quantize_vision: bool = False
) -> Any:
    """Return the quantization settings for transformers' ``from_pretrained``.

    Matrices that nf4 cannot hold on every processor keep ``dtype`` on all of them, so that a checkpoint that was saved
    on one machine works on another; a warning says how many.

    Args:
        quantize: "int8" (torchao, weights only) or "nf4" (bitsandbytes, 4 bits with double quantization).
        config: Configuration of the model.
        dtype: Precision of the computations and of all weights that are not quantized.
        quantize_vision: Whether to quantize the matrices of the vision encoder and the projector too.

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
        llm_int8_skip_modules=[*kept, *_unfit_for_nf4(config, kept, dtype)],
    )


def _unfit_for_nf4(config: ConvLlavaConfig, kept: list[str], dtype: torch.dtype) -> list[str]:
    """Return the names of the matrices whose shape nf4 cannot hold; warn of them."""
    with torch.device("meta"):
        model = ConvLlavaForConditionalGeneration(config)
    unfit = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and not name.startswith(tuple(kept))
        if module.in_features % NF4_INPUTS or module.out_features % NF4_OUTPUTS
    ]
    if unfit:
        first = model.get_submodule(unfit[0])
        logger.warning(
            f"{len(unfit)} matrices stay in {dtype_name(dtype)}, for example {unfit[0]} ({first.in_features} inputs, "
            f"{first.out_features} outputs): nf4 needs multiples of {NF4_INPUTS} inputs and {NF4_OUTPUTS} outputs"
        )
    return unfit
