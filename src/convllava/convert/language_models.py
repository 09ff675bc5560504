"""Language models from elsewhere: any causal language model of transformers whose parts fit this package's model."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from ..model.modeling_convllava import LANGUAGE_MODEL_PREFIX
from ..support import first_line, quiet_transformers, read_json
from .checkpoint import EMBEDDINGS, HEAD
from .config_files import load_tokenizer
from .config_values import check_depth, check_values
from .layouts.registry import describes_vision_and_language, open_checkpoint
from .tensor_files import open_weights
from .weights import Weight, Weights, tensor_faults

_ROTARY_TABLE = re.compile(r".*rotary_emb\.inv_freq")  # saved by transformers before 4.32

_LOGIT_OPTIONS: dict[str, tuple[Any, ...]] = {
    "final_logit_softcapping": (None,),
    "logit_scale": (None, 1.0),
    "logits_scaling": (None, 1.0),
    "lm_head_multiplier": (None, 1.0),
}
"""Options that change the logits behind the head in some language models, with the values that change nothing."""


@dataclass(frozen=True)
class StoredLanguageModel:
    """A causal language model in its directory.

    Args:
        folder: The directory.
        config: The configuration of the model without its head.
        weights: ``model.language_model.*`` and, unless it is tied, ``lm_head.weight``.
        tokenizer: The tokenizer of the directory.
    """

    folder: Path
    config: PreTrainedConfig
    weights: Weights
    tokenizer: PreTrainedTokenizerBase


def open_language_model(folder: Path) -> StoredLanguageModel:
    """Read the configuration, tokenizer, tensor names and shapes of a language model, but no tensor values.

    Args:
        folder: A directory written by transformers' ``save_pretrained``; or of a vision-language
            model, whose language model is read.

    Raises:
        ValueError: The directory holds no causal language model, is damaged, or has parts that ours does not have.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise ValueError(f"{folder} is not a language model: it has no config.json")
    with quiet_transformers():
        stored = read_json(path)
        if describes_vision_and_language(stored):
            return _from_vision_language_model(folder)
        check_values(stored, str(path))
        check_depth(stored, open_weights(folder), str(path))
        model = _model_on_meta(folder, path)
        _check_parts(model, path)
        return StoredLanguageModel(folder, model.config, _weights(folder, model), load_tokenizer(folder))


def _from_vision_language_model(folder: Path) -> StoredLanguageModel:
    checkpoint = open_checkpoint(folder, needs_resolution=False)
    kept = {
        name: weight for name, weight in checkpoint.weights.items() if name.startswith((LANGUAGE_MODEL_PREFIX, HEAD))
    }
    return StoredLanguageModel(folder, checkpoint.config.text_config, Weights(kept), checkpoint.processor.tokenizer)


def _model_on_meta(folder: Path, path: Path) -> PreTrainedModel:
    try:
        config = AutoConfig.from_pretrained(folder)
        if config.get_text_config(decoder=True) is not config:
            raise ValueError(f"it is a model of several parts ({config.model_type}); give its language model alone")
        with torch.device("meta"):
            model: PreTrainedModel = AutoModelForCausalLM.from_config(config)
    except Exception as error:  # transformers refuses configurations by errors of many types
        raise ValueError(
            f"{path} is not a causal language model that transformers knows: {first_line(error)}"
        ) from error
    return model


def _check_parts(model: PreTrainedModel, path: Path) -> None:
    """Check that the embeddings have the expected name, the head has no bias, and no step follows the head."""
    config = model.config
    if getattr(config, "is_encoder_decoder", False):
        raise ValueError(f"{path}: {config.model_type} is an encoder and a decoder; only a decoder alone can be joined")
    embeddings = _name_of(model.base_model, model.get_input_embeddings())
    if LANGUAGE_MODEL_PREFIX + f"{embeddings}.weight" != EMBEDDINGS:
        raise ValueError(
            f"{path}: {config.model_type} keeps its embeddings in {embeddings}; only language models that call them "
            "embed_tokens can be joined (llama, mistral, qwen2, qwen3, phi3 and others)"
        )
    head = model.get_output_embeddings()
    if head is None or getattr(head, "bias", None) is not None:
        raise ValueError(f"{path}: the head of {config.model_type} has a bias, which is not supported")
    for name, harmless in _LOGIT_OPTIONS.items():
        if getattr(config, name, None) not in harmless:
            raise ValueError(
                f"{path}: {config.model_type} changes its logits by {name} {getattr(config, name)!r}, which is not "
                "supported; use another language model"
            )


def _name_of(model: torch.nn.Module, wanted: torch.nn.Module) -> str:
    return next((name for name, module in model.named_modules() if module is wanted), "none")


def _weights(folder: Path, model: PreTrainedModel) -> Weights:
    """Return the stored tensors under this package's names, after a comparison with those that the model has."""
    files = open_weights(folder)
    expected = {
        LANGUAGE_MODEL_PREFIX + name: tuple(tensor.shape) for name, tensor in model.base_model.state_dict().items()
    }
    head = model.get_output_embeddings()
    head_name = _name_of(model, head) + ".weight"
    tied = bool(model.config.tie_word_embeddings)
    if not tied:
        expected[HEAD] = tuple(head.weight.shape)
    prefix = model.base_model_prefix + "."
    found: dict[str, Weight] = {}
    for name in files:
        ours = HEAD if name == head_name else LANGUAGE_MODEL_PREFIX + name.removeprefix(prefix)
        if (ours == HEAD and tied) or (ours not in expected and _ROTARY_TABLE.fullmatch(name)):
            continue
        found[ours] = Weight(files, name)
    faults = tensor_faults(expected, found, lambda name: name.removeprefix(LANGUAGE_MODEL_PREFIX))
    if faults:
        raise ValueError(
            f"the tensors of {folder} are not those of the language model in its config.json; {'; '.join(faults)}. If "
            "transformers rearranges them while it loads, load the model with it and save it again"
        )
    return Weights(found)
