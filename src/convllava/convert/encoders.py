"""Vision encoders from elsewhere: transformers, timm, OpenCLIP, CLIP's ViT, and the encoders inside models."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor
from transformers import CLIPVisionModel, PreTrainedConfig, PreTrainedModel

from ..model import ConvLlavaVisionConfig, ConvLlavaVisionModel
from ..model.modeling_convllava import VISION_TOWER_PREFIX
from ..support import quiet_transformers, read_json
from .config_values import check_sections
from .encoder_tensors import CLIP_NAMES, Naming, clip_config, convnext_config, convnext_names, naming_of
from .layouts.registry import DINOV3_MODEL_TYPE, WEIGHT_SUFFIXES, has_vision_and_language, open_checkpoint
from .tensor_files import WeightFiles, open_weights
from .weights import Weight, Weights, tensor_faults

_OPEN_CLIP = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "open_clip_pytorch_model.bin")


@dataclass(frozen=True)
class StoredEncoder:
    """A vision encoder in its files.

    Args:
        path: A weight file or a directory.
        config: The encoder's configuration.
        weights: Its tensors under this package's names, without the prefix ``model.vision_tower.``.
        naming: The naming of its files; None for one in a vision-language model, and for CLIP's ViT.
        has_final_norm: Whether its files hold a norm behind the last stage, which is not used.
    """

    path: Path
    config: PreTrainedConfig
    weights: Weights
    naming: Naming | None = None
    has_final_norm: bool = False


def load_vision_tower(source: str | Path, *, layer_norm_eps: float | None = None) -> PreTrainedModel:
    """Load a vision encoder from any supported source.

    Args:
        source: A weight file (timm, OpenCLIP, Meta's DINOv3 and EUPE); or a directory of transformers'
            ``ConvNextModel`` or ``DINOv3ConvNextModel``, of OpenCLIP or timm, of CLIP's ViT (for the control), or of a
            vision-language model, whose encoder is loaded.
        layer_norm_eps: The epsilon of all norms; None means 1e-6, or 1e-5 for OpenCLIP's xxlarge, since neither shapes
            nor most configurations tell it.

    Returns:
        A :class:`ConvLlavaVisionModel`, ready for ``append_stages``; transformers' ``CLIPVisionModel`` for CLIP's ViT.

    Raises:
        ValueError: The source is missing or damaged, is not such an encoder, is a ConvNeXt V2 or one of timm's
            variants ``_rms`` and ``_ols``.
    """
    with quiet_transformers():
        stored = open_vision_tower(source, layer_norm_eps=layer_norm_eps)
        dtype = max(stored.weights.values(), key=lambda weight: weight.num_bytes).dtype
        tower = _model_class(stored.config)(stored.config).to(dtype)
        tower.load_state_dict(_finite_tensors(stored))
    return tower.eval()


def open_vision_tower(source: str | Path, *, layer_norm_eps: float | None = None) -> StoredEncoder:
    """Read the configuration, tensor names and shapes of a vision encoder, but no tensor values.

    Args:
        source: Same as in :func:`load_vision_tower`.
        layer_norm_eps: Same as in :func:`load_vision_tower`.

    Raises:
        ValueError: Same as in :func:`load_vision_tower`, except that NaN goes unnoticed.
    """
    path = Path(source)
    with quiet_transformers():
        stored = _open(path, layer_norm_eps)
        with torch.device("meta"):
            state = _model_class(stored.config)(stored.config).state_dict()
        faults = tensor_faults({name: tuple(tensor.shape) for name, tensor in state.items()}, stored.weights)
    if faults:
        raise ValueError(f"the tensors of {path} are not those of one encoder; {'; '.join(faults)}")
    return stored


def stated_license(source: Path) -> str | None:
    """Return the license that the files next to an encoder state, and the file that does; None if none does.

    Args:
        source: Same as in :func:`load_vision_tower`.
    """
    folder = source if source.is_dir() else source.parent
    card = folder / "README.md"
    text = card.read_text(encoding="utf-8", errors="backslashreplace") if card.is_file() else ""
    if text.startswith("---\n") and "\n---" in text[4:]:
        try:
            values = yaml.safe_load(text[4 : text.index("\n---", 4)])
        except yaml.YAMLError:
            values = None  # a card that is not readable states no license
        name = values.get("license_name") or values.get("license") if isinstance(values, dict) else None
        if isinstance(name, str):
            return f"{name} (README.md)"
    config = folder / "config.json"
    timm = read_json(config).get("pretrained_cfg") if config.is_file() else None
    if isinstance(timm, dict) and isinstance(timm.get("license"), str):
        return f"{timm['license']} (config.json)"
    for name in ("LICENSE.md", "LICENSE.txt", "LICENSE"):
        if (folder / name).is_file():
            lines = (folder / name).read_text(encoding="utf-8", errors="backslashreplace").splitlines()
            first = next((line.strip("# *\t") for line in lines if line.strip("# *\t")), None)
            return None if first is None else f"{first} ({name})"
    return None


def _open(path: Path, layer_norm_eps: float | None) -> StoredEncoder:
    if path.is_dir() and has_vision_and_language(path):
        checkpoint = open_checkpoint(path, needs_resolution=False)
        return StoredEncoder(path, checkpoint.config.vision_config, checkpoint.weights.below(VISION_TOWER_PREFIX))
    files = _open_files(path)
    config = path / "config.json"
    stored = read_json(config) if config.is_file() else None
    check_sections(stored or {}, config, ("vision_config",))
    if any(name.endswith("embeddings.class_embedding") for name in files):
        weights = Weights.renamed(files, CLIP_NAMES).below(VISION_TOWER_PREFIX)
        return StoredEncoder(path, clip_config(weights.shapes(), stored, str(path)), weights)
    naming = naming_of(files, str(path))
    names = convnext_names(files, str(path))
    weights = Weights({ours: Weight(files, name, is_pointwise=".pwconv" in ours) for name, ours in names.items()})
    options = _stored_options(config, stored or {})
    if layer_norm_eps is not None:
        options["layer_norm_eps"] = layer_norm_eps
    has_final_norm = any(name.endswith(naming.final_norm) and name not in names for name in files)
    found = convnext_config(weights.shapes(), str(path), **options)
    return StoredEncoder(path, found, weights, naming, has_final_norm)


def _open_files(path: Path) -> WeightFiles:
    if path.is_file():
        if path.suffix not in WEIGHT_SUFFIXES:
            raise ValueError(f"{path} is not a weight file: its name must end in {', '.join(WEIGHT_SUFFIXES)}")
        return WeightFiles([path])
    if not path.is_dir():
        raise ValueError(f"{path} does not exist: give a weight file or a directory")
    found = [path / name for name in _OPEN_CLIP if (path / name).is_file()]
    return WeightFiles(found[:1]) if found else open_weights(path)


def _stored_options(path: Path, stored: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of an encoder's configuration file that its tensors do not tell."""
    if stored.get("model_type") == ConvLlavaVisionConfig.model_type:
        names = ("layer_norm_eps", "hidden_act", "layer_scale_init_value", "initializer_range")
        return {name: stored[name] for name in names if name in stored}
    if stored.get("hidden_act", "gelu") != "gelu":
        raise ValueError(f"{path}: hidden_act is {stored['hidden_act']!r}, and only 'gelu' is supported")
    states_epsilon = stored.get("model_type") == DINOV3_MODEL_TYPE and "layer_norm_eps" in stored
    return {"layer_norm_eps": stored["layer_norm_eps"]} if states_epsilon else {}


def _model_class(config: PreTrainedConfig) -> type[PreTrainedModel]:
    return ConvLlavaVisionModel if isinstance(config, ConvLlavaVisionConfig) else CLIPVisionModel


def _finite_tensors(stored: StoredEncoder) -> dict[str, Tensor]:
    tensors = {name: weight.load() for name, weight in stored.weights.items()}
    for name, tensor in tensors.items():
        if not bool(tensor.isfinite().all()):
            stored_name = stored.weights[name].stored_name
            raise ValueError(f"{stored.path}: {stored_name} holds NaN or infinity; copy or download it again")
    return tensors
