"""The authors' tiny checkpoints: features, projected features, logits and greedy continuations.

Their weights are mapped here, by hand; loading such folders directly is the business of ``convert``.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from convllava.model import ConvLlavaConfig, ConvLlavaForConditionalGeneration, ConvLlavaVisionConfig

FIXTURES = ("official-split-tiny", "official-consolidated-tiny")
POLICIES = ("pad", "native")
AUTHORS_PLACEHOLDER = -200
CONSOLIDATED_TOWER = "model.vision_tower.vision_tower."


def _authors_tensors(folder: Path) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for file in sorted(folder.glob("pytorch_model*.bin")):
        tensors |= torch.load(file, weights_only=True)
    tower = folder / "vision_tower" / "pytorch_model.bin"
    if tower.exists():
        split = torch.load(tower, weights_only=True)
        tensors |= {CONSOLIDATED_TOWER + name: tensor for name, tensor in split.items()}
    return tensors


def _our_name(name: str) -> str:
    if name.startswith(CONSOLIDATED_TOWER):
        return "model.vision_tower." + name.removeprefix(CONSOLIDATED_TOWER)
    if name.startswith("model.mm_projector."):
        return name.replace("mm_projector.0", "multi_modal_projector.linear_1").replace(
            "mm_projector.2", "multi_modal_projector.linear_2"
        )
    return name.replace("model.", "model.language_model.", 1) if name.startswith("model.") else name


def _load(folder: Path) -> ConvLlavaForConditionalGeneration:
    case = json.loads((folder / "golden" / "case.json").read_text())
    text: dict[str, Any] = json.loads((folder / "config.json").read_text())
    kept = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads")
    text_config = {key: text[key] for key in (*kept, "rms_norm_eps", "bos_token_id", "eos_token_id", "pad_token_id")}
    vocab_size = text["vocab_size"]
    config = ConvLlavaConfig(
        vision_config=ConvLlavaVisionConfig(depths=case["depths"], hidden_sizes=case["hidden_sizes"]),
        text_config={"model_type": "llama", "vocab_size": vocab_size + 1, **text_config},
        resolution=case["resolution"],
    )
    model = ConvLlavaForConditionalGeneration(config).eval()
    tensors = {_our_name(name): tensor for name, tensor in _authors_tensors(folder).items()}
    for name in ("model.language_model.embed_tokens.weight", "lm_head.weight"):
        tensors[name] = torch.cat([tensors[name], torch.randn(1, text["hidden_size"])])  # the row of <image>
    unused_norm = {name for name in tensors if name.startswith("model.vision_tower.layernorm.")}
    model.load_state_dict({name: tensor for name, tensor in tensors.items() if name not in unused_norm})
    return model


@pytest.fixture(scope="module", params=FIXTURES)
def reference(request: pytest.FixtureRequest, shared_dir: Path) -> tuple[Path, ConvLlavaForConditionalGeneration]:
    folder = shared_dir / "reference" / request.param
    return folder / "golden", _load(folder)


def _cases(golden: Path, policy: str) -> Iterator[tuple[dict[str, Any], dict[str, np.ndarray]]]:
    arrays = np.load(golden / f"{policy}.npz")
    for case in json.loads((golden / f"{policy}.json").read_text()):
        prefix = f"{case['index']}_"
        yield case, {key.removeprefix(prefix): arrays[key] for key in arrays.files if key.startswith(prefix)}


def _expanded(case: dict[str, Any], image_token_id: int) -> Tensor:
    ids: list[int] = []
    for token in case["input_ids"]:
        ids += [image_token_id] * case["visual_tokens"] if token == AUTHORS_PLACEHOLDER else [token]
    return torch.tensor([ids])


def _close(ours: Tensor, expected: np.ndarray) -> bool:
    reference = torch.from_numpy(expected)
    return bool((ours - reference).abs().max() <= 1e-4 * reference.abs().max())


@pytest.mark.parametrize("policy", POLICIES)
@torch.no_grad()
def test_features_and_logits(reference: tuple[Path, ConvLlavaForConditionalGeneration], policy: str) -> None:
    golden, model = reference
    image_token_id = model.config.image_token_id
    assert image_token_id is not None
    for case, arrays in _cases(golden, policy):
        pixels = torch.from_numpy(arrays["pixel_values"])[None]
        features = model.get_image_features(pixels)
        assert _close(features.last_hidden_state, arrays["features"])
        assert _close(features.pooler_output[0], arrays["projected"])
        logits = model(input_ids=_expanded(case, image_token_id), pixel_values=pixels).logits[0, :, :image_token_id]
        assert _close(logits[-8:], arrays["logits_last8"])
        assert _close(logits.double().sum(dim=-1), arrays["logits_sum"])


@pytest.mark.parametrize("policy", POLICIES)
@torch.no_grad()
def test_greedy_continuations(reference: tuple[Path, ConvLlavaForConditionalGeneration], policy: str) -> None:
    golden, model = reference
    image_token_id = model.config.image_token_id
    assert image_token_id is not None
    for case, arrays in _cases(golden, policy):
        prompt = _expanded(case, image_token_id)
        pixels = torch.from_numpy(arrays["pixel_values"])[None]
        expected = case["generated_ids"]
        generated = model.generate(input_ids=prompt, pixel_values=pixels, max_new_tokens=len(expected), do_sample=False)
        _assert_same_or_tied(model, prompt, pixels, generated[0, prompt.shape[1] :].tolist(), expected)


def _assert_same_or_tied(
    model: ConvLlavaForConditionalGeneration, prompt: Tensor, pixels: Tensor, ours: list[int], expected: list[int]
) -> None:
    """Where the two best candidates lie closer than 1e-4, either may win; from there on the texts may part."""
    for position, (got, wanted) in enumerate(zip(ours, expected, strict=False)):
        if got == wanted:
            continue
        so_far = torch.cat([prompt, torch.tensor([expected[:position]], dtype=torch.int64)], dim=1)
        logits = model(input_ids=so_far, pixel_values=pixels).logits[0, -1]
        assert abs(float(logits[got] - logits[wanted])) < 1e-4, (position, ours, expected)
        return
    assert len(ours) == len(expected)
