"""Load a checkpoint of any known layout as a model and a processor; a missing or surplus tensor is an error."""

import importlib.util
from pathlib import Path
from typing import Any

import torch

from ..convert import (
    DEFAULT_SHARD_SIZE,
    Checkpoint,
    check_head,
    check_llava_lora_base,
    check_quantized,
    check_tensors,
    is_llava_lora,
    merge_llava_lora,
    open_checkpoint,
    quantization_method,
)
from ..model import ConvLlavaForConditionalGeneration, ConvLlavaProcessor, ConvLlavaVisionModel
from ..support import atomic_directory, check_loading_report, first_line, quiet_transformers
from .checkpoint_files import BUNDLED, hub_id, locate
from .memory import check_memory, one_memory_error
from .quantization import quantization_config

__all__ = ["BUNDLED", "load_pretrained", "save_merged", "stage_warning"]

MAPPED_ABOVE = 1 << 30
"""Bytes of weights above which they stay memory-mapped, so that their files must not change while the model is in use.

Smaller checkpoints are copied, so that a checkpoint can be saved over the one it was loaded from."""


def load_pretrained(
    source: str | Path,
    *,
    dtype: torch.dtype | str | None = None,
    device: torch.device | str | None = None,
    resolution: int | None = None,
    adapter: str | Path | None = None,
    quantize: str | None = None,
    quantize_vision: bool = False,
    device_map: str | dict[str, Any] | None = None,
    fast: bool | str = False,
    fallback_resolution: int | None = None,
    preprocessing: str | None = None,
) -> tuple[ConvLlavaForConditionalGeneration, ConvLlavaProcessor]:
    """Load a model and its processor from any layout: this package's, both of the authors', LLaVA-1.5's as the control.

    Args:
        source: ``"nano"``, a directory, or a hub id.
        dtype: Precision of the weights; None means float32 on the CPU and the checkpoint's own elsewhere.
        device: Device of the weights; None means CUDA if available, then MPS, then the CPU.
        resolution: Pixels that replace the checkpoint's own resolution; required where its files do not hold one.
        adapter: Directory of a LoRA adapter in PEFT's or LLaVA's format. It is merged into the weights, except an
            adapter of PEFT on quantized weights, which is kept apart.
        quantize: "int8" or "nf4" for the matrices of the language model's layers; the rest keeps ``dtype``. A
            checkpoint that was saved in either is loaded without it.
        quantize_vision: Whether to quantize the vision encoder and the projector too.
        device_map: "auto" or a map of modules to devices, for a model that exceeds one device.
        fast: Whether to use the vision encoder's fastest backend for this device, which is equal to the eager one but
            for rounding; or the name of a backend, see `ConvLlavaVisionModel`.
        fallback_resolution: Resolution that is used only where neither the checkpoint nor ``resolution`` holds one.
        preprocessing: "exact" or "fast" preparation of images; None keeps the checkpoint's setting.

    Raises:
        ValueError: The checkpoint is missing, damaged or contradicts itself, an option is invalid, or the weights do
            not fit the memory.
    """
    if device is not None and device_map is not None:
        raise ValueError(f"device {str(device)!r} and device_map {device_map!r} exclude each other: give one of them")
    place = resolve_device(device)
    wanted = _dtype(dtype, place)
    with quiet_transformers(), one_memory_error(source):
        checkpoint, adapter = _open(source, resolution, fallback_resolution, adapter)
        method = quantization_method(checkpoint)
        if method is None:
            model = _load(checkpoint, wanted, place, device_map, quantize, quantize_vision)
        else:
            _check_saved_quantized(checkpoint, method, quantize)
            model = _load_quantized(checkpoint, dtype, place, device_map)
        if adapter is not None:
            model = _with_adapter(model, adapter, merge=quantize is None and method is None)
    model.eval()
    model.training_stage = checkpoint.notes.get("training_stage")
    if fast:
        _set_backend(model, "auto" if fast is True else fast)
    if preprocessing is not None:
        checkpoint.processor.image_processor.set_preprocessing(preprocessing)
    return model, checkpoint.processor


def stage_warning(model: ConvLlavaForConditionalGeneration) -> str:
    """Return a warning about a checkpoint that has not seen instruction tuning, or an empty string."""
    if model.training_stage in (None, "instruct"):
        return ""
    return (
        f"this checkpoint results from training stage {model.training_stage!r} and has not seen instruction tuning "
        "('instruct'): do not expect it to follow questions"
    )


def save_merged(
    source: str | Path,
    destination: Path,
    *,
    adapter: Path | None = None,
    quantize: str | None = None,
    dtype: str | None = None,
    max_shard_size: str = DEFAULT_SHARD_SIZE,
    resolution: int | None = None,
) -> None:
    """Load a checkpoint, merge a PEFT adapter into it or quantize it, and save it; the whole model is in memory.

    Args:
        source: Same as in :func:`load_pretrained`.
        destination: A directory that does not exist yet; it appears complete or not at all.
        adapter: Directory of a LoRA adapter.
        quantize: "int8" or "nf4".
        dtype: Precision of what is not quantized; None keeps the checkpoint's own.
        max_shard_size: Size of one weight file at most, such as "5GB".
        resolution: Same as in :func:`load_pretrained`.

    Raises:
        ValueError: Same as :func:`load_pretrained`; or the destination is taken, or both changes are asked for at once.
        OSError: Writing failed; nothing is left behind.
    """
    if quantize is not None and adapter is not None and not is_llava_lora(adapter):
        raise ValueError("a PEFT adapter is not merged into quantized weights: convert twice, first with --adapter")
    model, processor = load_pretrained(
        source, dtype=dtype or "auto", device="cpu", adapter=adapter, quantize=quantize, resolution=resolution
    )
    with atomic_directory(destination) as folder, quiet_transformers():
        model.save_pretrained(folder, max_shard_size=max_shard_size)
        processor.save_pretrained(folder)


def _set_backend(model: ConvLlavaForConditionalGeneration, name: str) -> None:
    tower = model.model.vision_tower
    if not isinstance(tower, ConvLlavaVisionModel):
        raise ValueError(f"only ConvLLaVA's vision encoder has fast backends, not {type(tower).__name__}: omit fast")
    side = model.config.resolution
    tower.set_backend(name, size=None if side is None else (side, side))


def _open(
    source: str | Path, resolution: int | None, fallback: int | None, adapter: str | Path | None
) -> tuple[Checkpoint, str | Path | None]:
    """Open a checkpoint; an adapter in the form of LLaVA's code becomes part of it, any other is handed back."""
    folder = locate(source)
    lora = Path(adapter) if adapter is not None and is_llava_lora(Path(adapter)) else None
    if lora is not None:
        check_llava_lora_base(folder, lora)
    name = hub_id(source)
    checkpoint = open_checkpoint(folder, resolution=resolution, hub_id=name, needs_resolution=fallback is None)
    if resolution is None and checkpoint.notes.get("resolution_from", "its files") is None:
        checkpoint = open_checkpoint(folder, resolution=fallback, hub_id=name)
    return (checkpoint, adapter) if lora is None else (merge_llava_lora(checkpoint, lora), None)


def _load(
    checkpoint: Checkpoint,
    dtype: torch.dtype | str,
    place: torch.device,
    device_map: str | dict[str, Any] | None,
    quantize: str | None,
    quantize_vision: bool,
) -> ConvLlavaForConditionalGeneration:
    check_tensors(checkpoint)
    check_head(checkpoint)
    values = _stored_dtype(checkpoint) if isinstance(dtype, str) else dtype
    is_mapped = _is_large(checkpoint) and {weight.dtype for weight in checkpoint.weights.values()} == {values}
    if place.type == "cpu" and quantize is None and device_map is None and not is_mapped:
        check_memory(checkpoint, values)
    options = _placement(place, device_map, quantize)
    if quantize is not None:
        options["quantization_config"] = quantization_config(
            quantize, checkpoint.config, values, quantize_vision=quantize_vision
        )
    model = _build(checkpoint, values, options)
    if not options:
        model = model.to(place)
    _check_finite(model, checkpoint)
    return model


def _check_saved_quantized(checkpoint: Checkpoint, method: str, quantize: str | None) -> None:
    if quantize is not None:
        raise ValueError(f"{checkpoint.folder} is quantized already ({method}): leave quantize out")
    missing = [name for name in (method, "accelerate") if importlib.util.find_spec(name) is None]
    if missing:
        raise ValueError(
            f"{checkpoint.folder} is quantized and needs {' and '.join(missing)}: pip install 'convllava[quant]'"
        )
    check_quantized(checkpoint)


def _load_quantized(
    checkpoint: Checkpoint,
    dtype: torch.dtype | str | None,
    place: torch.device,
    device_map: str | dict[str, Any] | None,
) -> ConvLlavaForConditionalGeneration:
    """Load a checkpoint that was saved in fewer bits; what is not quantized has the dtype it was saved in."""
    stored = checkpoint.config.dtype or torch.float32
    wanted = stored if dtype in (None, "auto") else _dtype(dtype, place)
    try:
        model, report = ConvLlavaForConditionalGeneration.from_pretrained(
            checkpoint.folder,
            config=checkpoint.config,
            dtype=wanted,
            output_loading_info=True,
            **_placement(place, device_map or {"": place}, None),
        )
    except (OSError, RuntimeError, ValueError) as error:
        raise ValueError(f"cannot load a model from {checkpoint.folder}: {first_line(error)}") from error
    check_loading_report(report, checkpoint.folder)
    model.generation_config = checkpoint.generation_config
    return model


def _placement(place: torch.device, device_map: str | dict[str, Any] | None, quantize: str | None) -> dict[str, Any]:
    """Return where transformers puts the tensors while it loads; nothing for one device and plain weights."""
    if device_map is None and quantize is None:
        return {}
    if importlib.util.find_spec("accelerate") is None:
        raise ValueError("device_map and quantize need accelerate: pip install 'convllava[quant]'")
    return {"device_map": device_map if device_map is not None else {"": place}}


def _with_adapter(
    model: ConvLlavaForConditionalGeneration, adapter: str | Path, *, merge: bool
) -> ConvLlavaForConditionalGeneration:
    if importlib.util.find_spec("peft") is None:
        raise ValueError("adapter needs peft: pip install 'convllava[train]'")
    from .adapters import load_adapter, merge_adapter

    adapted = load_adapter(model, adapter)
    base: ConvLlavaForConditionalGeneration = merge_adapter(adapted) if merge else adapted.get_base_model()
    return base


def resolve_device(device: torch.device | str | None) -> torch.device:
    """Return the device, by default the best available one (CUDA, MPS, CPU).

    Raises:
        ValueError: The device does not exist on this machine.
    """
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


def _stored_dtype(checkpoint: Checkpoint) -> torch.dtype:
    """Return the dtype that most of the stored values have."""
    sizes: dict[torch.dtype, int] = {}
    for weight in checkpoint.weights.values():
        sizes[weight.dtype] = sizes.get(weight.dtype, 0) + weight.num_bytes
    return max(sizes, key=lambda dtype: sizes[dtype] / dtype.itemsize)


def _is_large(checkpoint: Checkpoint) -> bool:
    return sum(weight.num_bytes for weight in checkpoint.weights.values()) > MAPPED_ABOVE


def _build(checkpoint: Checkpoint, dtype: torch.dtype, options: dict[str, Any]) -> ConvLlavaForConditionalGeneration:
    """Build the model around the stored tensors.

    Those of a large checkpoint that have the dtype already stay mapped from their files.
    """
    is_large = _is_large(checkpoint)
    tensors = {
        name: weight.load() if is_large else weight.load().clone() for name, weight in checkpoint.weights.items()
    }
    try:
        model, report = ConvLlavaForConditionalGeneration.from_pretrained(
            None, config=checkpoint.config, state_dict=tensors, dtype=dtype, output_loading_info=True, **options
        )
    except (OSError, RuntimeError, ValueError) as error:
        raise ValueError(f"cannot load a model from {checkpoint.folder}: {first_line(error)}") from error
    check_loading_report(report, checkpoint.folder)
    model.generation_config = checkpoint.generation_config
    return model


def _check_finite(model: ConvLlavaForConditionalGeneration, checkpoint: Checkpoint) -> None:
    for name, tensor in model.state_dict().items():
        if name not in checkpoint.weights and name not in model.tied_weights():
            continue  # scales of quantized weights and the like
        if type(tensor) not in (torch.Tensor, torch.nn.Parameter) or not tensor.is_floating_point() or tensor.is_meta:
            tensor = checkpoint.weights[name].load()  # quantized, or kept elsewhere
        # A sum is quick and shows every NaN and infinity; it may also overflow, so that is looked into.
        if not bool(tensor.sum().isfinite()):
            bad = int((~tensor.isfinite()).sum())
            if bad:
                raise ValueError(
                    f"{checkpoint.folder}: {bad} of {tensor.numel()} values of {checkpoint.names.theirs(name)} are not "
                    "finite (NaN or infinity); the checkpoint is damaged or its training diverged"
                )
