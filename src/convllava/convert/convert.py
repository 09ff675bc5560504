"""Rewrite a checkpoint in this package's layout or in that of the authors."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import torch

from ..support import quiet_transformers
from .checkpoint import WriteOptions, check_head, check_not_quantized, check_tensors
from .layouts import convllava, official_writing
from .layouts.registry import open_checkpoint
from .lora import check_llava_lora_base, merge_llava_lora
from .weights import DEFAULT_SHARD_SIZE, OutputTensor, parse_size

Target = Literal["convllava", "official"]

DTYPES = {name: getattr(torch, name) for name in ("float32", "bfloat16", "float16")}
"""Dtypes that checkpoints are written in."""


@dataclass(frozen=True)
class Converted:
    """A written checkpoint.

    Args:
        folder: Its directory.
        layout: The name of its layout.
        num_tensors: The number of its tensors.
        num_bytes: The size of its tensors.
    """

    folder: Path
    layout: str
    num_tensors: int
    num_bytes: int

    @classmethod
    def from_tensors(cls, folder: Path, layout: str, tensors: Sequence[OutputTensor]) -> "Converted":
        """Return the description of a checkpoint with these tensors."""
        return cls(folder, layout, len(tensors), sum(tensor.num_bytes for tensor in tensors))


def convert(
    source: Path,
    destination: Path,
    *,
    to: Target = "convllava",
    dtype: str | None = None,
    max_shard_size: str = DEFAULT_SHARD_SIZE,
    resolution: int | None = None,
    hub_id: str | None = None,
    llava_lora: Path | None = None,
) -> Converted:
    """Rewrite a checkpoint in another layout, tensor by tensor; without ``dtype`` no bit of a value changes.

    Args:
        source: A checkpoint directory in any known layout.
        destination: A directory that does not exist yet; it appears complete or not at all.
        to: This package's layout ("convllava"), or the split layout of the authors ("official").
        dtype: "float32", "bfloat16" or "float16"; None keeps each tensor's own.
        max_shard_size: Size of one weight file at most, such as "5GB".
        resolution: Pixels that replace the checkpoint's own resolution; None keeps it.
        hub_id: The hub id that the source was downloaded from, if any.
        llava_lora: Directory of a LoRA in LLaVA's format on this source; it is merged.

    Returns:
        The written checkpoint.

    Raises:
        ValueError: The source is damaged, the destination is taken, or an option is invalid.
        OSError: Writing failed; nothing is left behind.
    """
    if to not in get_args(Target):
        raise ValueError(f"to is {to!r}: pass one of {', '.join(get_args(Target))}")
    options = write_options(dtype, max_shard_size)
    if llava_lora is not None:
        check_llava_lora_base(source, llava_lora)
    checkpoint = open_checkpoint(source, resolution=resolution, hub_id=hub_id)
    if llava_lora is not None:
        checkpoint = merge_llava_lora(checkpoint, llava_lora)
    check_not_quantized(checkpoint, "converted")
    check_tensors(checkpoint)
    check_head(checkpoint)
    with quiet_transformers():
        if to == "convllava":
            return Converted.from_tensors(destination, to, convllava.write(checkpoint, destination, options))
        written = official_writing.write(checkpoint, destination, options)
        return Converted.from_tensors(destination, "official-split", written)


def write_options(dtype: str | None, max_shard_size: str) -> WriteOptions:
    """Parse the options for writing as a user gives them.

    Raises:
        ValueError: The dtype is unknown, or the size is not understood.
    """
    if dtype is not None and dtype not in DTYPES:
        raise ValueError(f"dtype {dtype!r} is not known: pass one of {', '.join(DTYPES)}")
    return WriteOptions(DTYPES[dtype] if dtype else None, parse_size(max_shard_size))
