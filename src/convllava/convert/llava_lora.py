"""LoRA as LLaVA's family of code saves it, merged into its base tensor by tensor.

Its directory holds PEFT's ``adapter_config.json`` and ``adapter_model.*`` for the matrices of the language model's
layers, ``non_lora_trainables.bin`` for what was trained whole (the projector, sometimes the encoder), and the
``config.json`` of the model it makes. The base lies elsewhere.
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
from .checkpoint import Checkpoint, Weight, Weights
from .json_files import read_json
from .names import AUTHORS, AUTHORS_CLIP, AUTHORS_CLIP_TOWER, AUTHORS_TOWER, VISION_TOWER, Names
from .official import EMBEDDINGS, HEAD, PROMPT_FORMAT, TOWER_FOLDER
from .official_config import check_official
from .opening import LLAVA_CODE
from .tensor_files import WeightFiles, open_weights, shorten

TRAINED_WHOLE = "non_lora_trainables.bin"
PROJECTOR = "model.multi_modal_projector."

_ADAPTER_FILES = ("adapter_model.safetensors", "adapter_model.bin")
_MATRIX = re.compile(r"(?:base_model\.model\.)?(.+)\.lora_([AB])(?:\.default)?\.weight")
_MUST_BE: dict[str, tuple[Any, ...]] = {
    "peft_type": ("LORA",),
    "use_dora": (False,),
    "fan_in_fan_out": (False,),
    "bias": ("none",),
    "alpha_pattern": ({}, None),
    "modules_to_save": (None, []),
}
_OF_LANGUAGE_MODEL = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")


@dataclass(frozen=True)
class MergedWeight(Weight):
    """A stored matrix with a product of two narrow ones added to it.

    Args:
        down: (rank, inputs).
        up: (outputs, rank).
        scale: Of their product.
    """

    down: Weight | None = None
    up: Weight | None = None
    scale: float = 1.0

    def load(self) -> Tensor:
        """Return the sum, added in float32 and rounded to the stored dtype once."""
        assert self.down is not None and self.up is not None
        base = super().load()
        update = self.up.load().float() @ self.down.load().float()
        return torch.add(base.float(), update, alpha=self.scale).to(base.dtype)


def is_llava_lora(folder: Path) -> bool:
    """Tell whether a directory is a LoRA in LLaVA's form, whole or not."""
    if (folder / TRAINED_WHOLE).is_file():
        return True
    config = folder / "config.json"
    return (folder / "adapter_config.json").is_file() and config.is_file() and "mm_vision_tower" in read_json(config)


def check_llava_lora_base(base: Path, adapter: Path) -> None:
    """Check that the base of a LoRA in LLaVA's form has a vision encoder.

    Raises:
        ValueError: It is a language model alone; says how to join it with the encoder that the LoRA names.
    """
    path = base / "config.json"
    if not path.is_file():
        return  # said by whoever opens it
    stored = read_json(path)
    if stored.get("model_type") in (*LLAVA_CODE, "convllava"):
        return
    tower = _read_config(adapter).get("mm_vision_tower")
    raise ValueError(
        f"{base} is a {stored.get('model_type')} without a vision encoder, and the LoRA {adapter} was trained behind "
        f"{tower}: join them first (convllava join BASE --vision-tower {tower} --language-model {base} --prompt-format "
        f"{PROMPT_FORMAT}) and give BASE"
    )


def with_llava_lora(checkpoint: Checkpoint, folder: Path) -> Checkpoint:
    """Return a checkpoint with a LoRA in LLaVA's form merged into it, read only when a tensor is asked for.

    Args:
        checkpoint: The base: a whole model in any layout.
        folder: The LoRA.

    Raises:
        ValueError: A file of the LoRA is missing or damaged, or it belongs to another base.
    """
    config = _read_config(folder)
    _check_base(checkpoint, config, folder)
    names = AUTHORS if isinstance(checkpoint.config.vision_config, ConvLlavaVisionConfig) else AUTHORS_CLIP
    whole = _trained_whole(checkpoint, folder, names)
    merged = _merged(checkpoint, folder, names)
    if both := sorted(set(whole) & set(merged)):
        raise ValueError(f"the LoRA {folder} holds some tensors twice, whole and as a product: {shorten(both)}")
    return _as_the_authors_ask(replace(checkpoint, weights=Weights({**checkpoint.weights, **whole, **merged})))


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    if not path.is_file():
        raise ValueError(
            f"{folder} is not a whole LoRA in LLaVA's form: config.json is missing; copy it from where it was trained"
        )
    config = read_json(path)
    if "mm_vision_tower" not in config:
        raise ValueError(f"{path} describes no model with a vision encoder: mm_vision_tower is missing")
    check_official(config, path)
    return config


def _check_base(checkpoint: Checkpoint, config: Mapping[str, Any], folder: Path) -> None:
    text, vision = checkpoint.config.get_text_config(decoder=True), checkpoint.config.vision_config
    pairs = {name: (getattr(text, name), config.get(name)) for name in _OF_LANGUAGE_MODEL}
    pairs["the encoder's width (mm_hidden_size)"] = (vision.hidden_size, config.get("mm_hidden_size"))
    for name, (ours, theirs) in pairs.items():
        if theirs not in (None, ours):
            raise ValueError(
                f"the LoRA {folder} belongs to another base: {name} is {theirs} there and {ours} in {checkpoint.folder}"
                f"; it was trained on {_named_base(folder)} behind {config['mm_vision_tower']}"
            )


def _named_base(folder: Path) -> str:
    path = folder / "adapter_config.json"
    return str(read_json(path).get("base_model_name_or_path")) if path.is_file() else "a base that it does not name"


def _trained_whole(checkpoint: Checkpoint, folder: Path, names: Names) -> dict[str, Weight]:
    """Return what replaces tensors of the base: the projector always, the encoder if it was trained."""
    path = folder / TRAINED_WHOLE
    if not path.is_file():
        raise ValueError(
            f"the LoRA {folder} is not whole: {TRAINED_WHOLE} with its projector is missing; copy or download it again"
        )
    files = WeightFiles([path])
    found: dict[str, Weight] = {}
    for name in files:
        if (ours := names.ours(_plain(name, files))) is not None:
            found[ours] = _sized(checkpoint, ours, Weight(files, name))
    if (folder / TOWER_FOLDER).is_dir():
        tower_names = AUTHORS_TOWER if names is AUTHORS else AUTHORS_CLIP_TOWER
        found |= Weights.named(open_weights(folder / TOWER_FOLDER), tower_names)
    _check_complete(checkpoint, found, PROJECTOR, path)
    if any(name.startswith(VISION_TOWER) for name in found):
        _check_complete(checkpoint, found, VISION_TOWER, path)
    strangers = sorted(weight.stored_name for name, weight in found.items() if name not in checkpoint.weights)
    if strangers:
        raise ValueError(f"{path} holds tensors that {checkpoint.folder} does not have: {shorten(strangers)}")
    return found


def _plain(name: str, files: WeightFiles) -> str:
    """Return the name of a tensor without what PEFT puts before it, once or twice."""
    inner = name.removeprefix("base_model.")
    nested = any(other.removeprefix("base_model.").startswith("model.model.") for other in files)
    return inner.removeprefix("model.") if nested else inner


def _sized(checkpoint: Checkpoint, name: str, weight: Weight) -> Weight:
    """Give embeddings that were trained whole the row of ``<image>``, as the base's have it."""
    if name not in (EMBEDDINGS, HEAD) or name not in checkpoint.weights:
        return weight
    return replace(weight, new_rows=max(0, checkpoint.weights[name].shape[0] - weight.shape[0]))


def _check_complete(checkpoint: Checkpoint, found: Mapping[str, Weight], prefix: str, path: Path) -> None:
    missing = sorted(name for name in checkpoint.weights if name.startswith(prefix) and name not in found)
    if missing:
        raise ValueError(f"{path} lacks {len(missing)} tensors of the base, such as {shorten(missing, 2)}")


def _merged(checkpoint: Checkpoint, folder: Path, names: Names) -> dict[str, Weight]:
    paths = [folder / name for name in _ADAPTER_FILES if (folder / name).is_file()]
    if not paths:
        raise ValueError(f"the LoRA {folder} is not whole: {' or '.join(_ADAPTER_FILES)} is missing; copy it again")
    config = _adapter_config(folder)
    halves: dict[str, dict[str, Weight]] = {}
    files = WeightFiles(paths[:1])
    for name in files:
        found = _MATRIX.fullmatch(name)
        if found is None:
            raise ValueError(f"{paths[0]}: {name} is no part of a LoRA on matrices")
        halves.setdefault(found[1], {})[found[2]] = Weight(files, name)
    merged: dict[str, Weight] = {}
    for module, pair in halves.items():
        ours = names.ours(f"{module}.weight") or module
        merged[ours] = _merge(checkpoint, ours, module, pair, config, paths[0])
    if not merged:
        raise ValueError(f"{paths[0]} holds no tensors: copy or download it again")
    return merged


def _adapter_config(folder: Path) -> dict[str, Any]:
    path = folder / "adapter_config.json"
    if not path.is_file():
        raise ValueError(f"the LoRA {folder} is not whole: adapter_config.json is missing; copy it again")
    config = read_json(path)
    for name, known in _MUST_BE.items():
        if config.get(name, known[0]) not in known:
            raise ValueError(f"{path}: {name} is {config[name]!r}, and only {known[0]!r} can be merged here")
    if not isinstance(config.get("lora_alpha"), (int, float)):
        raise ValueError(f"{path}: lora_alpha is missing; copy or download it again")
    return config


def _merge(
    checkpoint: Checkpoint, name: str, module: str, pair: Mapping[str, Weight], config: Mapping[str, Any], path: Path
) -> MergedWeight:
    if set(pair) != {"A", "B"}:
        raise ValueError(f"{path}: {module} has only one of lora_A and lora_B; copy or download it again")
    base = checkpoint.weights.get(name)
    if base is None:
        raise ValueError(f"the LoRA {path.parent} belongs to another base: it changes {module}, which is not there")
    down, up = pair["A"], pair["B"]
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
    return MergedWeight(base.files, base.stored_name, base.new_rows, base.is_pointwise, down, up, scale)


def _as_the_authors_ask(checkpoint: Checkpoint) -> Checkpoint:
    """Return it with the prompts and squares that LLaVA's code trains with."""
    config, processor = copy.deepcopy(checkpoint.config), copy.deepcopy(checkpoint.processor)
    if config.resolution is None:
        raise ValueError(
            f"{checkpoint.folder} shows images at their own size, and LLaVA's code trains on squares: give the side "
            "of those as resolution"
        )
    config.prompt_format = PROMPT_FORMAT
    processor.set_prompt_format(PROMPT_FORMAT)
    config.image_aspect_ratio = processor.image_processor.image_aspect_ratio = "pad"
    return replace(checkpoint, config=config, processor=processor)
