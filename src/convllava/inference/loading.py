"""Opening a checkpoint: nothing missing, nothing left over, or a clear error."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers.utils import logging

from ..model import ConvLlavaConfig, ConvLlavaForConditionalGeneration, ConvLlavaProcessor
from .checkpoint_files import BUNDLED, check_files, locate

__all__ = ["BUNDLED", "load_pretrained"]

_SHARED_OPTIONS = ("image_aspect_ratio", "resolution", "output_stride")
"""What both the model's configuration and the image processor say."""


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
        ValueError: There is no such checkpoint, or its parts are damaged or do not fit each other.
    """
    place = _device(device)
    wanted = _dtype(dtype, place)
    folder = locate(source)
    check_files(folder)
    with _quiet():
        config = _load_config(folder)
        model = _load_model(folder, config, wanted)
        processor = _load_processor(folder)
    _check_agreement(config, processor, folder)
    if resolution is not None:
        _set_resolution(model, processor, resolution)
    model = model.to(place).eval()
    _check_finite(model, folder)
    return model, processor


def _device(device: torch.device | str | None) -> torch.device:
    if device is None:
        return _best_device()
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(
            f"device {str(device)!r} is not on this machine, or this build of torch cannot use it; take cpu, "
            "cuda or mps"
        ) from error
    return torch.device(device)


def _best_device() -> torch.device:
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def _dtype(dtype: torch.dtype | str | None, device: torch.device) -> torch.dtype | str:
    if dtype is None:
        return torch.float32 if device.type == "cpu" else "auto"
    chosen = getattr(torch, dtype, None) if isinstance(dtype, str) and dtype != "auto" else dtype
    if chosen != "auto" and not (isinstance(chosen, torch.dtype) and chosen.is_floating_point):
        raise ValueError(f"dtype {str(dtype)!r} is not known: take float32, bfloat16, float16 or auto")
    return chosen


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers' reports and bars off the screen meanwhile: what is wrong is said by our errors."""
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def _load_config(folder: Path) -> ConvLlavaConfig:
    try:
        return ConvLlavaConfig.from_pretrained(folder)
    except Exception as error:  # transformers checks types with errors of its own
        raise ValueError(f"{folder / 'config.json'} describes no model: {_first_line(error)}") from error


def _load_model(folder: Path, config: ConvLlavaConfig, dtype: torch.dtype | str) -> ConvLlavaForConditionalGeneration:
    try:
        model, report = ConvLlavaForConditionalGeneration.from_pretrained(
            folder,
            config=config,
            dtype=dtype,
            use_safetensors=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are in the report, with everything else that is wrong
        )
    except (OSError, RuntimeError) as error:
        raise ValueError(f"cannot load a model from {folder}: {_first_line(error)}") from error
    _check_report(report, folder)
    return model


def _check_report(report: dict[str, Any], folder: Path) -> None:
    misshapen = sorted(
        f"{name} is {list(stored)}, the config wants {list(wanted)}"
        for name, stored, wanted in report["mismatched_keys"]
    )
    faults = {
        "missing": sorted(report["missing_keys"]),
        "surplus": sorted(report["unexpected_keys"]),
        "misshapen": misshapen,
    }
    found = [f"{len(names)} {kind}: {_shorten(names)}" for kind, names in faults.items() if names]
    if found:
        raise ValueError(
            f"the tensors of {folder} do not fit its config.json; {'; '.join(found)}. Save the model "
            "again, or repair its config"
        )


def _shorten(names: list[str], most: int = 5) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _load_processor(folder: Path) -> ConvLlavaProcessor:
    try:
        return ConvLlavaProcessor.from_pretrained(folder)
    except Exception as error:  # tokenizer files can be wrong in any way
        raise ValueError(
            f"cannot load the processor (tokenizer and image options) of {folder}: {_first_line(error)}; "
            "save it beside the model with processor.save_pretrained"
        ) from error


def _check_agreement(config: ConvLlavaConfig, processor: ConvLlavaProcessor, folder: Path) -> None:
    """Check that model and processor mean the same pictures and the same vocabulary."""
    pairs = {name: (getattr(config, name), getattr(processor.image_processor, name)) for name in _SHARED_OPTIONS}
    pairs["image_token_id"] = (config.image_token_id, processor.image_token_id)
    for name, (of_model, of_processor) in pairs.items():
        if of_model != of_processor:
            raise ValueError(
                f"{folder} contradicts itself: {name} is {of_model!r} in config.json and {of_processor!r} in "
                "processor_config.json; make them equal"
            )
    tokens, rows = len(processor.tokenizer), config.get_text_config(decoder=True).vocab_size
    if tokens > rows:
        raise ValueError(
            f"{folder}: the tokenizer has {tokens} tokens and the language model only {rows}; save both from "
            "the same model"
        )


def _set_resolution(model: ConvLlavaForConditionalGeneration, processor: ConvLlavaProcessor, resolution: int) -> None:
    if resolution < model.config.output_stride:
        raise ValueError(f"resolution {resolution} is less than one output cell of {model.config.output_stride} pixels")
    model.config.resolution = processor.image_processor.resolution = resolution


def _check_finite(model: ConvLlavaForConditionalGeneration, folder: Path) -> None:
    for name, tensor in model.state_dict().items():
        # A sum is quick and shows every NaN and infinity; it may also overflow, so that is looked into.
        if tensor.is_floating_point() and not bool(tensor.sum().isfinite()):
            bad = int((~tensor.isfinite()).sum())
            if bad:
                raise ValueError(
                    f"{folder}: {bad} of {tensor.numel()} values of {name} are not finite (NaN or infinity); "
                    "the checkpoint is damaged or its training diverged"
                )
