"""Join a vision encoder and a language model by a new projector: the checkpoint that training starts from.

The result is a checkpoint like any other, except that its projector holds random values.
"""

import copy
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig

from ..compat import initialize_weights
from ..model import (
    ConvLlavaConfig,
    ConvLlavaForConditionalGeneration,
    ConvLlavaImageProcessor,
    ConvLlavaProcessor,
    ConvLlavaVisionConfig,
)
from ..model.image_processing_convllava import CLIP_MEAN, CLIP_STD
from ..model.modeling_convllava import PROJECTOR_PREFIX, VISION_TOWER_PREFIX
from ..support import quiet_transformers, read_json
from .checkpoint import EMBEDDINGS, HEAD, Checkpoint, check_head, check_tensors
from .config_files import SENTENCEPIECE, check_image_processor, image_token_id, read_generation_config
from .convert import Converted, write_options
from .encoder_tensors import DINOV3, META
from .encoders import StoredEncoder, open_vision_tower
from .end_tokens import end_token_fault, learned_end
from .language_models import StoredLanguageModel, open_language_model
from .layouts import convllava
from .layouts.registry import has_vision_and_language, open_checkpoint
from .weights import DEFAULT_SHARD_SIZE, TensorsInMemory, Weight, Weights

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Mean and standard deviation of images of Meta's encoders (the READMEs of facebookresearch/dinov3 and EUPE)."""

NORMALIZATION_FILES = ("preprocessor_config.json", "processor_config.json", "open_clip_config.json", "config.json")
"""Files next to an encoder that may hold the mean and standard deviation of images, in the order they are read."""


@dataclass(frozen=True)
class JoinSettings:
    """Settings of a model that is joined from an encoder and a language model.

    Args:
        resolution: Side of the square (pad) or short side (native) in pixels; a CLIP ViT has its own.
        image_aspect_ratio: "pad" or "native".
        prompt_format: Name of the prompt format; None means the tokenizer's own template if it has one, else
            ``vicuna_v1``.
        layer_norm_eps: Epsilon of the encoder's norms where its files do not tell it.
        seed: Seed of the projector's random values.
    """

    resolution: int | None = None
    image_aspect_ratio: str = "pad"
    prompt_format: str | None = None
    layer_norm_eps: float | None = None
    seed: int = 0


def join(
    vision_tower: Path,
    language_model: Path,
    destination: Path,
    settings: JoinSettings = JoinSettings(),
    *,
    dtype: str | None = None,
    max_shard_size: str = DEFAULT_SHARD_SIZE,
) -> tuple[Converted, Checkpoint]:
    """Write an encoder and a language model as one checkpoint, tensor by tensor; no bit of either changes.

    Args:
        vision_tower: Same as in :func:`open_parts`.
        language_model: Same as in :func:`open_parts`.
        destination: A directory that does not exist yet; it appears complete or not at all.
        settings: Settings of the joined model.
        dtype: "float32", "bfloat16" or "float16"; None keeps each tensor's own.
        max_shard_size: Size of one weight file at most, such as "5GB".

    Returns:
        The written checkpoint, and the view of the parts that it was written from.

    Raises:
        ValueError: A part is damaged or not supported, the destination is taken, or an option is invalid.
        OSError: Writing failed; nothing is left behind.
    """
    options = write_options(dtype, max_shard_size)
    checkpoint = open_parts(vision_tower, language_model, settings)

    def copy_sentencepiece(folder: Path) -> None:
        """Copy the tokenizer file that a later conversion to the authors' layout needs."""
        if (language_model / SENTENCEPIECE).is_file():
            shutil.copyfile(language_model / SENTENCEPIECE, folder / SENTENCEPIECE)

    with quiet_transformers():
        tensors = convllava.write(checkpoint, destination, options, write_more=copy_sentencepiece)
    return Converted.from_tensors(destination, "convllava", tensors), checkpoint


def open_parts(vision_tower: Path, language_model: Path, settings: JoinSettings = JoinSettings()) -> Checkpoint:
    """Open an encoder and a language model as one checkpoint; tensor names and shapes are read, but no values.

    ``<image>`` takes the tokenizer's next free id. Where the language model has no row for it, its embeddings and its
    head grow by a row, the mean of the others.

    Args:
        vision_tower: Same as in :func:`load_vision_tower`: a file, a directory, or a vision-language model.
        language_model: A directory of a causal language model of transformers with its tokenizer, or
            of a vision-language model.
        settings: Settings of the joined model.

    Raises:
        ValueError: A part is damaged or not supported, or the resolution is not set.
    """
    with quiet_transformers():
        encoder = open_vision_tower(vision_tower, layer_norm_eps=settings.layer_norm_eps)
        language = open_language_model(language_model)
        config = _config(encoder, language, settings)
        normalization, normalized_by = _normalization(vision_tower, encoder)
        processor = _processor(config, language, normalization)
        generation_config = _generation_config(language, config, processor)
        checkpoint = Checkpoint(
            folder=language_model,
            layout="parts",
            config=config,
            weights=_weights(encoder, language, config, settings.seed),
            processor=processor,
            generation_config=generation_config,
            notes={
                "end_token_fault": end_token_fault(processor, generation_config),
                "normalized_by": normalized_by,
                "new_row": config.text_config.vocab_size > language.config.vocab_size,
                "resolution_from": "caller",
            },
        )
        check_image_processor(checkpoint.processor.image_processor, vision_tower)
        check_tensors(checkpoint)
        check_head(checkpoint)
    return checkpoint


def _generation_config(
    language: StoredLanguageModel, config: ConvLlavaConfig, processor: ConvLlavaProcessor
) -> GenerationConfig:
    """Return the language model's defaults; the control token that ends a learned answer ends a generated one too."""
    found = read_generation_config(
        language.folder, config.image_token_id, config.text_config, eos_token_id=language.tokenizer.eos_token_id
    )
    if end_token_fault(processor, found) and (learned := learned_end(processor)) is not None:
        ends = found.eos_token_id or []
        found.eos_token_id = [*(ends if isinstance(ends, list) else [ends]), learned]
    return found


def _config(encoder: StoredEncoder, language: StoredLanguageModel, settings: JoinSettings) -> ConvLlavaConfig:
    new_token_id = image_token_id(language.tokenizer)
    text = copy.deepcopy(language.config)
    text.vocab_size = max(text.vocab_size, new_token_id + 1)
    return ConvLlavaConfig(
        vision_config=encoder.config,
        text_config=text,
        image_token_id=new_token_id,
        image_aspect_ratio=settings.image_aspect_ratio,
        resolution=_resolution(encoder, settings),
        prompt_format=settings.prompt_format or ("tokenizer" if language.tokenizer.chat_template else "vicuna_v1"),
    )


def _resolution(encoder: StoredEncoder, settings: JoinSettings) -> int | None:
    if not isinstance(encoder.config, ConvLlavaVisionConfig):
        side = int(encoder.config.image_size)
        if settings.resolution not in (None, side) or settings.image_aspect_ratio != "pad":
            raise ValueError(
                f"{encoder.path}: this CLIP ViT takes squares of {side} pixels only: leave resolution and "
                "image_aspect_ratio out"
            )
        return side
    if settings.resolution is None and settings.image_aspect_ratio == "pad":
        raise ValueError(
            f"{encoder.path}: resolution is not set: pass --resolution (768, 1024 or 1536 in the paper), or "
            "--image-aspect-ratio native to keep the size of each image"
        )
    return settings.resolution


def _weights(encoder: StoredEncoder, language: StoredLanguageModel, config: ConvLlavaConfig, seed: int) -> Weights:
    rows = config.text_config.vocab_size - language.config.vocab_size
    grown = {
        name: Weight(weight.files, weight.stored_name, rows + weight.new_rows) if name in (EMBEDDINGS, HEAD) else weight
        for name, weight in language.weights.items()
    }
    projector = TensorsInMemory(new_projector(config, seed, language.weights[EMBEDDINGS].dtype))
    return Weights(
        {
            **grown,
            **{name: Weight(projector, name) for name in projector},
            **encoder.weights.prefixed(VISION_TOWER_PREFIX),
        }
    )


def new_projector(config: ConvLlavaConfig, seed: int, dtype: torch.dtype) -> dict[str, Tensor]:
    """Return the tensors of an untrained projector by this package's names, initialized as the model does it.

    Args:
        config: The model's configuration.
        seed: Seed of the random values; the global generator is left as it was.
        dtype: The dtype that the float32 values are rounded to.
    """
    with torch.device("meta"):
        model = ConvLlavaForConditionalGeneration(config)
    projector = model.model.multi_modal_projector.to_empty(device="cpu")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for linear in (projector.linear_1, projector.linear_2):
            initialize_weights(model, linear)
    return {PROJECTOR_PREFIX + name: value.detach().to(dtype) for name, value in projector.state_dict().items()}


def _processor(
    config: ConvLlavaConfig, language: StoredLanguageModel, normalization: Mapping[str, Any]
) -> ConvLlavaProcessor:
    images = ConvLlavaImageProcessor(
        output_stride=config.output_stride,
        image_aspect_ratio=config.image_aspect_ratio,
        resolution=config.resolution,
        **normalization,
    )
    processor = ConvLlavaProcessor(images, language.tokenizer, prompt_format=config.prompt_format)
    if processor.image_token_id != config.image_token_id:
        raise ValueError(
            f"{language.folder}: <image> got the id {processor.image_token_id} in the tokenizer, and the embeddings "
            f"were grown for {config.image_token_id}; repair the tokenizer's added tokens"
        )
    return processor


def _normalization(source: Path, encoder: StoredEncoder) -> tuple[dict[str, Any], str]:
    """Return the mean and standard deviation of images that an encoder expects, and the source of these values."""
    folder = source if source.is_dir() else source.parent
    if source.is_dir() and has_vision_and_language(source):
        images = open_checkpoint(source, needs_resolution=False).processor.image_processor
        return {"image_mean": list(images.image_mean), "image_std": list(images.image_std)}, str(source)
    for name in NORMALIZATION_FILES:
        if (folder / name).is_file() and (found := _mean_and_std(read_json(folder / name))) is not None:
            return found, str(folder / name)
    if encoder.naming in (META, DINOV3):
        known = {"image_mean": list(IMAGENET_MEAN), "image_std": list(IMAGENET_STD)}
        return known, f"ImageNet (no file next to the encoder tells, and its tensor names are those of {META.source})"
    return {"image_mean": list(CLIP_MEAN), "image_std": list(CLIP_STD)}, "CLIP (no file next to the encoder tells)"


def _mean_and_std(stored: Mapping[str, Any]) -> dict[str, Any] | None:
    """Pick them from a file of transformers, OpenCLIP (``preprocess_cfg``) or timm (``pretrained_cfg``)."""
    for section in ("", "image_processor", "preprocess_cfg", "pretrained_cfg"):
        values = stored.get(section) if section else stored
        if not isinstance(values, Mapping):
            continue
        for mean, std in (("image_mean", "image_std"), ("mean", "std")):
            if isinstance(values.get(mean), list) and isinstance(values.get(std), list):
                return {"image_mean": values[mean], "image_std": values[std]}
    return None
