"""The layout of this package, read and written.

::

    folder/
      config.json             the model: vision_config, text_config, resolution, prompt_format
      processor_config.json   the image processor; next to it the tokenizer's files
      generation_config.json
      model.safetensors       or shards with model.safetensors.index.json
      README.md               a model card
      original/               the small files of the layout that the checkpoint was converted from, if any
"""

import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from transformers import PreTrainedConfig

from ...model import ConvLlavaConfig, ConvLlavaForConditionalGeneration, ConvLlavaProcessor
from ...support import atomic_directory, first_line, read_json
from ..checkpoint import Checkpoint, ReadOptions, TensorNames, WriteOptions
from ..config_files import SENTENCEPIECE, check_image_processor, check_keys, read_generation_config
from ..config_values import check_depth, check_sections
from ..tensor_files import open_weights
from ..weights import OutputTensor, Weights, write_weights
from .official_config import training_stage

_SHARED_OPTIONS = ("image_aspect_ratio", "resolution", "output_stride")
"""Options that both the model's configuration and the image processor store."""

_WRITTEN_BY_TRANSFORMERS = frozenset(
    "_name_or_path architectures auto_map dtype torch_dtype transformers_version model_type "
    "_attn_implementation_autoset use_cache quantization_config rope_theta rope_scaling".split()
)

_ORIGINAL = "original"
"""Folder for the small files of an official checkpoint, which converting back restores."""

_ORIGINAL_FILES = (
    "config.json generation_config.json tokenizer.model tokenizer.json tokenizer_config.json special_tokens_map.json "
    "added_tokens.json vision_tower/config.json vision_tower/preprocessor_config.json"
).split()


_PROBE = [{"role": "user", "content": "Hi"}]
"""Shortest dialogue that every chat template can render."""


def is_layout(config: Mapping[str, Any]) -> bool:
    """Return whether a ``config.json`` belongs to this layout."""
    return config.get("model_type") == ConvLlavaConfig.model_type


def read(folder: Path, options: ReadOptions) -> Checkpoint:
    """Read a checkpoint in this package's layout.

    Raises:
        ValueError: Its files are damaged or contradict each other.
    """
    weights = Weights.renamed(open_weights(folder), TensorNames())
    config = read_config(folder / "config.json", weights)
    processor = _read_processor(folder)
    check_image_processor(processor.image_processor, folder)
    _check_agreement(config, processor, folder)
    if options.resolution is not None:
        set_resolution(config, processor, options.resolution)
    return Checkpoint(
        folder=folder,
        layout="convllava",
        config=config,
        weights=weights,
        processor=processor,
        generation_config=read_generation_config(folder, config.image_token_id, config.get_text_config(decoder=True)),
        notes={"training_stage": _training_stage(folder), "resolution_from": "config.json"},
    )


def set_resolution(config: ConvLlavaConfig, processor: ConvLlavaProcessor, resolution: int) -> None:
    """Set the resolution of a model's configuration and of its processor.

    Raises:
        ValueError: The resolution is smaller than the output stride.
    """
    if resolution < config.output_stride:
        raise ValueError(f"resolution {resolution} is smaller than the output stride, {config.output_stride} pixels")
    config.resolution = processor.image_processor.resolution = resolution


def read_config(path: Path, names: Iterable[str] | None = None) -> ConvLlavaConfig:
    """Read a ``config.json`` of this layout.

    Args:
        path: The file.
        names: The names of the stored tensors, which limit the number of layers; None if they are not there.

    Raises:
        ValueError: The file is damaged; names the key.
    """
    stored = read_json(path)
    check_sections(stored, path, ("vision_config", "text_config"))
    if names is not None:
        stored_names = list(names)
        check_depth(stored.get("text_config") or {}, stored_names, f"{path} (text_config)")
        check_depth(stored.get("vision_config") or {}, stored_names, f"{path} (vision_config)", vision=True)
    try:
        config = ConvLlavaConfig.from_dict(dict(stored))
    except Exception as error:  # transformers raises errors of many types for wrong values
        raise ValueError(f"{path} is not a valid model configuration: {first_line(error)}") from error
    parts: list[tuple[Mapping[str, Any], PreTrainedConfig, str]] = [
        (stored, ConvLlavaConfig(), str(path)),
        (stored.get("vision_config") or {}, type(config.vision_config)(), f"{path} (vision_config)"),
        (stored.get("text_config") or {}, type(config.text_config)(), f"{path} (text_config)"),
    ]
    for given, default, where in parts:
        check_keys(given, {*default.to_dict(), *_public_fields(default), *_WRITTEN_BY_TRANSFORMERS}, where)
    return config


def _public_fields(config: PreTrainedConfig) -> list[str]:
    return [name for name in vars(config) if not name.startswith("_")] + ["out_features", "out_indices"]


def _read_processor(folder: Path) -> ConvLlavaProcessor:
    if not any((folder / name).is_file() for name in (SENTENCEPIECE, "tokenizer.json")):
        raise ValueError(f"{folder} has no tokenizer: tokenizer.json is missing; copy it from the original checkpoint")
    try:
        processor = ConvLlavaProcessor.from_pretrained(folder)
        processor.render(_PROBE, add_generation_prompt=True)  # shows a broken chat template
    except Exception as error:  # a damaged tokenizer file raises errors of many types
        raise ValueError(
            f"cannot load the processor (tokenizer and image options) of {folder}: {first_line(error)}; save it "
            "next to the model with processor.save_pretrained"
        ) from error
    return processor


def _check_agreement(config: ConvLlavaConfig, processor: ConvLlavaProcessor, folder: Path) -> None:
    """Check that model and processor have the same image options and the same vocabulary."""
    pairs = {name: (getattr(config, name), getattr(processor.image_processor, name)) for name in _SHARED_OPTIONS}
    pairs["image_token_id"] = (config.image_token_id, processor.image_token_id)
    pairs["prompt_format"] = (config.prompt_format, processor.prompt_format)
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


def _training_stage(folder: Path) -> str | None:
    """Return the training stage that the saved recipe or the original configuration tells, or None without either."""
    path, original = folder / "recipe.yaml", folder / _ORIGINAL / "config.json"
    if not path.is_file():
        return training_stage(read_json(original)) if original.is_file() else None
    try:
        recipe = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not valid YAML: remove or repair it") from error
    return recipe.get("training_stage") if isinstance(recipe, dict) else None


def write(
    checkpoint: Checkpoint,
    destination: Path,
    options: WriteOptions,
    write_more: Callable[[Path], None] | None = None,
) -> list[OutputTensor]:
    """Write a checked checkpoint in this package's layout.

    Args:
        checkpoint: The checkpoint, in any layout.
        destination: A directory that does not exist yet; it appears complete or not at all.
        options: The dtype and the size of shards.
        write_more: Function that writes further files into the unfinished directory.

    Returns:
        The tensors that were written.

    Raises:
        ValueError: The destination is taken, or a tensor holds NaN or infinity.
        OSError: Writing failed; nothing is left behind.
    """
    tensors = [
        OutputTensor(name, weight, options.dtype or weight.dtype)
        for name, weight in sorted(checkpoint.weights.items())
        if name not in checkpoint.tied
    ]
    with atomic_directory(destination, sum(tensor.num_bytes for tensor in tensors)) as folder:
        config = checkpoint.config
        config.architectures = [ConvLlavaForConditionalGeneration.__name__]
        config.dtype = max(tensors, key=lambda tensor: tensor.num_bytes).dtype
        config.save_pretrained(folder)
        checkpoint.generation_config.save_pretrained(folder)
        checkpoint.processor.save_pretrained(folder)
        (folder / "README.md").write_text(model_card(checkpoint, destination.name), encoding="utf-8")
        _copy_original_files(checkpoint, folder / _ORIGINAL)
        if write_more is not None:
            write_more(folder)
        write_weights(folder, tensors, options.max_shard_size)
    return tensors


def find_original_files(checkpoint: Checkpoint) -> Path | None:
    """Return the folder of the small files that the authors' code wrote, or None if they are lost."""
    if checkpoint.layout in ("official-split", "official-consolidated"):
        return checkpoint.folder
    if checkpoint.layout == "parts":  # its folder is the language model's, whose files are not the joined model's
        return None
    kept = checkpoint.folder / _ORIGINAL
    return kept if (kept / "config.json").is_file() else None


def _copy_original_files(checkpoint: Checkpoint, folder: Path) -> None:
    source = find_original_files(checkpoint)
    if source is None:
        return
    for name in _ORIGINAL_FILES:
        if (source / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / name, folder / name)


_CARD = """---
library_name: transformers
pipeline_tag: image-text-to-text
tags: [convllava, vision-language]
---

# {title}

A ConvLLaVA checkpoint ([arXiv 2405.15738](https://arxiv.org/abs/2405.15738)), {origin}.

| | |
|---|---|
| vision encoder | {encoder}, one visual token for {stride} x {stride} pixels |
| language model | {language}, {layers} layers, width {width}, {vocabulary} tokens |
| images | {aspect}, {resolution} |
| prompt format | `{prompt}` |

```python
import convllava

model, processor = convllava.load_pretrained("{title}")
print(convllava.ask(model, processor, "image.png", "What is shown?").text)
```

Training, training data, license and measured quality are unknown to the program that wrote this card: add them before
you publish the checkpoint.
"""

_UNTRAINED = (
    "**untrained**: an encoder and a language model joined by a projector of random values. Its answers are "
    "meaningless until it is trained (`init_from` of a recipe)"
)


def model_card(checkpoint: Checkpoint, title: str) -> str:
    """Return a model card with the facts that a checkpoint's files hold, and a note on those that they do not."""
    config = checkpoint.config
    vision, text = config.vision_config, config.get_text_config(decoder=True)
    depths = getattr(vision, "depths", None)
    return _CARD.format(
        title=title,
        origin=_UNTRAINED if checkpoint.layout == "parts" else f"written from the layout `{checkpoint.layout}`",
        encoder=f"ConvNeXt, depths {depths}, widths {vision.hidden_sizes}" if depths else "CLIP ViT",
        stride=config.output_stride,
        language=text.model_type,
        layers=text.num_hidden_layers,
        width=text.hidden_size,
        vocabulary=text.vocab_size,
        aspect=config.image_aspect_ratio,
        resolution="at their own size" if config.resolution is None else f"resolution {config.resolution}",
        prompt=config.prompt_format,
    )
