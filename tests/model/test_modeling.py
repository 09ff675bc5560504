"""The complete model: images of mixed shapes in a batch, interleaving, generation, saving, Hugging Face's classes."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from PIL import Image
from tiny import tiny_model
from torch import Tensor
from transformers import (
    AutoModel,
    AutoModelForImageTextToText,
    AutoProcessor,
    CLIPVisionConfig,
    LlamaConfig,
    pipeline,
)

from convllava.data.batching import Collator
from convllava.data.samples import assistant_message, user_message
from convllava.model import ConvLlavaConfig, ConvLlavaForConditionalGeneration, ConvLlavaProcessor

Shape = tuple[int, int]


def _image(shape: Shape, seed: int = 0) -> Image.Image:
    noise = torch.randint(0, 256, (*shape, 3), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
    return Image.fromarray(noise.numpy())


def _example(processor: ConvLlavaProcessor, question: str, answer: str, shapes: list[Shape]) -> dict[str, Any]:
    messages = [user_message(question, len(shapes)), assistant_message(answer)]
    example = processor.encode(messages, [_image(shape, seed) for seed, shape in enumerate(shapes)])
    labels = torch.where(example.pop("labels_mask"), example["input_ids"], -100)
    return {**example, "labels": labels, "sample_id": question}


EXAMPLES: list[tuple[str, str, list[Shape]]] = [
    ("What?", "a long enough answer", [(64, 192)]),
    ("No image here.", "none", []),
    ("Two of them?", "yes", [(128, 64), (64, 64)]),
    ("And this?", "12.50", [(130, 200)]),
]


def _batch(processor: ConvLlavaProcessor, examples: list[tuple[str, str, list[Shape]]]) -> dict[str, Tensor]:
    batch = Collator(0)([_example(processor, *example) for example in examples])
    batch.pop("sample_ids")
    return batch


@torch.no_grad()
def test_a_batch_of_mixed_examples_equals_its_examples() -> None:
    model, processor = tiny_model()
    together = model(**_batch(processor, EXAMPLES)).logits
    for index, example in enumerate(EXAMPLES):
        alone = model(**_batch(processor, [example])).logits[0]
        assert torch.allclose(together[index, : len(alone)], alone, atol=1e-4)


def test_text_alone_does_not_run_the_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    model, processor = tiny_model()

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("the encoder ran")

    monkeypatch.setattr(model.model.vision_tower, "forward", refuse)
    assert torch.isfinite(model(**_batch(processor, [EXAMPLES[1]])).loss)


def test_pixels_change_the_logits() -> None:
    model, processor = tiny_model()
    batch = _batch(processor, [EXAMPLES[2]])
    swapped = {**batch, "pixel_values": batch["pixel_values"].flip(-1)}
    assert not torch.allclose(model(**batch).logits, model(**swapped).logits)


def test_placeholders_and_images_must_agree() -> None:
    model, processor = tiny_model()
    batch = _batch(processor, [EXAMPLES[0]])
    batch["input_ids"][0, batch["input_ids"][0].tolist().index(processor.image_token_id)] = 5
    with pytest.raises(ValueError, match="2 image tokens but the images have 3 visual tokens"):
        model(**batch)


def test_loss_divides_by_the_given_count() -> None:
    model, processor = tiny_model()
    batch = _batch(processor, EXAMPLES)
    num_supervised = int((batch["labels"][:, 1:] != -100).sum())
    loss = model(**batch).loss
    assert torch.allclose(model(**batch, num_items_in_batch=2 * num_supervised).loss, loss / 2)


@torch.no_grad()
def test_embeddings_in_place_of_ids() -> None:
    model, processor = tiny_model()
    batch = _batch(processor, EXAMPLES)
    ids = batch.pop("input_ids")
    expected = model(input_ids=ids, **batch).logits
    embeds = model.get_input_embeddings()(ids)
    assert torch.allclose(model(inputs_embeds=embeds, **batch).logits, expected, atol=1e-5)
    with pytest.raises(ValueError, match="exactly one of input_ids and inputs_embeds"):
        model(**batch)


@torch.no_grad()
def test_generate_equals_stepping_without_a_cache() -> None:
    model, processor = tiny_model()
    messages = [user_message("What?", 1)]
    text = processor.render(messages, add_generation_prompt=True)
    inputs = processor(images=[_image((64, 192))], text=text, return_tensors="pt")
    generated = model.generate(**inputs, max_new_tokens=12, do_sample=False, eos_token_id=None)
    ids = inputs["input_ids"]
    for _ in range(12):
        logits = model(**{**inputs, "input_ids": ids, "attention_mask": torch.ones_like(ids)}).logits[:, -1]
        logits[:, processor.image_token_id] = -torch.inf
        ids = torch.cat([ids, logits.argmax(dim=-1, keepdim=True)], dim=1)
    assert generated.tolist() == ids.tolist()


@torch.no_grad()
def test_the_image_token_is_never_generated() -> None:
    model, processor = tiny_model()
    model.lm_head.weight[processor.image_token_id] = 100 * model.lm_head.weight.abs().max()
    inputs = processor(text="<s><|user|>Hello<|assistant|>", return_tensors="pt")
    generated = model.generate(**inputs, max_new_tokens=8, do_sample=False)
    assert processor.image_token_id not in generated.tolist()[0]


@torch.no_grad()
def test_save_and_auto_classes_round_trip(tmp_path: Path) -> None:
    model, processor = tiny_model()
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    batch = _batch(processor, EXAMPLES)
    expected = model(**batch).logits
    again = AutoModelForImageTextToText.from_pretrained(tmp_path).eval()
    assert isinstance(again, ConvLlavaForConditionalGeneration)
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in model.state_dict().items())
    torch.testing.assert_close(again(**batch).logits, expected)  # weights of a file may be aligned differently
    assert isinstance(AutoProcessor.from_pretrained(tmp_path), ConvLlavaProcessor)
    base = AutoModel.from_pretrained(tmp_path).eval()
    batch.pop("labels")
    torch.testing.assert_close(again.lm_head(base(**batch).last_hidden_state), expected)
    assert base.get_encoder("image") is base.vision_tower
    assert base.get_decoder() is base.language_model


def test_pipeline_answers(tmp_path: Path) -> None:
    model, processor = tiny_model()
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    ask = pipeline("image-text-to-text", model=str(tmp_path))
    image = _image((64, 128))
    content = [{"type": "image", "image": image}, {"type": "text", "text": "What?"}]
    result = ask([{"role": "user", "content": content}], max_new_tokens=5, return_full_text=False)
    prompt = processor.render([user_message("What?", 1)], add_generation_prompt=True)
    inputs = processor(images=[image], text=prompt, return_tensors="pt")
    generated = model.generate(**inputs, max_new_tokens=5, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    assert result[0]["generated_text"] == processor.tokenizer.decode(generated, skip_special_tokens=True)


@torch.no_grad()
def test_lora_saves_reloads_and_merges(tmp_path: Path) -> None:
    model, processor = tiny_model()
    batch = _batch(processor, EXAMPLES)
    lora = LoraConfig(target_modules=r".*language_model.*\.(q_proj|v_proj)", modules_to_save=["multi_modal_projector"])
    adapted = get_peft_model(model, lora)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name or "modules_to_save" in name:
            parameter.add_(torch.randn_like(parameter) * 0.1)
    expected = adapted(**batch).logits
    adapted.save_pretrained(tmp_path)
    fresh, _ = tiny_model()
    assert not torch.allclose(fresh(**batch).logits, expected, atol=1e-3)
    reloaded = PeftModel.from_pretrained(fresh, str(tmp_path)).eval()
    assert torch.allclose(reloaded(**batch).logits, expected, atol=1e-5)
    assert torch.allclose(reloaded.merge_and_unload()(**batch).logits, expected, atol=1e-4)


def _clip_model() -> ConvLlavaForConditionalGeneration:
    vision_config = CLIPVisionConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=2, image_size=28, patch_size=14
    )
    text_config = LlamaConfig(
        vocab_size=50, hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=2
    )
    config = ConvLlavaConfig(vision_config=vision_config, text_config=text_config, resolution=28)
    return ConvLlavaForConditionalGeneration(config).eval()


@torch.no_grad()
def test_clip_control_takes_the_penultimate_layer_without_class_token() -> None:
    model = _clip_model()
    pixels = torch.randn(2, 3, 28, 28)
    outputs = model.get_image_features(pixels)
    hidden = model.model.vision_tower(pixels, output_hidden_states=True).hidden_states[-2][:, 1:]
    assert torch.equal(outputs.last_hidden_state, hidden.flatten(0, 1))
    assert [len(features) for features in outputs.pooler_output] == [4, 4]
    with pytest.raises(ValueError, match="28x28 pixels only"):
        model.get_image_features(torch.randn(1, 3, 28, 42))
