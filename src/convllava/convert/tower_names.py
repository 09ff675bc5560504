"""What the tensors of a ConvNeXt are called in timm, OpenCLIP and transformers."""

import re
from collections.abc import Iterable, Mapping

_TIMM = [
    (re.compile(r"stem\.0\.(weight|bias)"), r"embeddings.patch_embeddings.\1"),
    (re.compile(r"stem\.1\.(weight|bias)"), r"embeddings.layernorm.\1"),
    (re.compile(r"stages\.(\d+)\.downsample\.([01])\.(weight|bias)"), r"encoder.stages.\1.downsampling_layer.\2.\3"),
    (re.compile(r"stages\.(\d+)\.blocks\.(\d+)\.conv_dw\.(weight|bias)"), r"encoder.stages.\1.layers.\2.dwconv.\3"),
    (re.compile(r"stages\.(\d+)\.blocks\.(\d+)\.norm\.(weight|bias)"), r"encoder.stages.\1.layers.\2.layernorm.\3"),
    (re.compile(r"stages\.(\d+)\.blocks\.(\d+)\.mlp\.fc1\.(weight|bias)"), r"encoder.stages.\1.layers.\2.pwconv1.\3"),
    (re.compile(r"stages\.(\d+)\.blocks\.(\d+)\.mlp\.fc2\.(weight|bias)"), r"encoder.stages.\1.layers.\2.pwconv2.\3"),
    (re.compile(r"stages\.(\d+)\.blocks\.(\d+)\.gamma"), r"encoder.stages.\1.layers.\2.layer_scale_parameter"),
]
_AFTER_TIMMS_LAST_STAGE = re.compile(r"(head|norm_pre|fc)\..*")

_AFTER_TRANSFORMERS_LAST_STAGE = re.compile(r"(layernorm|classifier|hidden_states_norms\..*)\.(weight|bias)")

_TIMM_PLACES = ("visual.trunk.", "trunk.", "")
"""Where timm's network lies: in an OpenCLIP model, in its image half, by itself."""

_TRANSFORMERS_PLACES = ("convnext.", "")


def tower_names(names: Iterable[str], where: str) -> Mapping[str, str]:
    """Return our name, without prefix, of every tensor that belongs to the encoder, by its name in a file.

    What stands behind the last stage (norms, heads, CLIP's text half) is left out; a tensor that nobody knows keeps
    its name, so that it is found to be surplus.

    Raises:
        ValueError: This is no ConvNeXt, or a ConvNeXt V2.
    """
    given = list(names)
    grn = next((name for name in given if ".grn." in name), None)
    if grn is not None:
        raise ValueError(f"{where} is a ConvNeXt V2: its GRN layers ({grn}) are not part of this encoder")
    for place in _TIMM_PLACES:
        if f"{place}stem.0.weight" in given:
            return _timm(given, place)
    for place in _TRANSFORMERS_PLACES:
        if f"{place}embeddings.patch_embeddings.weight" in given:
            return _transformers(given, place)
    raise ValueError(
        f"{where} holds no ConvNeXt: neither timm's or OpenCLIP's names (stem.0.weight) nor transformers' "
        "(embeddings.patch_embeddings.weight) are there"
    )


def _timm(names: list[str], place: str) -> dict[str, str]:
    renamed = {}
    for name in names:
        inner = name.removeprefix(place)
        if not name.startswith(place) or _AFTER_TIMMS_LAST_STAGE.fullmatch(inner):
            continue
        renamed[name] = next((pattern.sub(ours, inner) for pattern, ours in _TIMM if pattern.fullmatch(inner)), name)
    return renamed


def _transformers(names: list[str], place: str) -> dict[str, str]:
    inner = {name: name.removeprefix(place) for name in names}
    return {name: ours for name, ours in inner.items() if not _AFTER_TRANSFORMERS_LAST_STAGE.fullmatch(ours)}
