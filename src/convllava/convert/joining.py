"""A vision encoder and a language model that have not met yet, joined by a fresh projector: where training starts.

The result is a checkpoint like any other, except that nobody has trained its projector: it answers nonsense until
somebody does.
"""

import copy
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..constants import IMAGE_TOKEN
from ..model import (
    ConvLlavaConfig,
    ConvLlavaForConditionalGeneration,
    ConvLlavaImageProcessor,
    ConvLlavaProcessor,
    ConvLlavaVisionConfig,
)
from .checkpoint import Checkpoint, Weight, Weights, check_head, check_tensors
from .converting import Converted, check_options, write_checkpoint
from .generation import read_generation_config
from .image_options import CLIP_MEAN, CLIP_STD, check_image_processor
from .json_files import read_json
from .language_models import EMBEDDINGS, HEAD, LanguageModel, open_language_model
from .names import VISION_TOWER
from .opening import open_checkpoint
from .quiet import quiet
from .shards import DEFAULT_SHARD_SIZE
from .tensor_files import StoredTensor
from .tokenizers import SENTENCEPIECE
from .towers import Tower, is_whole_model, open_tower

PROJECTOR = "model.multi_modal_projector."
NORMALIZATION_FILES = ("preprocessor_config.json", "processor_config.json", "open_clip_config.json", "config.json")
"""Beside an encoder, in the order in which they are asked for the mean and standard deviation of images."""


def join(
    vision_tower: Path,
    language_model: Path,
    destination: Path,
    *,
    resolution: int | None = None,
    image_aspect_ratio: str = "pad",
    prompt_format: str | None = None,
    layer_norm_eps: float | None = None,
    seed: int = 0,
    dtype: str | None = None,
    max_shard_size: str = DEFAULT_SHARD_SIZE,
) -> tuple[Converted, Checkpoint]:
    """Write an encoder and a language model as one untrained checkpoint, tensor by tensor and to the last bit.

    Args:
        vision_tower: As for :func:`open_parts`, as are the further options.
        language_model: A directory.
        destination: Must not exist yet; it appears when all is written, or not at all.
        dtype: "float32", "bfloat16" or "float16"; None keeps each tensor's own.
        max_shard_size: Of one weight file.

    Returns:
        What was written, and the view of the parts that it was written from.

    Raises:
        ValueError: A part is damaged or no such part, the destination is taken, or an option is not understood.
        OSError: Writing failed; nothing is left behind.
    """
    wanted, shard_size = check_options(dtype, max_shard_size)
    checkpoint = open_parts(
        vision_tower,
        language_model,
        resolution=resolution,
        image_aspect_ratio=image_aspect_ratio,
        prompt_format=prompt_format,
        layer_norm_eps=layer_norm_eps,
        seed=seed,
    )

    def keep_sentencepiece(folder: Path) -> None:
        """Copy what the way to the authors' layout needs."""
        if (language_model / SENTENCEPIECE).is_file():
            shutil.copyfile(language_model / SENTENCEPIECE, folder / SENTENCEPIECE)

    written = write_checkpoint(checkpoint, destination, wanted, shard_size, also=keep_sentencepiece)
    return written, checkpoint


def open_parts(
    vision_tower: Path,
    language_model: Path,
    *,
    resolution: int | None = None,
    image_aspect_ratio: str = "pad",
    prompt_format: str | None = None,
    layer_norm_eps: float | None = None,
    seed: int = 0,
) -> Checkpoint:
    """See an encoder and a language model as one checkpoint; of their tensors only names and shapes are read.

    ``<image>`` takes the tokenizer's next free id; where the language model has no row for it, its embeddings and its
    head grow by one, the mean of the others.

    Args:
        vision_tower: As for ``load_tower``: a file, a directory, or a whole model, whose encoder is taken.
        language_model: A directory of any causal language model that transformers knows, with its tokenizer.
        resolution: Side of the square (pad) or short side (native) in pixels; a CLIP ViT knows its own.
        image_aspect_ratio: "pad" or "native".
        prompt_format: None takes the tokenizer's own template if it has one, else ``vicuna_v1``.
        layer_norm_eps: Of the encoder, where its files do not tell.
        seed: Of the projector's values.

    Raises:
        ValueError: A part is damaged or no such part, or the resolution is missing.
    """
    with quiet():
        tower = open_tower(vision_tower, layer_norm_eps=layer_norm_eps)
        language = open_language_model(language_model)
        config = _config(tower, language, resolution, image_aspect_ratio, prompt_format)
        normalization, normalized_by = _normalization(vision_tower)
        checkpoint = Checkpoint(
            folder=language_model,
            layout="parts",
            config=config,
            weights=_weights(tower, language, config, seed),
            processor=_processor(config, language, normalization),
            generation_config=_generation_config(language, config),
            notes={"normalized_by": normalized_by, "new_row": _is_new(config, language), "resolution_from": "caller"},
        )
        check_image_processor(checkpoint.processor.image_processor, vision_tower)
        assert checkpoint.processor.image_token_id == config.image_token_id
        check_tensors(checkpoint)
        check_head(checkpoint)
    return checkpoint


def _config(
    tower: Tower,
    language: LanguageModel,
    resolution: int | None,
    image_aspect_ratio: str,
    prompt_format: str | None,
) -> ConvLlavaConfig:
    tokenizer = language.tokenizer
    image_token_id = int(tokenizer.get_vocab().get(IMAGE_TOKEN, len(tokenizer)))
    text = copy.deepcopy(language.config)
    text.vocab_size = max(text.vocab_size, image_token_id + 1)
    return ConvLlavaConfig(
        vision_config=tower.config,
        text_config=text,
        image_token_id=image_token_id,
        image_aspect_ratio=image_aspect_ratio,
        resolution=_resolution(tower, resolution, image_aspect_ratio),
        prompt_format=prompt_format or ("tokenizer" if tokenizer.chat_template else "vicuna_v1"),
    )


def _resolution(tower: Tower, resolution: int | None, image_aspect_ratio: str) -> int | None:
    if not isinstance(tower.config, ConvLlavaVisionConfig):
        side = int(tower.config.image_size)
        if resolution not in (None, side) or image_aspect_ratio != "pad":
            raise ValueError(f"{tower.path}: this CLIP ViT takes squares of {side} pixels only: leave both options out")
        return side
    if resolution is None and image_aspect_ratio == "pad":
        raise ValueError(
            f"{tower.path}: nobody says how large images are to be shown: give --resolution (768, 1024 and 1536 in "
            "the paper), or --image-aspect-ratio native for their own size"
        )
    return resolution


def _is_new(config: ConvLlavaConfig, language: LanguageModel) -> bool:
    return bool(config.text_config.vocab_size > language.config.vocab_size)


def _weights(tower: Tower, language: LanguageModel, config: ConvLlavaConfig, seed: int) -> Weights:
    rows = config.text_config.vocab_size - language.config.vocab_size
    grown = {
        name: Weight(weight.files, weight.stored_name, rows + weight.new_rows) if name in (EMBEDDINGS, HEAD) else weight
        for name, weight in language.weights.items()
    }
    dtype = language.weights[EMBEDDINGS].dtype
    fresh = MemoryFiles(fresh_projector(config, seed, dtype))
    projector = {name: Weight(fresh, name) for name in fresh}  # type: ignore[arg-type]  # the same methods
    return Weights(grown | projector).joined(tower.weights.above(VISION_TOWER))


class MemoryFiles(Mapping[str, StoredTensor]):
    """Tensors in memory, seen as if they lay in files."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._tensors = dict(tensors)

    def __getitem__(self, name: str) -> StoredTensor:
        tensor = self._tensors[name]
        return StoredTensor(name, Path("memory"), tuple(tensor.shape), tensor.dtype)

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def load(self, name: str) -> Tensor:
        """Return a tensor."""
        return self._tensors[name]

    def release(self) -> None:
        """There is nothing to give back."""


def fresh_projector(config: ConvLlavaConfig, seed: int, dtype: torch.dtype) -> dict[str, Tensor]:
    """Return an untrained projector's tensors by our names, as the model itself initializes them."""
    with torch.device("meta"):
        model = ConvLlavaForConditionalGeneration(config)
    projector = model.model.multi_modal_projector.to_empty(device="cpu")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for linear in (projector.linear_1, projector.linear_2):
            for parameter in linear.parameters():
                parameter._is_hf_initialized = False  # type: ignore[attr-defined]  # transformers would leave it as it is
            model._init_weights(linear)
    return {PROJECTOR + name: value.detach().to(dtype) for name, value in projector.state_dict().items()}


def _processor(config: ConvLlavaConfig, language: LanguageModel, normalization: dict[str, Any]) -> ConvLlavaProcessor:
    images = ConvLlavaImageProcessor(
        output_stride=config.output_stride,
        image_aspect_ratio=config.image_aspect_ratio,
        resolution=config.resolution,
        **normalization,
    )
    return ConvLlavaProcessor(images, language.tokenizer, prompt_format=config.prompt_format)


def _generation_config(language: LanguageModel, config: ConvLlavaConfig) -> Any:
    text = config.text_config
    defaults = {name: getattr(text, name, None) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    if defaults["eos_token_id"] is None:
        defaults["eos_token_id"] = language.tokenizer.eos_token_id
    return read_generation_config(language.folder, config.image_token_id, **defaults)


def _normalization(source: Path) -> tuple[dict[str, Any], str]:
    """Return the mean and standard deviation that an encoder knows images by, and who says so."""
    folder = source if source.is_dir() else source.parent
    if source.is_dir() and is_whole_model(source):
        images = open_checkpoint(source, needs_resolution=False).processor.image_processor
        return {"image_mean": list(images.image_mean), "image_std": list(images.image_std)}, str(source)
    for name in NORMALIZATION_FILES:
        if (folder / name).is_file() and (found := _mean_and_std(read_json(folder / name))) is not None:
            return found, str(folder / name)
    return {"image_mean": CLIP_MEAN, "image_std": CLIP_STD}, "CLIP, as no file beside the encoder tells them"


def _mean_and_std(stored: Mapping[str, Any]) -> dict[str, Any] | None:
    """Pick them from the files of transformers, OpenCLIP (``preprocess_cfg``) or timm (``pretrained_cfg``)."""
    for part in ("", "image_processor", "preprocess_cfg", "pretrained_cfg"):
        values = stored.get(part) if part else stored
        if not isinstance(values, Mapping):
            continue
        for mean, std in (("image_mean", "image_std"), ("mean", "std")):
            if isinstance(values.get(mean), list) and isinstance(values.get(std), list):
                return {"image_mean": values[mean], "image_std": values[std]}
    return None
