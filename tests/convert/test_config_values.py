"""Every value of a checkpoint's small files is checked before use; errors name the file and the key."""

import json
import logging
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from convllava.convert import open_checkpoint
from convllava.convert.layouts.official_config import check_official
from convllava.inference import load_pretrained
from convllava.inference.checkpoint_files import BUNDLED


@pytest.fixture
def nano(tmp_path: Path) -> Path:
    """A copy of the bundled checkpoint."""
    return Path(shutil.copytree(BUNDLED["nano"], tmp_path / "nano"))


def change(path: Path, keys: str, value: Any) -> None:
    """Set a value in a JSON file, by its keys with dots between them."""
    content = json.loads(path.read_text())
    at = content
    *outer, last = keys.split(".")
    for key in outer:
        at = at[key]
    at[last] = value
    path.write_text(json.dumps(content))


WRONG = [
    ("config.json", "text_config.num_attention_heads", 0),
    ("config.json", "text_config.num_attention_heads", -2),
    ("config.json", "text_config.num_key_value_heads", 3),
    ("config.json", "text_config.hidden_size", "large"),
    ("config.json", "text_config.hidden_size", 10**400),
    ("config.json", "text_config.hidden_act", "unknown"),
    ("config.json", "text_config.vocab_size", 2.5),
    ("config.json", "text_config.pad_token_id", 99_999),
    ("config.json", "text_config.eos_token_id", 2.0),
    ("config.json", "text_config.rms_norm_eps", "small"),
    ("config.json", "text_config.max_position_embeddings", 0),
    ("config.json", "text_config.rope_parameters", {"rope_type": "x", "rope_theta": 1e4}),
    ("config.json", "text_config.rope_parameters", {"rope_type": "default", "rope_theta": "x"}),
    ("config.json", "text_config.rope_parameters", 5),
    ("config.json", "text_config", 5),
    ("config.json", "text_config.tie_word_embeddings", "yes"),
    ("config.json", "vision_config.hidden_act", 0),
    ("config.json", "vision_config.depths", 5),
    ("config.json", "vision_config.depths", [1, "x"]),
    ("config.json", "vision_config.kernel_size", "x"),
    ("config.json", "vision_config.layer_norm_eps", [1]),
    ("config.json", "image_token_id", "x"),
    ("config.json", "resolution", "x"),
    ("config.json", "projector_hidden_act", "x"),
    ("processor_config.json", "image_processor.image_mean", 5),
    ("processor_config.json", "image_processor.image_std", 10**400),
    ("generation_config.json", "suppress_tokens", 5),
    ("generation_config.json", "suppress_tokens", ["a"]),
    ("generation_config.json", "suppress_tokens", [10**9]),
    ("generation_config.json", "eos_token_id", 2.0),
    ("generation_config.json", "eos_token_id", [0, "x"]),
    ("generation_config.json", "repetition_penalty", 0),
    ("generation_config.json", "max_new_tokens", "x"),
]


@pytest.mark.parametrize(("file", "keys", "value"), WRONG)
def test_a_wrong_value_is_named(nano: Path, file: str, keys: str, value: Any) -> None:
    change(nano / file, keys, value)
    with pytest.raises(ValueError) as error:
        load_pretrained(nano)
    name = keys.rpartition(".")[-1]
    assert name in str(error.value) or "rope_type" in str(error.value) or "rope_theta" in str(error.value)
    assert str(nano) in str(error.value)


@pytest.mark.parametrize("layers", [10**6, 10**9])
@pytest.mark.parametrize("key", ["text_config.num_hidden_layers", "vision_config.depths"])
def test_more_layers_than_tensors_are_refused_at_once(nano: Path, key: str, layers: int) -> None:
    change(nano / "config.json", key, [layers] * 5 if key.endswith("depths") else layers)
    started = time.perf_counter()
    with pytest.raises(ValueError, match="but the stored tensors end with layer"):
        open_checkpoint(nano)
    assert time.perf_counter() - started < 5


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("num_hidden_layers", 10**9),
        ("num_attention_heads", 0),
        ("hidden_size", "large"),
        ("rope_scaling", {"type": "x"}),
        ("rope_scaling", 4),
        ("pad_token_id", 99_999),
        ("mm_vision_select_layer", "last"),
    ],
)
def test_the_authors_layout_is_checked_alike(split: Path, key: str, value: Any) -> None:
    change(split / "config.json", key, value)
    with pytest.raises(ValueError, match=str(split / "config.json")):
        load_pretrained(split)


PUBLISHED_LLAVA = {
    "_name_or_path": "llava-v1.5-7b",
    "architectures": ["LlavaLlamaForCausalLM"],
    "bos_token_id": 1,
    "eos_token_id": 2,
    "freeze_mm_mlp_adapter": False,
    "freeze_mm_vision_resampler": False,
    "hidden_act": "silu",
    "hidden_size": 4096,
    "image_aspect_ratio": "pad",
    "initializer_range": 0.02,
    "intermediate_size": 11008,
    "max_length": 4096,
    "max_position_embeddings": 4096,
    "mm_hidden_size": 1024,
    "mm_projector_type": "mlp2x_gelu",
    "mm_resampler_type": None,
    "mm_use_im_patch_token": False,
    "mm_use_im_start_end": False,
    "mm_vision_select_feature": "patch",
    "mm_vision_select_layer": -2,
    "mm_vision_tower": "openai/clip-vit-large-patch14-336",
    "model_type": "llava",
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 32,
    "pad_token_id": 0,
    "pretraining_tp": 1,
    "rms_norm_eps": 1e-05,
    "rope_scaling": None,
    "tie_word_embeddings": False,
    "torch_dtype": "float16",
    "transformers_version": "4.31.0",
    "tune_mm_mlp_adapter": False,
    "tune_mm_vision_resampler": False,
    "unfreeze_mm_vision_tower": False,
    "use_cache": True,
    "use_mm_proj": True,
    "vocab_size": 32000,
}
"""The published config.json of LLaVA-1.5."""

LATER_KEYS = {
    "attention_bias": False,
    "attention_dropout": 0.0,
    "image_crop_resolution": 224,
    "image_grid_pinpoints": [[336, 672], [672, 336]],
    "image_split_resolution": 224,
    "mm_patch_merge_type": "flat",
    "mm_projector_lr": None,
    "mm_vision_tower_lr": 2e-06,
    "pretrain_mm_mlp_adapter": None,
    "tokenizer_model_max_length": 4096,
    "tokenizer_padding_side": "right",
    "tune_vision_tower": True,
    "tune_vit_from_layer": 12,
    "tune_entire_model": True,
}
"""Keys that LLaVA-1.6, ShareGPT4V and ConvLLaVA add."""


@pytest.mark.parametrize("more", [{}, LATER_KEYS])
def test_published_configurations_are_read_without_a_word(
    tmp_path: Path, more: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    check_official({**PUBLISHED_LLAVA, **more}, tmp_path / "config.json")
    assert not caplog.records


def test_unknown_keys_of_a_foreign_configuration_are_one_warning(split: Path, caplog: pytest.LogCaptureFixture) -> None:
    change(split / "config.json", "mm_something_new", 1)
    change(split / "config.json", "hiden_size", 64)
    with caplog.at_level(logging.WARNING):
        checkpoint = open_checkpoint(split)
    (record,) = caplog.records
    assert "'hiden_size'; did you mean 'hidden_size'?, 'mm_something_new'" in record.getMessage()
    assert str(split / "config.json") in record.getMessage()
    assert checkpoint.notes["ignored_keys"] == ["hiden_size", "mm_something_new"]


@pytest.mark.parametrize("template", ["{% for", "{{ raise_exception('no') }}", "{{ messages[9].x.y }}", "{{ 1 / 0 }}"])
def test_a_broken_chat_template_is_found_at_loading(nano: Path, template: str) -> None:
    (nano / "chat_template.jinja").write_text(template)
    with pytest.raises(ValueError, match=f"cannot load the processor .* of {nano}"):
        load_pretrained(nano)


def test_a_missing_tokenizer_is_named(nano: Path) -> None:
    (nano / "tokenizer.json").unlink()
    with pytest.raises(ValueError, match=r"has no tokenizer: tokenizer.json is missing"):
        load_pretrained(nano)


def test_an_unknown_key_of_our_own_layout_is_refused(nano: Path) -> None:
    change(nano / "config.json", "text_config.hiden_size", 64)
    with pytest.raises(ValueError, match=r"config.json \(text_config\): unknown key 'hiden_size'; did you mean"):
        open_checkpoint(nano)
