"""Checks of the values in a foreign ``config.json``, before a configuration or a model is built from them.

A wrong value would otherwise surface as an error of any type somewhere in transformers, or, for a number of layers in
the billions, as a model that is built until the memory is exhausted.
"""

import math
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from transformers.activations import ACT2FN
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

MAX_SIZE = 1 << 31
"""Exclusive limit of every size; a tensor with a longer side exists in no language model."""

_VISION = re.compile(r"vision_(tower|model)\.|^encoder\.")
_NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_size(value: Any) -> bool:
    return _is_int(value) and 1 <= value < MAX_SIZE


def _is_sizes(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and bool(value) and all(map(_is_size, value))


def is_number(value: Any) -> bool:
    """Return whether a value is a finite number that float64 can hold."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(float(value))
    except OverflowError:
        return False


def _is_token_range(value: Any) -> bool:
    return _is_sizes(value) and len(value) == 2 and value[0] <= value[1]


def _is_positive(value: Any) -> bool:
    return is_number(value) and value > 0


def _is_range(value: Any) -> bool:
    return is_number(value) and value >= 0


def _is_activation(value: Any) -> bool:
    return isinstance(value, str) and value in ACT2FN


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool)


def _is_token(value: Any) -> bool:
    return _is_int(value) and -1 <= value < MAX_SIZE  # Llama's first files say -1 for "none"


def _is_tokens(value: Any) -> bool:
    return _is_token(value) or (isinstance(value, list) and all(map(_is_token, value)))


_Rule = tuple[Callable[[Any], bool], str]

_SIZE: _Rule = (_is_size, "an integer of at least 1")
_POSITIVE: _Rule = (_is_positive, "a number above 0")
_RANGE: _Rule = (_is_range, "a number of at least 0")
_ACTIVATION: _Rule = (_is_activation, "the name of an activation, such as 'silu' or 'gelu'")
_FLAG: _Rule = (_is_flag, "true or false")
_TOKEN: _Rule = (_is_token, "a token id")

RULES: dict[str, _Rule] = {
    **dict.fromkeys(
        "hidden_size intermediate_size num_hidden_layers num_attention_heads num_key_value_heads head_dim vocab_size "
        "max_position_embeddings num_channels image_size patch_size projection_dim resolution mm_hidden_size "
        "mm_vision_resolution sliding_window".split(),
        _SIZE,
    ),
    **dict.fromkeys(("depths", "hidden_sizes"), (_is_sizes, "a list of integers of at least 1")),
    "kernel_size": (lambda value: _is_size(value) or _is_sizes(value), "an integer of at least 1, or a list of them"),
    **dict.fromkeys("rms_norm_eps layer_norm_eps rope_theta layer_scale_init_value".split(), _POSITIVE),
    **dict.fromkeys("initializer_range attention_dropout initializer_factor".split(), _RANGE),
    **dict.fromkeys("hidden_act projector_hidden_act".split(), _ACTIVATION),
    **dict.fromkeys("tie_word_embeddings attention_bias mlp_bias use_cache".split(), _FLAG),
    **dict.fromkeys("bos_token_id pad_token_id image_token_id image_token_index".split(), _TOKEN),
    "eos_token_id": (_is_tokens, "a token id or a list of them"),
    "mm_vision_select_layer": (_is_int, "an integer"),
    "trained_visual_tokens": (_is_token_range, "the fewest and the most visual tokens of an image, such as [1, 200]"),
}
"""The accepted values of each key by its name, which means the same in all layouts; null is the default of any key."""


def check_values(values: Mapping[str, Any], where: str) -> None:
    """Check the values of one configuration, or of one part of it.

    Args:
        values: The content of the file, or of its ``text_config`` or ``vision_config``.
        where: The file, and the part of it if there are several, for the message.

    Raises:
        ValueError: Names the file, the key, its value and the accepted values.
    """
    for name, (fits, wanted) in RULES.items():
        if (value := values.get(name)) is not None and not fits(value):
            raise ValueError(f"{where}: {name} is {_shown(value)}; it must be {wanted}")
    _check_heads(values, where)
    _check_tokens(values, where)
    _check_rope(values, where)


def check_sections(config: Mapping[str, Any], path: Path, sections: Iterable[str] = ()) -> None:
    """Check the values at the top of a ``config.json`` and in its sections, such as ``text_config``.

    Raises:
        ValueError: Same as in :func:`check_values`; or a section is not a JSON object.
    """
    check_values(config, str(path))
    for name in sections:
        section = config.get(name)
        if section is not None and not isinstance(section, Mapping):
            raise ValueError(f"{path}: {name} is {_shown(section)}; it must be a JSON object")
        check_values(section or {}, f"{path} ({name})")


def check_depth(values: Mapping[str, Any], names: Iterable[str], where: str, *, vision: bool = False) -> None:
    """Check that a configuration has no more layers than the files hold tensors for.

    Args:
        values: The language model's or the encoder's part of the configuration.
        names: The names of all stored tensors, in any layout.
        where: The file, for the message.
        vision: Whether ``values`` describes the encoder.

    Raises:
        ValueError: Names the two numbers of layers.
    """
    stored = [name for name in names if bool(_VISION.search(name)) == vision]
    highest = max((int(number) for name in stored for number in _NUMBER.findall(name)), default=-1) + 1
    depths = values.get("depths") if vision else None
    wanted = max(depths) if depths else values.get("num_hidden_layers")
    if wanted is not None and wanted > max(highest, 1):
        key = "depths" if depths else "num_hidden_layers"
        raise ValueError(
            f"{where}: {key} is {_shown(depths or wanted)}, but the stored tensors end with layer {highest}: copy or "
            f"download the checkpoint again, or repair {key}"
        )


def _check_heads(values: Mapping[str, Any], where: str) -> None:
    heads, groups, width = (values.get(n) for n in ("num_attention_heads", "num_key_value_heads", "hidden_size"))
    if heads and groups and heads % groups:
        raise ValueError(f"{where}: num_attention_heads {heads} is no multiple of num_key_value_heads {groups}")
    if heads and width and not values.get("head_dim") and width % heads:
        raise ValueError(f"{where}: hidden_size {width} is no multiple of num_attention_heads {heads}")


def _check_tokens(values: Mapping[str, Any], where: str) -> None:
    vocab_size = values.get("vocab_size")
    if not vocab_size:
        return
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        stored = values.get(name)
        for token in stored if isinstance(stored, list) else [stored]:
            if token is not None and token >= vocab_size:
                raise ValueError(f"{where}: {name} is {token}, outside the vocabulary of {vocab_size} tokens")


def _check_rope(values: Mapping[str, Any], where: str) -> None:
    known = {"default", *ROPE_INIT_FUNCTIONS}
    for key in ("rope_scaling", "rope_parameters"):
        stored = values.get(key)
        if stored is None:
            continue
        if not isinstance(stored, Mapping):
            raise ValueError(f"{where}: {key} is {_shown(stored)}; it must be null or a JSON object")
        nested = [part for part in stored.values() if isinstance(part, Mapping)]  # one for each type of layer
        for part in nested or [stored]:
            kind = part.get("rope_type", part.get("type", "default"))
            if not isinstance(kind, str) or kind not in known:
                raise ValueError(f"{where}: rope_type is {_shown(kind)} in {key}; known are {', '.join(sorted(known))}")
            for name in ("rope_theta", "factor"):
                if (value := part.get(name)) is not None and not _is_positive(value):
                    raise ValueError(f"{where}: {name} is {_shown(value)} in {key}; it must be a number above 0")


def _shown(value: Any) -> str:
    """Return a value for a message, shortened; an integer of many digits would be refused by repr."""
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 256:
        return f"an integer of {value.bit_length()} bits"
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


_GENERATION: dict[str, _Rule] = {
    **dict.fromkeys(
        "max_new_tokens max_length min_new_tokens min_length num_beams top_k no_repeat_ngram_size".split(),
        (_is_int, "an integer"),
    ),
    **dict.fromkeys("temperature top_p min_p typical_p".split(), _RANGE),
    "repetition_penalty": _POSITIVE,
    "do_sample": _FLAG,
}


def check_generation_values(values: Mapping[str, Any], vocab_size: int, where: str) -> None:
    """Check the values of a ``generation_config.json`` that are used.

    Raises:
        ValueError: Names the file, the key, its value and the accepted values.
    """
    for name, (fits, wanted) in _GENERATION.items():
        if (value := values.get(name)) is not None and not fits(value):
            raise ValueError(f"{where}: {name} is {_shown(value)}; it must be {wanted}")
    takes = {"bos_token_id": False, "pad_token_id": False, "eos_token_id": True, "suppress_tokens": True}
    for name, takes_list in takes.items():
        stored = values.get(name)
        if stored is None:
            continue
        is_list = isinstance(stored, list)
        tokens = stored if is_list else [stored]
        fits_shape = takes_list if is_list else name != "suppress_tokens"
        if not fits_shape or not all(_is_int(token) and -1 <= token < vocab_size for token in tokens):
            shape = {"eos_token_id": "a token id or a list of them", "suppress_tokens": "a list of token ids"}
            raise ValueError(
                f"{where}: {name} is {_shown(stored)}; it must be {shape.get(name, 'a token id')} below {vocab_size}"
            )
