"""The table of known layouts, and the function that opens a checkpoint in any of them.

To add a layout, write a module with ``is_layout(config)`` and ``read(folder, options)`` and add it to :data:`LAYOUTS`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from ...model import ConvLlavaConfig, ConvLlavaVisionConfig
from ...support import explain_no_checkpoint, first_line, quiet_transformers, read_json
from ..checkpoint import Checkpoint, ReadOptions
from ..tensor_files import STEMS
from . import convllava, official, transformers_llava


class Layout(Protocol):
    """A module that reads one layout."""

    def is_layout(self, config: Mapping[str, Any]) -> bool:
        """Return whether a ``config.json`` belongs to the layout."""
        ...

    def read(self, folder: Path, options: ReadOptions) -> Checkpoint:
        """Read a directory in the layout.

        Raises:
            ValueError: Its files are damaged, contradict each other, or describe a model that is not supported.
        """
        ...


LAYOUTS: tuple[Layout, ...] = (convllava, official, transformers_llava)
"""Known layouts; the first whose ``is_layout`` holds reads the checkpoint."""

DINOV3_MODEL_TYPE = "dinov3_convnext"
"""Model type of DINOv3's ConvNeXt in transformers."""

_ENCODERS = ("convnext", DINOV3_MODEL_TYPE, "clip_vision_model", "clip", ConvLlavaVisionConfig.model_type)

WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth")
"""Endings of the names of weight files."""


def open_checkpoint(
    folder: Path, *, resolution: int | None = None, hub_id: str | None = None, needs_resolution: bool = True
) -> Checkpoint:
    """Open a checkpoint directory in any known layout; tensor names and shapes are read, but no values.

    Args:
        folder: A directory with ``config.json``.
        resolution: Pixels that replace the checkpoint's own resolution; None keeps it.
        hub_id: The hub id that the checkpoint was downloaded from, if any; published ids have known resolutions.
        needs_resolution: Whether a checkpoint whose resolution is unknown is an error.

    Raises:
        ValueError: The directory holds no supported model, or its files are damaged or contradict each other.
    """
    options = ReadOptions(resolution, hub_id, needs_resolution)
    path = folder / "config.json"
    if not path.is_file():
        raise ValueError(explain_no_checkpoint(folder))
    config = read_json(path)
    layout = find_layout(config)
    if layout is not convllava and (folder / "adapter_config.json").is_file() and not _has_weights(folder):
        raise ValueError(explain_no_checkpoint(folder))
    if layout is None:
        raise ValueError(_unsupported(folder, config.get("model_type")))
    with quiet_transformers():
        try:
            return layout.read(folder, options)
        except (ValueError, OSError):
            raise
        except Exception as error:  # transformers raises errors of many types for values that do not fit together
            raise ValueError(f"{path} does not describe a model that can be built: {first_line(error)}") from error


def open_config(folder: Path, *, hub_id: str | None = None) -> ConvLlavaConfig:
    """Return the configuration of a checkpoint in any known layout, even if its weights are not there.

    Without weights, the encoder's shape is only known in this package's layout and of published checkpoints.

    Args:
        folder: A directory with ``config.json``.
        hub_id: The hub id that it was downloaded from, if any.

    Raises:
        ValueError: Same as in :func:`open_checkpoint`; or the encoder's shape is unknown without the weights.
    """
    path = folder / "config.json"
    if not path.is_file() or _has_weights(folder):
        return open_checkpoint(folder, hub_id=hub_id, needs_resolution=False).config
    stored = read_json(path)
    layout = find_layout(stored)
    with quiet_transformers():
        if layout is convllava:
            return convllava.read_config(path)
        if layout is official:
            return official.published_config(stored, path, hub_id)
    if layout is None:
        raise ValueError(_unsupported(folder, stored.get("model_type")))
    raise ValueError(f"{folder} has no weights: {' or '.join(STEMS)} is missing; copy or download it again")


def is_encoder(folder: Path) -> bool:
    """Return whether a weight file or a directory of transformers, timm or OpenCLIP holds a vision encoder alone."""
    if folder.is_file():
        return folder.suffix in WEIGHT_SUFFIXES
    path = folder / "config.json"
    if not path.is_file():
        return (folder / "open_clip_config.json").is_file()
    config = read_json(path)
    is_timm = isinstance(config.get("architecture"), str) and isinstance(config.get("pretrained_cfg"), dict)
    return config.get("model_type") in _ENCODERS or is_timm


def find_layout(config: Mapping[str, Any]) -> Layout | None:
    """Return the layout that a ``config.json`` belongs to, or None if it is unknown."""
    return next((layout for layout in LAYOUTS if layout.is_layout(config)), None)


def has_vision_and_language(folder: Path) -> bool:
    """Return whether a directory holds an encoder and a language model together, in any layout."""
    path = folder / "config.json"
    return path.is_file() and describes_vision_and_language(read_json(path))


def describes_vision_and_language(config: Mapping[str, Any]) -> bool:
    """Return whether a ``config.json`` is that of an encoder and a language model together."""
    return convllava.is_layout(config) or config.get("model_type") in official.MODEL_TYPES


def _has_weights(folder: Path) -> bool:
    return any((folder / f"{stem}{ending}").is_file() for stem in STEMS for ending in ("", ".index.json"))


def _unsupported(folder: Path, model_type: object) -> str:
    if model_type in _ENCODERS:
        advice = (
            "a vision encoder alone: convllava inspect describes it, convllava join puts it before a language model, "
            "and convllava.convert.load_vision_tower opens it"
        )
    else:
        advice = (
            "neither ConvLLaVA nor LLaVA-1.5: it has no vision encoder that is supported (convllava join puts one "
            "before a language model)"
        )
    return f"{folder} holds a model of type {model_type!r} (config.json), {advice}"
