"""LoRA adapters on a model: saved with the mark of their base, loaded only on it, merged into it.

An adapter fits any model of the same shapes, and answers garbage on all but one. So beside it lies a sketch of its
base: a few values of every tensor that the adapter does not train. They are compared with a tolerance that rounding
to another dtype stays within and training does not.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..model import ConvLlavaForConditionalGeneration
from ..support import read_json

SKETCH = "base_sketch.json"
SAMPLES = 16
"""Values of each tensor."""

TOLERANCE = 2**-6
"""Twice bfloat16's largest relative rounding error, and as much again for rounding twice."""

MOST_STRANGERS = 0.01
"""Share of values that may lie farther apart, such as those too small for float16."""

LANGUAGE_MODEL_LAYERS = r"model\.language_model\.layers\..*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"
"""Target modules of a usual LoRA: every matrix of the language model's layers, nothing of the vision encoder."""

Model = ConvLlavaForConditionalGeneration


def lora_config(rank: int = 64, alpha: int = 16, dropout: float = 0.05, *, train_projector: bool = True) -> Any:
    """Return PEFT's configuration of a LoRA on the language model; the projector is trained and saved whole."""
    from peft import LoraConfig

    return LoraConfig(
        r=rank,
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules=LANGUAGE_MODEL_LAYERS,
        modules_to_save=["multi_modal_projector"] if train_projector else None,
        task_type="CAUSAL_LM",
    )


def add_adapter(model: Model, config: Any = None) -> Any:
    """Return a ``PeftModel`` with a fresh adapter, of ``lora_config()`` by default; only the adapter trains.

    Raises:
        ValueError: The configuration's target modules match nothing.
    """
    from peft import get_peft_model

    return get_peft_model(model, config or lora_config())


def save_adapter(adapted: Any, folder: str | Path) -> None:
    """Save an adapter with the sketch of its base.

    Args:
        adapted: A ``PeftModel`` around a ConvLLaVA model.
        folder: Gets ``adapter_config.json``, the adapter's tensors and the sketch.
    """
    adapted.save_pretrained(str(folder))
    sketch = {name: values.tolist() for name, values in _sketch(adapted.get_base_model())}
    (Path(folder) / SKETCH).write_text(json.dumps(sketch), encoding="utf-8")


def load_adapter(model: Model, folder: str | Path) -> Any:
    """Put a saved adapter on its base.

    Returns:
        A ``PeftModel``; ``merge_adapter`` makes a plain model of it.

    Raises:
        ValueError: There is no adapter, it is damaged, or it belongs to another base.
    """
    path = Path(folder)
    config = _read_config(path)
    _check_targets(model, config, path)
    _check_base(model, path)
    from peft import PeftModel

    try:
        adapted = PeftModel.from_pretrained(model, str(path))
    except Exception as error:  # PEFT, safetensors and torch each have errors of their own
        reason = " ".join(str(error).split())[:300]
        raise ValueError(f"the adapter {path} cannot be put on this model: {reason}") from error
    _check_finite(adapted, path)
    return adapted.eval()


def merge_adapter(adapted: Any) -> Model:
    """Return the base with the adapter added to its weights: the same logits, no adapter any more."""
    merged: Model = adapted.merge_and_unload()
    return merged


def _read_config(path: Path) -> dict[str, Any]:
    if not (path / "adapter_config.json").is_file():
        raise ValueError(f"{path} is no adapter: it has no adapter_config.json")
    if not any((path / name).is_file() for name in ("adapter_model.safetensors", "adapter_model.bin")):
        raise ValueError(f"{path} has no weights: adapter_model.safetensors is missing; copy or download it again")
    return read_json(path / "adapter_config.json")


def _check_targets(model: Model, config: dict[str, Any], path: Path) -> None:
    """Check by the adapter's own tensors that the modules it changes are there and have its shapes."""
    from peft.utils import load_peft_weights

    try:
        weights = load_peft_weights(str(path), device="cpu")
    except Exception as error:  # a damaged file, in whatever format
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"the adapter {path} is damaged ({reason}): copy or download it again") from error
    modules = dict(model.named_modules())
    for name, tensor in weights.items():
        where, found, _ = name.removeprefix("base_model.model.").partition(".lora_A.")
        module = modules.get(where)
        if not found:
            continue
        if module is None:
            raise ValueError(
                f"the adapter {path} belongs to another base: it changes {where}, which this model does not have"
            )
        inputs = getattr(module, "in_features", tensor.shape[1])
        if inputs != tensor.shape[1]:
            raise ValueError(
                f"the adapter {path} belongs to another base: it expects {tensor.shape[1]} inputs of {where}, and this "
                f"model has {inputs}"
            )


def _check_base(model: Model, path: Path) -> None:
    if not (path / SKETCH).is_file():  # saved by PEFT alone: shapes are all there is to go by
        return
    stored = read_json(path / SKETCH)
    ours = dict(_sketch(model))
    shared = [name for name in stored if name in ours and len(stored[name]) == len(ours[name])]
    if len(shared) < len(ours):
        raise ValueError(f"the adapter {path} belongs to another base: their tensors have other names or sizes")
    apart = {name: _share_apart(ours[name], torch.tensor(stored[name])) for name in shared}
    average = sum(apart.values()) / max(len(apart), 1)
    if average > MOST_STRANGERS:
        worst = max(apart, key=lambda name: apart[name])
        raise ValueError(
            f"the adapter {path} belongs to another base of the same shapes: {average:.0%} of the compared weights are "
            f"not those it was trained on, above all in {worst}; load it on its own base"
        )


def _share_apart(ours: Tensor, theirs: Tensor) -> float:
    gap = (ours - theirs).abs()
    return float((gap > TOLERANCE * torch.maximum(ours.abs(), theirs.abs())).float().mean())


def _sketch(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield some values of each tensor of the base, by its name without adapter; quantized ones have none."""
    for name, tensor in model.state_dict().items():
        plain = name.replace(".base_layer.", ".").replace(".original_module.", ".")
        if ".lora_" in name or ".modules_to_save." in name or not _is_plain(tensor):
            continue
        flat = tensor.reshape(-1)
        yield plain, flat[:: max(1, len(flat) // SAMPLES)][:SAMPLES].detach().float().cpu()


def _is_plain(tensor: Any) -> bool:
    is_tensor = type(tensor) in (Tensor, nn.Parameter)
    return is_tensor and tensor.is_floating_point() and tensor.numel() > 0


def _check_finite(adapted: nn.Module, path: Path) -> None:
    for name, tensor in adapted.named_parameters():
        is_of_adapter = ".lora_" in name or ".modules_to_save." in name
        if is_of_adapter and not bool(tensor.isfinite().all()):
            raise ValueError(f"the adapter {path} is damaged: {name} holds NaN or infinity")
