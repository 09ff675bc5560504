"""An encoder and a language model become one checkpoint without a changed bit, and training starts from it."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from convert.conftest import stored_tensors
from safetensors.torch import load_file, save_file
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    CLIPVisionConfig,
    CLIPVisionModel,
    ConvNextConfig,
    ConvNextModel,
)

from convllava.cli.main import main
from convllava.convert import JoinSettings, convert, inspect_checkpoint, join, open_checkpoint
from convllava.inference import Generator, Request, load_pretrained
from convllava.model import build_nano_processor

WIDTHS, DEPTHS = [8, 8, 16, 16], [1, 1, 1, 1]
AT_64 = JoinSettings(resolution=64)


@pytest.fixture(scope="module")
def tower(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tower")
    torch.manual_seed(1)
    ConvNextModel(ConvNextConfig(depths=DEPTHS, hidden_sizes=WIDTHS, layer_scale_init_value=0.5)).save_pretrained(
        folder
    )
    (folder / "preprocessor_config.json").write_text(
        json.dumps({"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.2, 0.1], "size": {"shortest_edge": 224}})
    )
    return folder


def language_model(folder: Path, model_type: str = "llama", *, rows: int = 0, **values: Any) -> Path:
    """Write a tiny language model; ``rows`` are embeddings beyond the tokenizer's vocabulary."""
    tokenizer = build_nano_processor().tokenizer
    shape = {
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "initializer_range": 0.2,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    config = AutoConfig.for_model(model_type, **({"vocab_size": len(tokenizer) + rows} | shape | values))
    torch.manual_seed(2)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@torch.no_grad()
@pytest.mark.parametrize(
    ("model_type", "values"),
    [
        ("llama", {}),
        ("qwen2", {"rows": 5}),  # biases in its attention, rows to spare
        ("qwen3", {"tie_word_embeddings": True, "head_dim": 32}),
    ],
)
def test_text_gives_the_logits_of_the_language_model(tower: Path, tmp_path: Path, model_type: str, values: Any) -> None:
    source = language_model(tmp_path / "lm", model_type, **values)
    written, parts = join(tower, source, tmp_path / "joined", AT_64)
    assert written.layout == open_checkpoint(tmp_path / "joined").layout == "convllava"
    model, processor = load_pretrained(tmp_path / "joined", device="cpu")
    original = AutoModelForCausalLM.from_pretrained(source).eval()
    ids = torch.tensor([[1, 90, 91, 92, 93, 300]])
    theirs = original(input_ids=ids).logits
    torch.testing.assert_close(model(input_ids=ids).logits[..., : theirs.shape[-1]], theirs, rtol=1e-5, atol=1e-5)
    pixels = torch.randn(1, 3, 64, 96)
    features = ConvNextModel.from_pretrained(tower).eval().encoder
    embeddings = ConvNextModel.from_pretrained(tower).eval().embeddings
    torch.testing.assert_close(
        model.model.vision_tower(pixels).last_hidden_state, features(embeddings(pixels)).last_hidden_state
    )
    assert tuple(processor.image_processor.image_mean) == (0.5, 0.4, 0.3)
    assert "preprocessor_config.json" in parts.notes["normalized_by"]
    (answer,) = Generator(model, processor).generate(
        [Request.of_question("What?", [(pixels[0] * 99).byte().permute(1, 2, 0).numpy()], max_new_tokens=2)]
    )
    assert answer.num_image_tokens == 4


def test_no_bit_of_either_changes(tower: Path, tmp_path: Path) -> None:
    source = language_model(tmp_path / "lm")
    join(tower, source, tmp_path / "joined", AT_64, max_shard_size="100KB")
    assert len(list((tmp_path / "joined").glob("model-*.safetensors"))) > 2
    stored = stored_tensors(tmp_path / "joined")
    for name, tensor in load_file(source / "model.safetensors").items():
        ours = name if name.startswith("lm_head") else f"model.language_model.{name.removeprefix('model.')}"
        assert torch.equal(stored.pop(ours), tensor)
    for name, tensor in load_file(tower / "model.safetensors").items():
        if not name.startswith("layernorm."):
            assert torch.equal(stored.pop(f"model.vision_tower.{name}"), tensor)
    assert {name.rsplit(".", 2)[0] for name in stored} == {"model.multi_modal_projector"}
    first = stored["model.multi_modal_projector.linear_1.weight"]
    assert first.std().item() == pytest.approx(WIDTHS[-1] ** -0.5, rel=0.1)
    assert "untrained" in (tmp_path / "joined" / "README.md").read_text()
    assert inspect_checkpoint(tmp_path / "joined")["training_stage"] is None


def test_the_projector_is_drawn_by_the_seed(tower: Path, tmp_path: Path) -> None:
    source = language_model(tmp_path / "lm")
    name = "model.multi_modal_projector.linear_2.weight"
    drawn = []
    for number, seed in enumerate((0, 0, 1)):
        join(tower, source, tmp_path / str(number), JoinSettings(resolution=64, seed=seed), dtype="bfloat16")
        drawn.append(stored_tensors(tmp_path / str(number))[name])
    assert drawn[0].dtype == torch.bfloat16
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_a_recipe_starts_from_it(tower: Path, tmp_path: Path) -> None:
    from convllava.train.model_setup import resolve_model
    from convllava.train.recipe import Recipe

    join(tower, language_model(tmp_path / "lm"), tmp_path / "joined", AT_64)
    recipe = {
        "training_stage": "projector_init",
        "init_from": str(tmp_path / "joined"),
        "append_stages": {"depths": [1], "hidden_sizes": [24]},
        "data": [{"name": "synthetic/document"}],
        "learning_rate": 1e-3,
        "max_steps": 1,
        "output_dir": str(tmp_path / "out"),
    }
    resolved = resolve_model(Recipe.model_validate(recipe))
    model, processor = resolved.load(), resolved.processor
    assert processor is not None
    assert (model.model.vision_tower.config.num_stages, processor.image_processor.output_stride) == (5, 64)
    stored = stored_tensors(tmp_path / "joined")
    trained = model.state_dict()
    assert all(torch.equal(trained[name], value) for name, value in stored.items() if "projector" not in name)


def test_a_row_for_the_image_token(tower: Path, tmp_path: Path, references: Path) -> None:
    """The tokenizer has no ``<image>``: the embeddings grow by the mean of their rows."""
    source = language_model(tmp_path / "lm", vocab_size=1000)
    fixture = references / "official-split-tiny"
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja"):
        (source / name).unlink(missing_ok=True)
    for name in ("tokenizer.model", "tokenizer_config.json"):
        shutil.copyfile(fixture / name, source / name)
    _, parts = join(tower, source, tmp_path / "joined", AT_64)
    assert parts.notes["new_row"]
    checkpoint = open_checkpoint(tmp_path / "joined")
    assert checkpoint.config.image_token_id == 1000
    assert checkpoint.config.prompt_format == "vicuna_v1"
    assert 1000 in checkpoint.generation_config.suppress_tokens
    for name in ("model.language_model.embed_tokens.weight", "lm_head.weight"):
        table = checkpoint.weights[name].load()
        assert len(table) == 1001
        torch.testing.assert_close(table[1000], table[:1000].mean(dim=0))
    assert convert(tmp_path / "joined", tmp_path / "theirs", to="official").layout == "official-split"
    text = "What is it?</s>USER: a"
    tokenizers = [open_checkpoint(tmp_path / name).processor.tokenizer for name in ("joined", "theirs")]
    assert tokenizers[0](text)["input_ids"] == tokenizers[1](text)["input_ids"]


def test_a_clip_vit_and_the_parts_of_whole_models(tower: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    clip = CLIPVisionConfig(**shape, image_size=28, patch_size=14)
    CLIPVisionModel(clip).save_pretrained(tmp_path / "clip")
    _, parts = join(tmp_path / "clip", tiny_checkpoint, tmp_path / "control")
    assert (parts.config.resolution, parts.config.output_stride) == (28, 14)
    assert "CLIP" in parts.notes["normalized_by"]
    with pytest.raises(ValueError, match="takes squares of 28 pixels only"):
        join(tmp_path / "clip", tiny_checkpoint, tmp_path / "never", AT_64)
    join(tiny_checkpoint, tmp_path / "control", tmp_path / "again", JoinSettings(image_aspect_ratio="native"))
    whole, again = open_checkpoint(tiny_checkpoint).weights, open_checkpoint(tmp_path / "again").weights
    assert all(
        torch.equal(weight.load(), whole[name].load()) for name, weight in again.items() if "projector" not in name
    )


def test_commands(tower: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, joined = language_model(tmp_path / "lm"), tmp_path / "joined"
    parts = ["--vision-tower", str(tower), "--language-model", str(source)]
    assert main(["join", str(joined), *parts, "--resolution", "64"]) == 0
    assert "untrained" in capsys.readouterr().out
    assert main(["verify", str(joined), *parts]) == 0
    shown = capsys.readouterr().out
    assert "same: all" in shown
    assert "largest difference 0 " in shown
    state = load_file(joined / "model.safetensors")
    state["model.language_model.layers.1.mlp.up_proj.weight"][7, 5] += 1e-3
    state["model.multi_modal_projector.linear_1.bias"] += 1
    save_file(state, joined / "model.safetensors", metadata={"format": "pt"})
    assert main(["verify", str(joined), *parts]) == 1
    shown = capsys.readouterr().out
    assert "up_proj.weight: differs by 0.001 at [7, 5]" in shown
    assert "projector" not in shown
    assert main(["verify", str(joined)]) == 2
    assert "give either a second checkpoint, or both --vision-tower and --language-model" in capsys.readouterr().err


def refused(tmp_path: Path, message: str, *parts: Path, **options: Any) -> None:
    with pytest.raises(ValueError, match=message) as excinfo:
        join(*parts, tmp_path / "never", JoinSettings(**({"resolution": 64} | options)))
    assert "\n" not in str(excinfo.value)
    assert not (tmp_path / "never").exists()


def test_unsupported_parts_are_refused(tower: Path, tmp_path: Path) -> None:
    gpt2 = language_model(tmp_path / "gpt2", "gpt2", num_key_value_heads=None)
    refused(tmp_path, "gpt2 keeps its embeddings in wte; only language models that call them embed_tokens", tower, gpt2)
    soft = language_model(tmp_path / "gemma2", "gemma2", head_dim=32)
    refused(tmp_path, r"gemma2 changes its logits by final_logit_softcapping 30\.0", tower, soft)
    refused(tmp_path, "is not a causal language model that transformers knows", tower, tower)
    refused(tmp_path, "is not a language model: it has no config", tower, tmp_path)
    source = language_model(tmp_path / "lm")
    refused(
        tmp_path,
        r"resolution is not set: pass --resolution \(768, 1024 or 1536 in the paper\)",
        tower,
        source,
        resolution=None,
    )
    refused(tmp_path, "holds no ConvNeXt", source, source)
    state = load_file(source / "model.safetensors")
    norm = state.pop("model.norm.weight")
    save_file(state | {"model.mystery": norm}, source / "model.safetensors", metadata={"format": "pt"})
    refused(tmp_path, r"1 missing: norm\.weight; 1 surplus: model\.mystery", tower, source)
    save_file(state | {"model.norm.weight": norm * torch.nan}, source / "model.safetensors", metadata={"format": "pt"})
    refused(tmp_path, "norm.weight holds NaN or infinity", tower, source)
    (source / "model.safetensors").write_bytes((source / "model.safetensors").read_bytes()[:5000])
    refused(tmp_path, "is not a complete safetensors file", tower, source)
    save_file(state | {"model.norm.weight": norm}, source / "model.safetensors", metadata={"format": "pt"})
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (source / name).unlink()
    refused(tmp_path, "has no tokenizer", tower, source)
