"""LLaVA-1.5 with a CLIP ViT, the paper's control: against transformers' own, and in the layout of LLaVA's code."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import CLIPVisionConfig, LlavaConfig, LlavaForConditionalGeneration

from convllava.inference import load_pretrained
from convllava.model import build_nano_processor

SIDE, PATCH = 56, 14

VISION = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": SIDE,
    "patch_size": PATCH,
    "projection_dim": 32,
}
TEXT = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 512,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "initializer_range": 0.2,
}


def transformers_model(vocab_size: int, image_token_id: int) -> LlavaForConditionalGeneration:
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**VISION, initializer_factor=5.0),
        text_config={**TEXT, "vocab_size": vocab_size},
        image_token_index=image_token_id,
    )
    return LlavaForConditionalGeneration(config).eval()


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, LlavaForConditionalGeneration]:
    """A tiny LlavaForConditionalGeneration and the character tokenizer, as transformers saves them."""
    folder = tmp_path_factory.mktemp("llava")
    tokenizer = build_nano_processor().tokenizer
    torch.manual_seed(0)
    model = transformers_model(len(tokenizer) + 4, int(tokenizer.convert_tokens_to_ids("<image>")))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder, model


def probe(model: Any, image_token_id: int) -> dict[str, torch.Tensor]:
    tokens = (SIDE // PATCH) ** 2
    ids = torch.tensor([[1, 90, 91, *[image_token_id] * tokens, 92, 93, 94]])
    pixels = torch.randn(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    return {"input_ids": ids, "pixel_values": pixels}


@torch.no_grad()
def test_transformers_layout(saved: tuple[Path, LlavaForConditionalGeneration]) -> None:
    folder, original = saved
    model, processor = load_pretrained(folder, device="cpu")
    inputs = probe(original, processor.image_token_id)
    expected = original(**inputs).logits
    torch.testing.assert_close(model(**inputs).logits, expected, rtol=0, atol=1e-4 * float(expected.abs().max()))
    assert (model.config.resolution, model.config.output_stride) == (SIDE, PATCH)
    assert (processor.prompt_format, processor.image_processor.image_aspect_ratio) == ("vicuna_v1", "pad")


def test_a_clip_vit_takes_only_its_own_resolution(saved: tuple[Path, LlavaForConditionalGeneration]) -> None:
    with pytest.raises(ValueError, match="takes only its own, 56"):
        load_pretrained(saved[0], resolution=112)


AUTHORS = {
    "language_model.model.": "model.",
    "language_model.lm_head.": "lm_head.",
    "multi_modal_projector.linear_1.": "model.mm_projector.0.",
    "multi_modal_projector.linear_2.": "model.mm_projector.2.",
}


@pytest.mark.parametrize("tower_is_separate", [False, True])
@torch.no_grad()
def test_llava_1_5_layout(
    saved: tuple[Path, LlavaForConditionalGeneration], tmp_path: Path, shared_dir: Path, tower_is_separate: bool
) -> None:
    """Files like liuhaotian/llava-v1.5-7b: <image> not in the vocabulary, CLIP's tensors inside or apart."""
    pytest.importorskip("sentencepiece")
    vocab_size = 1000
    torch.manual_seed(0)
    original = transformers_model(vocab_size + 1, vocab_size)
    original.save_pretrained(tmp_path / "transformers")
    state, tower = {}, {}
    for name, tensor in load_file(tmp_path / "transformers" / "model.safetensors").items():
        if name.startswith("vision_tower."):
            tower["vision_model." + name.removeprefix("vision_tower.")] = tensor
            continue
        old, new = next(pair for pair in AUTHORS.items() if name.startswith(pair[0]))
        is_vocabulary = name.endswith(("embed_tokens.weight", "lm_head.weight"))
        state[new + name.removeprefix(old)] = tensor[:vocab_size].clone() if is_vocabulary else tensor
    tower["vision_model.embeddings.position_ids"] = torch.arange(17)[None]
    folder = tmp_path / "llava"
    (folder / "vision_tower").mkdir(parents=True)
    if tower_is_separate:
        torch.save(tower, folder / "vision_tower" / "pytorch_model.bin")
    else:
        state |= {f"model.vision_tower.vision_tower.{name}": tensor for name, tensor in tower.items()}
    torch.save(state, folder / "pytorch_model.bin")
    config = {
        **TEXT,
        "model_type": "llava",
        "vocab_size": vocab_size,
        "mm_vision_tower": "openai/clip-vit-large-patch14-336",
        "mm_hidden_size": 32,
        "mm_projector_type": "mlp2x_gelu",
        "mm_vision_select_layer": -2,
        "mm_use_im_patch_token": False,
        "image_aspect_ratio": "pad",
    }
    (folder / "config.json").write_text(json.dumps(config))
    for name in ("tokenizer.model", "tokenizer_config.json"):
        source = shared_dir / "reference" / "official-split-tiny" / name
        (folder / name).write_bytes(source.read_bytes())
    if not tower_is_separate:
        (folder / "vision_tower").rmdir()
        with pytest.raises(ValueError, match=r"the tensors say .* its configuration .*clip-vit-large-patch14-336"):
            load_pretrained(folder, resolution=SIDE)
        return
    (folder / "vision_tower" / "config.json").write_text(json.dumps({"model_type": "clip_vision_model", **VISION}))
    model, processor = load_pretrained(folder, device="cpu")
    assert model.config.resolution == SIDE
    inputs = probe(original, processor.image_token_id)
    expected = original(**inputs).logits[..., :vocab_size]
    ours = model(**inputs).logits[..., :vocab_size]
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-4 * float(expected.abs().max()))
