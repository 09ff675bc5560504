"""Checkpoints saved in fewer bits: which tensors stand for a matrix, and whether all of them are there."""

import re
from collections.abc import Mapping
from math import prod
from typing import Any

from .checkpoint import Checkpoint, Weight, expected_shapes
from .tensor_files import shorten

_PART_OF: dict[str, re.Pattern[str]] = {
    "bitsandbytes": re.compile(
        r"(?P<matrix>.+\.weight)\.(?P<part>absmax|quant_map|nested_absmax|nested_quant_map|quant_state\..+)"
    ),
    "torchao": re.compile(r"(?P<module>.+)\._weight_(?P<part>qdata|scale|zero_point)"),
}
"""Names under which the packages store what belongs to a matrix (4 bits of bitsandbytes; integers of torchao)."""

_NEEDED = {"bitsandbytes": {"absmax", "quant_map", "quant_state"}, "torchao": {"qdata", "scale"}}


def quantization_method(checkpoint: Checkpoint) -> str | None:
    """Return the package that a checkpoint was saved in fewer bits with, None for a plain one.

    Raises:
        ValueError: Another one than can be read here.
    """
    stored = _settings(checkpoint)
    if stored is None:
        return None
    method = stored.get("quant_method")
    is_known = method == "torchao" or (method == "bitsandbytes" and stored.get("load_in_4bit"))
    if not is_known:
        raise ValueError(
            f"{checkpoint.folder} was quantized with {method!r} in a way that cannot be read here (4 bits of "
            "bitsandbytes and torchao can): take the checkpoint that it was made from"
        )
    return str(method)


def check_not_quantized(checkpoint: Checkpoint, what: str) -> None:
    """Check that a checkpoint has all its bits.

    Args:
        checkpoint: To look at.
        what: Cannot be done with a quantized one.

    Raises:
        ValueError: It has fewer.
    """
    if _settings(checkpoint) is not None:
        raise ValueError(
            f"{checkpoint.folder} is quantized ({quantization_method(checkpoint)}) and cannot be {what}: take the "
            "checkpoint that it was made from"
        )


def check_quantized(checkpoint: Checkpoint) -> None:
    """Check that a quantized checkpoint has every tensor that its configuration describes, and none besides.

    Raises:
        ValueError: Lists what is missing, surplus, misshapen or not finite.
    """
    method = quantization_method(checkpoint)
    assert method is not None
    parts, plain = _grouped(checkpoint.weights, _PART_OF[method])
    expected = expected_shapes(checkpoint.config)
    tied = {"lm_head.weight"} if checkpoint.config.tie_word_embeddings else set()
    missing = sorted(set(expected) - set(plain) - set(parts) - tied)
    for matrix, found in parts.items():
        missing += sorted(f"{matrix} ({part})" for part in _NEEDED[method] - set(found))
    faults = {
        "missing": missing,
        "surplus": sorted((set(plain) | set(parts)) - set(expected)),
        "misshapen": [
            f"{name} is {list(_shape(name, parts, plain))}, not {list(shape)}"
            for name, shape in expected.items()
            if name in {*plain, *parts} and not _fits(name, shape, parts, plain)
        ],
        "not finite": [
            name
            for name, weight in checkpoint.weights.items()
            if weight.dtype.is_floating_point and not bool(weight.load().isfinite().all())
        ],
    }
    told = [f"{len(names)} {kind}: {shorten(names)}" for kind, names in faults.items() if names]
    if told:
        raise ValueError(
            f"the tensors of {checkpoint.folder}, which is quantized, do not fit its config.json; {'; '.join(told)}. "
            "Copy it again, or quantize the checkpoint that it was made from"
        )


def _settings(checkpoint: Checkpoint) -> Mapping[str, Any] | None:
    stored = getattr(checkpoint.config, "quantization_config", None)
    return stored if isinstance(stored, Mapping) else None


def _grouped(
    weights: Mapping[str, Weight], pattern: re.Pattern[str]
) -> tuple[dict[str, dict[str, Weight]], dict[str, Weight]]:
    """Return what belongs to each quantized matrix by its kind, and all other tensors."""
    parts: dict[str, dict[str, Weight]] = {}
    plain: dict[str, Weight] = {}
    for name, weight in weights.items():
        if (found := pattern.fullmatch(name)) is None:
            plain[name] = weight
            continue
        groups = found.groupdict()
        matrix = groups["matrix"] if "matrix" in groups else f"{groups['module']}.weight"
        parts.setdefault(matrix, {})[groups["part"].partition(".")[0]] = weight
    return parts, plain


def _shape(name: str, parts: Mapping[str, Mapping[str, Weight]], plain: Mapping[str, Weight]) -> tuple[int, ...]:
    weight = plain.get(name) or parts[name].get("qdata")
    return () if weight is None else weight.shape


def _fits(
    name: str, shape: tuple[int, ...], parts: Mapping[str, Mapping[str, Weight]], plain: Mapping[str, Weight]
) -> bool:
    found = _shape(name, parts, plain)
    if name in parts and name in plain:  # two values of 4 bits in a byte
        return prod(found) == -(-prod(shape) // 2)
    return found == shape or (name in parts and not found)  # said as missing
