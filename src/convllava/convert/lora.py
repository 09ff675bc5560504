"""LoRA adapters in the format of LLaVA's code, merged into their base tensor by tensor.

::

    folder/
      adapter_config.json         PEFT's settings; the base is named there, and is in another directory
      adapter_model.safetensors   pairs of low-rank matrices for the language model's layers (or .bin)
      non_lora_trainables.bin     fully trained tensors: the projector, sometimes the encoder
      config.json                 the configuration of the merged model
"""

import copy
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..model import ConvLlavaVisionConfig
from ..model.modeling_convllava import PROJECTOR_PREFIX, VISION_TOWER_PREFIX
from ..support import read_json
from .checkpoint import EMBEDDINGS, HEAD, Checkpoint, TensorNames
from .encoder_tensors import CLIP_NAMES
from .layouts.official import LLAVA_NAMES, NAMES, PROMPT_FORMAT, TOWER_FOLDER, TOWER_NAMES
from .layouts.official_config import check_official
from .layouts.registry import describes_vision_and_language
from .tensor_files import WeightFiles, open_weights, shorten
from .weights import Weight, Weights

_FULLY_TRAINED = "non_lora_trainables.bin"
_ADAPTER_FILES = ("adapter_model.safetensors", "adapter_model.bin")
_MATRIX = re.compile(r"(?:base_model\.model\.)?(.+)\.lora_([AB])(?:\.default)?\.weight")
_SUPPORTED: dict[str, tuple[Any, ...]] = {
    "peft_type": ("LORA",),
    "use_dora": (False,),
    "fan_in_fan_out": (False,),
    "bias": ("none",),
    "alpha_pattern": ({}, None),
    "modules_to_save": (None, []),
}
"""Supported values of PEFT's settings; the first is the default."""

_LANGUAGE_MODEL_SIZES = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")


@dataclass(frozen=True)
class _LowRank:
    """A low-rank update of a matrix (outputs, inputs): ``scale * up @ down``.

    Args:
        down: The matrix (rank, inputs).
        up: The matrix (outputs, rank).
        scale: The factor of the product.
    """

    down: Weight
    up: Weight
    scale: float


@dataclass(frozen=True)
class MergedWeight(Weight):
    """A stored matrix with a low-rank update added to it.

    Args:
        update: The update.
    """

    update: _LowRank | None = None

    def load(self) -> Tensor:
        """Return the sum (outputs, inputs), added in float32 and rounded to the stored dtype once."""
        base = super().load()
        if self.update is None:
            return base
        product = self.update.up.load().float() @ self.update.down.load().float()
        return torch.add(base.float(), product, alpha=self.update.scale).to(base.dtype)


def is_llava_lora(folder: Path) -> bool:
    """Return whether a directory is a LoRA in LLaVA's format, complete or not."""
    if (folder / _FULLY_TRAINED).is_file():
        return True
    config = folder / "config.json"
    return (folder / "adapter_config.json").is_file() and config.is_file() and "mm_vision_tower" in read_json(config)


def check_llava_lora_base(base: Path, adapter: Path) -> None:
    """Check that the base of a LoRA in LLaVA's format has a vision encoder.

    Raises:
        ValueError: The base is a language model alone; says how to join it with the encoder that the LoRA names.
    """
    path = base / "config.json"
    if not path.is_file():
        return  # opening the base reports this
    stored = read_json(path)
    if describes_vision_and_language(stored):
        return
    tower = _read_config(adapter).get("mm_vision_tower")
    raise ValueError(
        f"{base} is a {stored.get('model_type')} without a vision encoder, and the LoRA {adapter} was trained behind "
        f"{tower}: join them first (convllava join BASE --vision-tower {tower} --language-model {base} --prompt-format "
        f"{PROMPT_FORMAT}) and give BASE"
    )


def merge_llava_lora(checkpoint: Checkpoint, folder: Path) -> Checkpoint:
    """Merge a LoRA in LLaVA's format into a checkpoint; each sum is computed when its tensor is loaded.

    Args:
        checkpoint: The base, an encoder and a language model in any layout.
        folder: The LoRA.

    Raises:
        ValueError: A file of the LoRA is missing or damaged, or the LoRA belongs to another base.
    """
    config = _read_config(folder)
    _check_base(checkpoint, config, folder)
    names = NAMES if isinstance(checkpoint.config.vision_config, ConvLlavaVisionConfig) else LLAVA_NAMES
    replaced = _fully_trained(checkpoint, folder, names)
    merged = _merged(checkpoint, folder, names)
    if both := sorted(set(replaced) & set(merged)):
        raise ValueError(f"the LoRA {folder} holds some tensors twice, fully and as a product: {shorten(both)}")
    return _with_llava_options(replace(checkpoint, weights=checkpoint.weights.merged({**replaced, **merged})))


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    if not path.is_file():
        raise ValueError(
            f"{folder} is not a complete LoRA in LLaVA's format: config.json is missing; copy it from the training run"
        )
    config = read_json(path)
    if "mm_vision_tower" not in config:
        raise ValueError(f"{path} does not describe a model with a vision encoder: mm_vision_tower is missing")
    check_official(config, path)
    return config


def _check_base(checkpoint: Checkpoint, config: Mapping[str, Any], folder: Path) -> None:
    text, vision = checkpoint.config.get_text_config(decoder=True), checkpoint.config.vision_config
    pairs = {name: (getattr(text, name), config.get(name)) for name in _LANGUAGE_MODEL_SIZES}
    pairs["the encoder's width (mm_hidden_size)"] = (vision.hidden_size, config.get("mm_hidden_size"))
    for name, (ours, theirs) in pairs.items():
        if theirs not in (None, ours):
            raise ValueError(
                f"the LoRA {folder} belongs to another base: {name} is {theirs} there and {ours} in "
                f"{checkpoint.folder}; it was trained on {_base_name(folder)} behind {config['mm_vision_tower']}"
            )


def _base_name(folder: Path) -> str:
    path = folder / "adapter_config.json"
    return str(read_json(path).get("base_model_name_or_path")) if path.is_file() else "an unknown base"


def _fully_trained(checkpoint: Checkpoint, folder: Path, names: TensorNames) -> dict[str, Weight]:
    """Return the tensors that replace those of the base: the projector always, the encoder if it was trained."""
    path = folder / _FULLY_TRAINED
    if not path.is_file():
        raise ValueError(
            f"the LoRA {folder} is incomplete: {_FULLY_TRAINED} with its projector is missing; copy or download it "
            "again"
        )
    files = WeightFiles([path])
    found: dict[str, Weight] = {}
    for name in files:
        if (ours := names.ours(_without_peft_prefix(name, files))) is not None:
            found[ours] = _with_image_row(checkpoint, ours, Weight(files, name))
    if (folder / TOWER_FOLDER).is_dir():
        found |= Weights.renamed(open_weights(folder / TOWER_FOLDER), TOWER_NAMES if names is NAMES else CLIP_NAMES)
    _check_complete(checkpoint, found, PROJECTOR_PREFIX, path)
    if any(name.startswith(VISION_TOWER_PREFIX) for name in found):
        _check_complete(checkpoint, found, VISION_TOWER_PREFIX, path)
    unknown = sorted(weight.stored_name for name, weight in found.items() if name not in checkpoint.weights)
    if unknown:
        raise ValueError(f"{path} holds tensors that {checkpoint.folder} does not have: {shorten(unknown)}")
    return found


def _without_peft_prefix(name: str, files: WeightFiles) -> str:
    """Return a tensor's name without the prefixes of PEFT, which are ``base_model.`` and, if nested, ``model.``."""
    inner = name.removeprefix("base_model.")
    nested = any(other.removeprefix("base_model.").startswith("model.model.") for other in files)
    return inner.removeprefix("model.") if nested else inner


def _with_image_row(checkpoint: Checkpoint, name: str, weight: Weight) -> Weight:
    """Append the row of ``<image>`` to fully trained embeddings, as the base's embeddings have it."""
    if name not in (EMBEDDINGS, HEAD) or name not in checkpoint.weights:
        return weight
    return replace(weight, new_rows=max(0, checkpoint.weights[name].shape[0] - weight.shape[0]))


def _check_complete(checkpoint: Checkpoint, found: Mapping[str, Weight], prefix: str, path: Path) -> None:
    missing = sorted(name for name in checkpoint.weights if name.startswith(prefix) and name not in found)
    if missing:
        raise ValueError(f"{path} lacks {len(missing)} tensors of the base, such as {shorten(missing, 2)}")


def _merged(checkpoint: Checkpoint, folder: Path, names: TensorNames) -> dict[str, Weight]:
    paths = [folder / name for name in _ADAPTER_FILES if (folder / name).is_file()]
    if not paths:
        raise ValueError(f"the LoRA {folder} is incomplete: {' or '.join(_ADAPTER_FILES)} is missing; copy it again")
    config = _adapter_config(folder)
    pairs: dict[str, dict[str, Weight]] = {}
    files = WeightFiles(paths[:1])
    for name in files:
        found = _MATRIX.fullmatch(name)
        if found is None:
            raise ValueError(f"{paths[0]}: {name} does not belong to a LoRA on matrices")
        pairs.setdefault(found[1], {})[found[2]] = Weight(files, name)
    if not pairs:
        raise ValueError(f"{paths[0]} holds no tensors: copy or download it again")
    merged: dict[str, Weight] = {}
    for module, pair in pairs.items():
        ours = names.ours(f"{module}.weight") or module
        merged[ours] = _merge(checkpoint.weights.get(ours), module, pair, config, paths[0])
    return merged


def _adapter_config(folder: Path) -> dict[str, Any]:
    path = folder / "adapter_config.json"
    if not path.is_file():
        raise ValueError(f"the LoRA {folder} is incomplete: adapter_config.json is missing; copy it again")
    config = read_json(path)
    for name, known in _SUPPORTED.items():
        if config.get(name, known[0]) not in known:
            raise ValueError(f"{path}: {name} is {config[name]!r}, and only {known[0]!r} can be merged")
    if not isinstance(config.get("lora_alpha"), (int, float)):
        raise ValueError(f"{path}: lora_alpha is missing; copy or download it again")
    return config


def _merge(
    base: Weight | None, module: str, pair: Mapping[str, Weight], config: Mapping[str, Any], path: Path
) -> MergedWeight:
    if set(pair) != {"A", "B"}:
        raise ValueError(f"{path}: {module} has only one of lora_A and lora_B; copy or download it again")
    if base is None:
        raise ValueError(f"the LoRA {path.parent} belongs to another base: it changes {module}, which is not there")
    down, up = pair["A"], pair["B"]  # (rank, inputs), (outputs, rank)
    rank = down.shape[0]
    if (up.shape[0], down.shape[1]) != base.shape or up.shape[1] != rank:
        raise ValueError(
            f"the LoRA {path.parent} belongs to another base: {module} has {list(base.shape)} there and "
            f"{[up.shape[0], down.shape[1]]} in the LoRA"
        )
    for half in (down, up):
        if not bool(half.load().isfinite().all()):
            raise ValueError(
                f"{path}: {half.stored_name} holds NaN or infinity; it is damaged or its training diverged"
            )
    scale = config["lora_alpha"] / (rank**0.5 if config.get("use_rslora") else rank)
    update = _LowRank(down, up, scale)
    return MergedWeight(base.files, base.stored_name, base.new_rows, base.is_pointwise, update)


def _with_llava_options(checkpoint: Checkpoint) -> Checkpoint:
    """Return the checkpoint with the prompt format and the square images that LLaVA's code trains with."""
    config, processor = copy.deepcopy(checkpoint.config), copy.deepcopy(checkpoint.processor)
    if config.resolution is None:
        raise ValueError(
            f"{checkpoint.folder}: resolution is not set, and LLaVA's code trains on square images: pass resolution "
            "(--resolution), the side of the squares in pixels"
        )
    config.prompt_format = PROMPT_FORMAT
    processor.set_prompt_format(PROMPT_FORMAT)
    config.image_aspect_ratio = processor.image_processor.image_aspect_ratio = "pad"
    return replace(checkpoint, config=config, processor=processor)
