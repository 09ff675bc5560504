"""One view of every checkpoint: its configuration, its processor and its tensors under this package's names."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import GenerationConfig

from ..model import ConvLlavaConfig, ConvLlavaForConditionalGeneration, ConvLlavaProcessor
from ..support import first_line
from .weights import Weight, Weights, list_faults, tensor_faults

((HEAD, EMBEDDINGS),) = ConvLlavaForConditionalGeneration.tied_weights().items()
"""Names of the two tensors that are equal if the configuration ties the embeddings."""

LayoutName = Literal["convllava", "official-split", "official-consolidated", "llava-1.5", "transformers-llava", "parts"]


@dataclass(frozen=True)
class TensorNames:
    """The mapping between a layout's tensor names and this package's.

    Args:
        prefixes: Pairs of (their prefix, our prefix); the first pair that fits a name is applied.
        unused: Pattern of stored tensors that the model never reads and that are left out.
    """

    prefixes: Sequence[tuple[str, str]] = ()
    unused: str = r"(?!)"

    def ours(self, theirs: str) -> str | None:
        """Return this package's name of a tensor, or None if it is left out; an unknown name stays as it is."""
        if re.fullmatch(self.unused, theirs):
            return None
        return _replace_prefix(theirs, self.prefixes)

    def theirs(self, ours: str) -> str:
        """Return the name that the layout gives to a tensor of this package."""
        backwards = sorted(((new, old) for old, new in self.prefixes), key=lambda pair: -len(pair[0]))
        return _replace_prefix(ours, backwards)


def _replace_prefix(name: str, prefixes: Iterable[tuple[str, str]]) -> str:
    for old, new in prefixes:
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name


@dataclass(frozen=True)
class ReadOptions:
    """The caller's settings for reading a checkpoint.

    Args:
        resolution: Pixels that replace the checkpoint's own resolution; None keeps it.
        hub_id: The hub id that the checkpoint was downloaded from, if any; published ids have known resolutions.
        needs_resolution: Whether a checkpoint whose resolution is unknown is an error.
    """

    resolution: int | None = None
    hub_id: str | None = None
    needs_resolution: bool = True


@dataclass(frozen=True)
class WriteOptions:
    """Settings for writing a checkpoint.

    Args:
        dtype: The dtype of all written tensors; None keeps each tensor's own.
        max_shard_size: Bytes of one weight file at most.
    """

    dtype: torch.dtype | None
    max_shard_size: int


@dataclass(frozen=True)
class Checkpoint:
    """The contents of a checkpoint directory, independent of its layout.

    Args:
        folder: The directory.
        layout: The name of its layout.
        config: Its configuration, as this package's configuration class.
        weights: Its tensors under this package's names.
        processor: Its tokenizer, prompt format and image options.
        generation_config: Its defaults for generation.
        names: The mapping to the tensor names that its files use.
        notes: Facts for reports, such as the file that the resolution was found in.
    """

    folder: Path
    layout: LayoutName
    config: ConvLlavaConfig
    weights: Weights
    processor: ConvLlavaProcessor
    generation_config: GenerationConfig
    names: TensorNames = TensorNames()
    notes: dict[str, Any] = field(default_factory=dict)

    @property
    def tied(self) -> set[str]:
        """Names of the tensors that need not be stored, since the configuration ties them to others."""
        return {HEAD} if self.config.tie_word_embeddings else set()


def expected_shapes(config: ConvLlavaConfig) -> dict[str, tuple[int, ...]]:
    """Return the name and shape of every tensor of a model with this configuration."""
    with torch.device("meta"):
        model = ConvLlavaForConditionalGeneration(config)
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def _shapes_of(checkpoint: Checkpoint) -> dict[str, tuple[int, ...]]:
    try:
        return expected_shapes(checkpoint.config)
    except Exception as error:  # transformers and torch raise errors of many types for values that do not fit together
        raise ValueError(
            f"{checkpoint.folder / 'config.json'} does not describe a model that can be built: {first_line(error)}"
        ) from error


def checkpoint_faults(checkpoint: Checkpoint) -> list[str]:
    """Return one phrase for each kind of contradiction between tensors and configuration; none if they agree."""
    return tensor_faults(
        _shapes_of(checkpoint), checkpoint.weights, checkpoint.names.theirs, may_be_missing=checkpoint.tied
    )


def check_tensors(checkpoint: Checkpoint) -> None:
    """Check that the tensors are exactly those that the configuration describes.

    Raises:
        ValueError: Tensors are missing, surplus, of another shape or not floating point; lists them.
    """
    if faults := checkpoint_faults(checkpoint):
        raise ValueError(
            f"the tensors of {checkpoint.folder} do not fit its config.json; {'; '.join(faults)}. Save the model "
            "again, or repair its config"
        )


def check_head(checkpoint: Checkpoint) -> None:
    """Check that a head stored in addition to tied embeddings equals them, since only one of the two is used.

    Raises:
        ValueError: The two differ.
    """
    if HEAD not in checkpoint.tied & set(checkpoint.weights):
        return
    head, embeddings = checkpoint.weights[HEAD].load(), checkpoint.weights[EMBEDDINGS].load()
    if not torch.equal(head, embeddings):
        gap = float((head.float() - embeddings.float()).abs().max())
        raise ValueError(
            f"{checkpoint.folder} contradicts itself: its config ties {HEAD} to {EMBEDDINGS}, and the stored two "
            f"differ (by up to {gap:.3g}); set tie_word_embeddings to false, or remove one of them"
        )


_QUANTIZED_PARTS: dict[str, re.Pattern[str]] = {
    "bitsandbytes": re.compile(
        r"(?P<matrix>.+\.weight)\.(?P<part>absmax|quant_map|nested_absmax|nested_quant_map|quant_state\..+)"
    ),
    "torchao": re.compile(r"(?P<module>.+)\._weight_(?P<part>qdata|scale|zero_point)"),
}
"""Names under which the packages store the parts of a quantized matrix (bitsandbytes: 4 bits; torchao: integers)."""

_NEEDED_PARTS = {"bitsandbytes": {"absmax", "quant_map", "quant_state"}, "torchao": {"qdata", "scale"}}


def quantization_method(checkpoint: Checkpoint) -> str | None:
    """Return the package that quantized a checkpoint, or None for a checkpoint in floating point.

    Raises:
        ValueError: The checkpoint was quantized by a method that is not supported.
    """
    stored = _quantization_config(checkpoint)
    if stored is None:
        return None
    method = stored.get("quant_method")
    is_known = method == "torchao" or (method == "bitsandbytes" and stored.get("load_in_4bit"))
    if not is_known:
        raise ValueError(
            f"{checkpoint.folder} was quantized with {method!r} in a way that is not supported (4 bits of bitsandbytes "
            "and torchao are): use the checkpoint that it was made from"
        )
    return str(method)


def check_not_quantized(checkpoint: Checkpoint, action: str) -> None:
    """Check that a checkpoint is in floating point.

    Args:
        checkpoint: The checkpoint.
        action: The participle that completes "cannot be ...", such as "converted".

    Raises:
        ValueError: The checkpoint is quantized.
    """
    if _quantization_config(checkpoint) is not None:
        raise ValueError(
            f"{checkpoint.folder} is quantized ({quantization_method(checkpoint)}) and cannot be {action}: use the "
            "checkpoint that it was made from"
        )


def check_quantized(checkpoint: Checkpoint) -> None:
    """Check that a quantized checkpoint holds every tensor that its configuration describes, and no others.

    Raises:
        ValueError: The checkpoint is not quantized, or tensors are missing, surplus, misshapen or not finite.
    """
    method = quantization_method(checkpoint)
    if method is None:
        raise ValueError(f"{checkpoint.folder} is not quantized: its config.json has no quantization_config")
    matrices, plain = _group_parts(checkpoint.weights, _QUANTIZED_PARTS[method])
    expected = _shapes_of(checkpoint)
    stored = set(plain) | set(matrices)
    missing = [f"{name} ({part})" for name, parts in matrices.items() for part in _NEEDED_PARTS[method] - set(parts)]
    misshapen = [
        f"{name} is {list(_quantized_shape(name, matrices, plain))}, expected {list(shape)}"
        for name, shape in expected.items()
        if name in stored and not _fits(name, shape, matrices, plain)
    ]
    not_finite = [
        name
        for name, weight in checkpoint.weights.items()
        if weight.dtype.is_floating_point and not bool(weight.load().isfinite().all())
    ]
    faults = list_faults(
        {
            "missing": [*(set(expected) - stored - checkpoint.tied), *missing],
            "surplus": [*(stored - set(expected))],
            "misshapen": misshapen,
            "not finite": not_finite,
        }
    )
    if faults:
        raise ValueError(
            f"the tensors of {checkpoint.folder}, which is quantized, do not fit its config.json; {'; '.join(faults)}. "
            "Copy it again, or quantize the checkpoint that it was made from"
        )


def _quantization_config(checkpoint: Checkpoint) -> Mapping[str, Any] | None:
    stored = getattr(checkpoint.config, "quantization_config", None)
    return stored if isinstance(stored, Mapping) else None


_Matrices = dict[str, dict[str, Weight]]
"""The stored parts of each quantized matrix by the names of the parts."""


def _group_parts(weights: Weights, pattern: re.Pattern[str]) -> tuple[_Matrices, dict[str, Weight]]:
    """Split tensors into the parts of each quantized matrix and all others."""
    matrices: _Matrices = {}
    plain: dict[str, Weight] = {}
    for name, weight in weights.items():
        if (found := pattern.fullmatch(name)) is None:
            plain[name] = weight
            continue
        groups = found.groupdict()
        matrix = groups["matrix"] if "matrix" in groups else f"{groups['module']}.weight"
        matrices.setdefault(matrix, {})[groups["part"].partition(".")[0]] = weight
    return matrices, plain


def _quantized_shape(name: str, matrices: _Matrices, plain: Mapping[str, Weight]) -> tuple[int, ...]:
    weight = plain.get(name) or matrices[name].get("qdata")
    return () if weight is None else weight.shape


def _fits(name: str, shape: tuple[int, ...], matrices: _Matrices, plain: Mapping[str, Weight]) -> bool:
    stored = _quantized_shape(name, matrices, plain)
    if name in matrices and name in plain:  # bitsandbytes packs two values of 4 bits into a byte
        return prod(stored) == -(-prod(shape) // 2)
    return stored == shape or (name in matrices and not stored)  # an absent part is reported as missing
