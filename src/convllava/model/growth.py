"""A trained encoder grown: further stages (the paper's fifth), or larger kernels (its section 4.4)."""

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

from torch import nn

from .configuration_convllava import ConvLlavaVisionConfig
from .vision_convllava import ConvLlavaVisionModel


def append_stages(
    tower: ConvLlavaVisionConfig | ConvLlavaVisionModel, depths: Sequence[int], widths: Sequence[int]
) -> Any:
    """Append freshly initialized stages to a trained encoder (the paper's fifth stage: ``[6], [3072]``).

    Args:
        tower: An encoder, or only its config.
        depths: Layers of each new stage.
        widths: Channels of each new stage.

    Returns:
        A new config, or a new encoder whose first stages have the weights of the given one.

    Raises:
        ValueError: The two lists differ in length or contain a value below 1.
    """
    config = tower.config if isinstance(tower, ConvLlavaVisionModel) else tower
    grown_config = _append_to_config(config, depths, widths)
    if not isinstance(tower, ConvLlavaVisionModel):
        return grown_config
    grown = ConvLlavaVisionModel(grown_config).to(tower.dtype)
    missing, unexpected = grown.load_state_dict(tower.state_dict(), strict=False)
    lost = [*unexpected, *(name for name in missing if _stage_index(name) < config.num_stages)]
    if lost:
        raise ValueError(f"the trained stages lack or have other tensors than their configuration says: {lost[:5]}")
    return grown.to(tower.device)


def _append_to_config(
    config: ConvLlavaVisionConfig, depths: Sequence[int], widths: Sequence[int]
) -> ConvLlavaVisionConfig:
    if len(depths) != len(widths):
        raise ValueError(f"{len(depths)} depths but {len(widths)} widths; give one of each per new stage")
    values = _settings(config)
    values["depths"] = [*config.depths, *depths]
    values["hidden_sizes"] = [*config.hidden_sizes, *widths]
    values["kernel_size"] = [*config.kernel_sizes, *[config.kernel_sizes[-1]] * len(depths)]
    return ConvLlavaVisionConfig(**values)


def enlarge_kernels(tower: ConvLlavaVisionModel, kernel_size: int | Sequence[int]) -> ConvLlavaVisionModel:
    """Enlarge the depthwise kernels of a trained encoder with zeros around them (paper section 4.4).

    The features stay the same until the zeros are trained.

    Args:
        tower: An encoder.
        kernel_size: Side of the new kernels, one for all stages or one for each.

    Returns:
        A new encoder.

    Raises:
        ValueError: A kernel would become smaller, or the sizes are not those of kernels.
    """
    sizes = kernel_size if isinstance(kernel_size, int) else list(kernel_size)
    config = ConvLlavaVisionConfig(**{**_settings(tower.config), "kernel_size": sizes})
    pairs = list(zip(tower.config.kernel_sizes, config.kernel_sizes, strict=True))
    if any(after < before for before, after in pairs):
        raise ValueError(
            f"kernels of {tower.config.kernel_size} cannot become {kernel_size}: kernels of a trained encoder only grow"
        )
    state = tower.state_dict()
    for name, weight in state.items():
        if name.endswith("dwconv.weight"):
            before, after = pairs[_stage_index(name)]
            state[name] = nn.functional.pad(weight, [(after - before) // 2] * 4)
    grown = ConvLlavaVisionModel(config).to(tower.dtype)
    grown.load_state_dict(state)
    return grown.to(tower.device)


def _settings(config: ConvLlavaVisionConfig) -> dict[str, Any]:
    """Return the settings that make an equal configuration, without what follows from them."""
    values = deepcopy(config.to_diff_dict())
    for derived in ("model_type", "out_features", "out_indices", "stage_names", "transformers_version"):
        values.pop(derived, None)
    return values


def _stage_index(parameter_name: str) -> int:
    prefix = "encoder.stages."
    return int(parameter_name[len(prefix) :].split(".")[0]) if parameter_name.startswith(prefix) else -1
