"""The small files next to the weights: configuration keys, tokenizer, image processor and generation defaults."""

import importlib.util
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, GenerationConfig, PreTrainedConfig, PreTrainedTokenizerBase

from ..constants import IMAGE_TOKEN
from ..model import ConvLlavaImageProcessor
from ..model.image_processing_convllava import CLIP_MEAN, CLIP_STD
from ..support import did_you_mean, first_line, read_json
from .config_values import check_generation_values, is_number

SENTENCEPIECE = "tokenizer.model"
"""Name of the tokenizer file that the authors' code reads."""

BICUBIC = 3
"""Resampling filter of CLIP's image processor, as PIL numbers it."""

_CLIP_DEFAULTS: dict[str, Any] = {
    "do_resize": True,
    "do_center_crop": True,
    "do_rescale": True,
    "do_normalize": True,
    "resample": BICUBIC,
    "rescale_factor": 1 / 255,
    "image_mean": list(CLIP_MEAN),
    "image_std": list(CLIP_STD),
}
"""Defaults of transformers' CLIPImageProcessor, which the authors use."""

_CLIP_REQUIRED = ("do_resize", "do_center_crop", "do_rescale", "do_normalize", "resample")
"""Options that must have their default value, since ConvLLaVA's image processor does nothing else."""

_SAMPLING = ("temperature", "top_p", "top_k", "typical_p", "min_p", "epsilon_cutoff", "eta_cutoff")
_WRITTEN_BY_TRANSFORMERS = ("transformers_version", "_from_model_config")


def check_keys(given: Iterable[str], known: Iterable[str], where: str) -> None:
    """Check that every key of a configuration is known, since a misspelled key would be ignored.

    Raises:
        ValueError: Names the unknown keys and, for the first one, the nearest known key.
    """
    names = sorted(set(known))
    unknown = sorted(set(given) - set(names))
    if unknown:
        keys = ", ".join(map(repr, unknown))
        hint = did_you_mean(unknown[0], names) or "; remove what has no effect"
        raise ValueError(f"{where}: unknown key{'s' * (len(unknown) > 1)} {keys}{hint}")


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Return the tokenizer of a checkpoint that was trained with an older version of transformers.

    Llama's slow tokenizer, which the authors use, is "legacy" (a word boundary also after ``</s>``) unless its
    configuration says otherwise; newer versions of transformers assume the opposite.

    Raises:
        ValueError: The tokenizer is missing or damaged, or a package that reads it is not installed.
    """
    options: dict[str, Any] = {}
    if not any((folder / name).is_file() for name in (SENTENCEPIECE, "tokenizer.json")):
        # transformers would make an empty tokenizer from the settings alone
        raise ValueError(
            f"{folder} has no tokenizer: {SENTENCEPIECE} is missing; copy it and tokenizer_config.json of its language "
            "model there"
        )
    if (folder / SENTENCEPIECE).is_file():
        _check_sentencepiece(folder)
        settings = folder / "tokenizer_config.json"
        stored = read_json(settings) if settings.is_file() else {}
        options["legacy"] = stored.get("legacy", True) is not False
    try:
        with warnings.catch_warnings():
            # transformers also reads config.json here, where older keys make it warn of its own future
            warnings.simplefilter("ignore", FutureWarning)
            return AutoTokenizer.from_pretrained(folder, **options)
    except Exception as error:  # a damaged tokenizer file raises errors of many types
        raise ValueError(
            f"cannot load the tokenizer of {folder}: {first_line(error)}; copy tokenizer.model and "
            "tokenizer_config.json of its language model there"
        ) from error


def _check_sentencepiece(folder: Path) -> None:
    if not all(_is_installed(name) for name in ("sentencepiece", "google.protobuf")):
        raise ValueError(f"reading {folder / SENTENCEPIECE} needs two packages: pip install sentencepiece protobuf")


def _is_installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def image_token_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """Return the id of ``<image>``, or the tokenizer's next free id if ``<image>`` is not in its vocabulary yet."""
    return int(tokenizer.get_vocab().get(IMAGE_TOKEN, len(tokenizer)))


def read_clip_preprocessor(path: Path) -> dict[str, Any]:
    """Return ``resolution``, ``image_mean``, ``image_std`` and ``rescale_factor`` from a CLIP image processor's file.

    Raises:
        ValueError: The file describes steps that ConvLLaVA's image processor does not have.
    """
    stored = {**_CLIP_DEFAULTS, **read_json(path)}
    for name in _CLIP_REQUIRED:
        if stored[name] != _CLIP_DEFAULTS[name]:
            raise ValueError(f"{path}: {name} is {stored[name]!r}, and only {_CLIP_DEFAULTS[name]!r} is supported")
    crop, size = _side(stored.get("crop_size")), _side(stored.get("size"))
    if crop is None or size is None or crop != size:
        raise ValueError(
            f"{path}: size is {stored.get('size')!r} and crop_size {stored.get('crop_size')!r}; both must be one square"
        )
    return {"resolution": crop, **{name: stored[name] for name in ("image_mean", "image_std", "rescale_factor")}}


def _side(value: Any) -> int | None:
    """Return the side of a square in any of transformers' notations, or None if the value is not a square."""
    if isinstance(value, Mapping):
        sides = {value[name] for name in ("height", "width", "shortest_edge") if name in value}
        value = sides.pop() if len(sides) == 1 else None
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def check_image_processor(processor: ConvLlavaImageProcessor, where: Path) -> None:
    """Check that normalization keeps pixel values finite and in range.

    Raises:
        ValueError: Names the option, its value and the accepted values.
    """
    options: dict[str, tuple[list[Any], Callable[[float], bool], str]] = {
        "image_mean": (_listed(processor.image_mean), lambda value: 0 <= value <= 1, "numbers from 0 to 1"),
        "image_std": (_listed(processor.image_std), lambda value: 0 < value <= 1, "numbers above 0, up to 1"),
        "rescale_factor": ([processor.rescale_factor], lambda value: 0 < value <= 1, "a number above 0, up to 1"),
    }
    for name, (values, fits, wanted) in options.items():
        if not all(is_number(value) and fits(value) for value in values):
            raise ValueError(f"{where}: {name} is {values} in the image processor's options; it needs {wanted}")
        if name != "rescale_factor" and len(values) != 3:
            raise ValueError(f"{where}: {name} has {len(values)} values in the image processor's options; it needs 3")


def _listed(values: Any) -> list[Any]:
    return list(values) if isinstance(values, (list, tuple)) else [values]


def read_generation_config(
    folder: Path, image_token_id: int, text_config: PreTrainedConfig, *, eos_token_id: int | None = None
) -> GenerationConfig:
    """Return the defaults for generation that a checkpoint stores.

    Decoding is greedy as in the authors' inference, even where the language model's file recommends a temperature, and
    ``<image>`` is never generated.

    Args:
        folder: The directory that may hold ``generation_config.json``.
        image_token_id: The id of ``<image>``.
        text_config: The language model's configuration, for special tokens that the file does not name.
        eos_token_id: The end token if neither of the two names it.

    Raises:
        ValueError: The file is not a valid generation configuration.
    """
    path = folder / "generation_config.json"
    stored = read_json(path) if path.is_file() else {}
    check_generation_values(stored, text_config.vocab_size, str(path))
    values = {name: value for name, value in stored.items() if name not in _WRITTEN_BY_TRANSFORMERS}
    if not values.get("do_sample"):
        values = {name: value for name, value in values.items() if name not in _SAMPLING}
    suppressed = list(values.pop("suppress_tokens", None) or [])
    if image_token_id not in suppressed:
        suppressed.append(image_token_id)
    special = {"eos_token_id": eos_token_id}
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        special[name] = special.get(name) if getattr(text_config, name, None) is None else getattr(text_config, name)
    special = {name: value for name, value in special.items() if value is not None}
    try:
        return GenerationConfig(**{**special, **values, "suppress_tokens": suppressed})
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} is not a valid generation configuration: {first_line(error)}") from error


_NOT_GENERATED: dict[str, tuple[Any, ...]] = {
    "num_beams": (1,),
    "num_beam_groups": (1,),
    "encoder_no_repeat_ngram_size": (0,),
    "encoder_repetition_penalty": (1, 1.0),
    "force_words_ids": ([],),
    "constraints": ([],),
    "forced_bos_token_id": (),
    "forced_eos_token_id": (),
    "guidance_scale": (1, 1.0),
    "penalty_alpha": (0, 0.0),
    "watermarking_config": (),
    "stop_strings": ([], ""),
    "dola_layers": (),
    "max_time": (),
    "num_return_sequences": (1,),
    "token_healing": (False,),
}
"""Settings that change what ``model.generate`` answers and that this package's generator does not have, with the values
that change nothing; None changes nothing for any of them."""


def unsupported_settings(config: GenerationConfig) -> list[str]:
    """Return one phrase for each default of a checkpoint that ``model.generate`` follows and the generator does not."""
    return [
        f"generation_config.json sets {name} to {value!r}, which is not supported"
        for name, harmless in _NOT_GENERATED.items()
        if (value := getattr(config, name, None)) is not None and value not in harmless
    ]
