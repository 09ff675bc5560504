"""Opening a checkpoint: nothing missing, nothing left over, or a clear error."""

from pathlib import Path
from typing import Any

import torch
from transformers import AutoProcessor

from ..model import ConvLlavaConfig, ConvLlavaForConditionalGeneration, ConvLlavaProcessor

BUNDLED = {"nano": Path(__file__).parent.parent / "assets" / "nano"}
"""Checkpoints that come with the package."""


def load_pretrained(
    source: str | Path,
    *,
    dtype: torch.dtype | str | None = None,
    device: torch.device | str | None = None,
    resolution: int | None = None,
) -> tuple[ConvLlavaForConditionalGeneration, ConvLlavaProcessor]:
    """Load a model and its processor.

    Args:
        source: ``"nano"``, a directory, or a hub id.
        dtype: Of the weights; None takes float32 on the CPU and the checkpoint's own elsewhere.
        device: None takes CUDA, then MPS, then the CPU, whichever is there.
        resolution: Replaces the checkpoint's own.

    Raises:
        ValueError: When there is no such checkpoint, or its tensors do not fit its configuration.
    """
    place = _locate(source)
    device = torch.device(device) if device is not None else _best_device()
    try:
        config = ConvLlavaConfig.from_pretrained(place)
        model, report = ConvLlavaForConditionalGeneration.from_pretrained(
            place, config=config, dtype=_dtype(dtype, device), output_loading_info=True
        )
        processor = AutoProcessor.from_pretrained(place)
    except (OSError, RuntimeError) as error:
        raise ValueError(f"cannot load a model from {source!r}: {error}") from error
    _check_report(report, source)
    if resolution is not None:
        model.config.resolution = processor.image_processor.resolution = resolution
    return model.to(device).eval(), processor


def _locate(source: str | Path) -> str:
    """Return the directory or hub id behind ``source``."""
    if source in BUNDLED:
        return str(BUNDLED[str(source)])
    path = Path(source)
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise ValueError(f"{path} is not a checkpoint: it has no config.json")
        return str(path)
    if path.exists() or not _looks_like_hub_id(str(source)):
        raise ValueError(
            f"unknown model {str(source)!r}: give {', '.join(map(repr, BUNDLED))}, a checkpoint directory or a hub id "
            "(owner/name)"
        )
    return str(source)


def _looks_like_hub_id(source: str) -> bool:
    parts = source.split("/")
    return len(parts) == 2 and all(parts) and not source.startswith((".", "~"))


def _best_device() -> torch.device:
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def _dtype(dtype: torch.dtype | str | None, device: torch.device) -> torch.dtype | str:
    if dtype is not None:
        return dtype
    return torch.float32 if device.type == "cpu" else "auto"


def _check_report(report: dict[str, Any], source: str | Path) -> None:
    faults = {
        "missing": sorted(report["missing_keys"]),
        "surplus": sorted(report["unexpected_keys"]),
        "misshapen": sorted(str(entry) for entry in report["mismatched_keys"]),
    }
    found = [f"{kind}: {_shorten(names)}" for kind, names in faults.items() if names]
    if found:
        raise ValueError(
            f"the tensors of {str(source)!r} do not fit its config.json; {'; '.join(found)}. Save it again, or repair "
            "its config"
        )


def _shorten(names: list[str], most: int = 5) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
