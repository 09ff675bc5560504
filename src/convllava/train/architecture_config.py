"""The configuration that a recipe names: a preset, with another encoder, further stages or larger kernels."""

from typing import Any

from transformers import PreTrainedConfig

from ..model import ConvLlavaConfig, append_stages, preset
from .architecture import AppendStages, Architecture, VitOptions
from .stages import check_is_convnext

_ENCODER_KEYS = {
    "convllava_vision": ("depths", "hidden_sizes", "kernel_size"),
    "clip_vision_model": ("hidden_size", "num_hidden_layers", "patch_size", "image_size"),
}
_LANGUAGE_MODEL_KEYS = ("model_type", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
"""Compared settings; the vocabulary may differ, since tokenizers grow and some are padded to round numbers."""


def architecture_config(architecture: Architecture) -> ConvLlavaConfig:
    """Return the configuration of an architecture.

    Raises:
        ValueError: The preset is unknown, or its encoder cannot have these sizes.
    """
    return with_architecture(preset(architecture.preset), architecture)


def with_architecture(config: ConvLlavaConfig, architecture: Architecture) -> ConvLlavaConfig:
    """Return a preset's configuration with the encoder of an architecture."""
    if architecture.vit is not None:
        return _config_with_vit(config, architecture.vit)
    options, kernels = architecture.encoder, None
    if options is not None:
        check_is_convnext(config.vision_config, "model.encoder")
        vision = config.vision_config.to_dict()
        depths = options.depths or config.vision_config.depths
        widths = options.hidden_sizes or vision["hidden_sizes"][: len(depths)]
        if len(depths) != len(widths):
            raise ValueError(
                f"model.encoder has {len(depths)} stages in depths ({depths}) and {len(widths)} in hidden_sizes "
                f"({widths}); give one entry per stage in both"
            )
        vision |= {"depths": depths, "hidden_sizes": widths}
        config = _with_vision(config, vision)
        kernels = options.kernel_size
    is_of_the_appended = isinstance(kernels, list) and len(kernels) != config.vision_config.num_stages
    if kernels is not None and not is_of_the_appended:  # appended stages then take the last one
        config = config_with_kernels(config, kernels, "model.encoder.kernel_size")
    if architecture.append_stages is not None:
        config = config_with_stages(config, architecture.append_stages)
    if kernels is not None and is_of_the_appended:
        config = config_with_kernels(config, kernels, "model.encoder.kernel_size")
    return config


def _config_with_vit(config: ConvLlavaConfig, options: VitOptions) -> ConvLlavaConfig:
    vision = {
        "model_type": "clip_vision_model",
        "hidden_size": options.hidden_size,
        "intermediate_size": 4 * options.hidden_size,
        "num_hidden_layers": options.num_layers,
        "num_attention_heads": options.num_heads,
        "patch_size": options.patch_size,
        "image_size": options.image_size,
        "projection_dim": options.hidden_size,
    }
    return _with_vision(config, vision, image_aspect_ratio="pad", resolution=options.image_size)


def _with_vision(config: ConvLlavaConfig, vision: dict[str, Any], **values: Any) -> ConvLlavaConfig:
    """Return the configuration with another encoder."""
    for derived in ("out_features", "out_indices", "stage_names"):
        vision.pop(derived, None)
    return ConvLlavaConfig.from_dict({**config.to_dict(), "vision_config": vision, **values})


def config_with_kernels(config: ConvLlavaConfig, kernel_size: int | list[int], key: str) -> ConvLlavaConfig:
    """Return the configuration with other depthwise kernels.

    Args:
        config: Configuration of a model.
        kernel_size: Side of the kernels, one for all stages or one for each.
        key: Name of the recipe key, for the message.

    Raises:
        ValueError: The encoder is not a ConvNeXt, or the sizes are not those of its kernels.
    """
    check_is_convnext(config.vision_config, key)
    try:
        return _with_vision(config, {**config.vision_config.to_dict(), "kernel_size": kernel_size})
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from error


def config_with_stages(config: ConvLlavaConfig, appended: AppendStages) -> ConvLlavaConfig:
    """Return the configuration with further stages appended to the encoder.

    Raises:
        ValueError: The encoder is not a ConvNeXt.
    """
    check_is_convnext(config.vision_config, "append_stages")
    values: dict[str, Any] = config.to_dict()
    values["vision_config"] = append_stages(config.vision_config, appended.depths, appended.hidden_sizes).to_dict()
    values["trained_visual_tokens"] = None  # they had another size
    return ConvLlavaConfig.from_dict(values)


def check_agreement(found: ConvLlavaConfig, architecture: Architecture, source: str) -> None:
    """Check that a checkpoint has the architecture that the recipe states.

    Args:
        found: Configuration of the checkpoint.
        architecture: Architecture in the recipe.
        source: Name of the checkpoint in the error.

    Raises:
        ValueError: They differ; names the first difference and both values.
    """
    expected = architecture_config(architecture)
    vision, text = (found.vision_config, expected.vision_config), (found.text_config, expected.text_config)
    _compare("vision encoder", *vision, ("model_type",), source)
    _compare("vision encoder", *vision, _ENCODER_KEYS[expected.vision_config.model_type], source)
    _compare("language model", *text, _LANGUAGE_MODEL_KEYS, source)


def _compare(
    part: str, found: PreTrainedConfig, expected: PreTrainedConfig, names: tuple[str, ...], source: str
) -> None:
    for name in names:
        here, there = getattr(found, name), getattr(expected, name)
        if here != there:
            raise ValueError(
                f"{source}: {name} of its {part} is {here}, but the recipe's model has {there}; start from another "
                "checkpoint or correct model"
            )
