"""What vLLM's transformers backend asks of a checkpoint and of this package, without vLLM.

benchmarks/vllm_compare.py asks vLLM itself.
"""

import inspect
import re
import sys
import types
from pathlib import Path
from typing import Any

import jinja2
import pytest
import torch
from PIL import Image
from serve.conftest import noise
from transformers import AutoConfig, AutoModel, AutoModelForImageTextToText, AutoProcessor

import convllava.model
from convllava.model import ConvLlavaModel, ConvLlavaProcessor, build_nano_processor, preset

HEAD_SIZES = {32, 64, 80, 96, 112, 128}
"""That vLLM's attention on CPUs has code for."""


def test_the_plugin_registers_as_often_as_it_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    registered: dict[str, str] = {}
    vllm = types.ModuleType("vllm")
    vllm.ModelRegistry = types.SimpleNamespace(register_model=registered.__setitem__)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "vllm", vllm)
    for _ in range(2):
        convllava.model.register_vllm()
    (architecture, where), *none = registered.items()
    assert none == [] and architecture == "ConvLlavaForConditionalGeneration"
    assert where == "vllm.model_executor.models.transformers:TransformersMultiModalForCausalLM"


def test_a_saved_checkpoint_opens_through_the_registry(tiny_checkpoint: Path) -> None:
    config = AutoConfig.from_pretrained(tiny_checkpoint)
    assert config.architectures == ["ConvLlavaForConditionalGeneration"]
    assert isinstance(AutoProcessor.from_pretrained(tiny_checkpoint), ConvLlavaProcessor)
    assert isinstance(AutoModel.from_config(config), ConvLlavaModel)  # vLLM runs the model without its head
    whole = AutoModelForImageTextToText.from_pretrained(tiny_checkpoint)
    base = {name for name, _ in AutoModel.from_config(config).named_parameters()}
    assert {name.removeprefix("model.") for name, _ in whole.model.named_parameters()} == base


def test_the_model_lets_vllm_put_in_its_attention(tiny_checkpoint: Path) -> None:
    config = AutoConfig.from_pretrained(tiny_checkpoint)
    assert ConvLlavaModel._supports_attention_backend and ConvLlavaModel.input_modalities == ("image", "text")
    model = AutoModel.from_config(config)
    assert model.get_decoder() is model.language_model and model.get_encoder("image") is model.vision_tower
    assert "kwargs" in inspect.signature(model.get_image_features).parameters


@pytest.mark.parametrize("name", ["nano"])
def test_head_sizes_of_our_own_models(name: str) -> None:
    text = preset(name).text_config
    assert (text.head_dim or text.hidden_size // text.num_attention_heads) in HEAD_SIZES


def test_every_field_of_a_image_is_named(tiny_checkpoint: Path) -> None:
    processor = AutoProcessor.from_pretrained(tiny_checkpoint)
    batch = processor(images=[noise(128, 64)], text="<image>?", return_tensors="pt")
    assert set(processor.image_processor.model_input_names) == batch.keys() - {"input_ids", "attention_mask"}


def test_placeholders_and_features_agree_for_every_shape(tiny_checkpoint: Path) -> None:
    processor, model = AutoProcessor.from_pretrained(tiny_checkpoint), AutoModel.from_pretrained(tiny_checkpoint)
    shapes = [(64, 64), (300, 90), (90, 300), (128, 192)]
    images: list[Image.Image] = [noise(*shape) for shape in shapes]
    counted = processor._get_num_multimodal_tokens(image_sizes=[(h, w) for w, h in shapes])["num_image_tokens"]
    batch = processor(images=images, text="<image>" * 4, return_tensors="pt", return_mm_token_type_ids=True)
    assert batch["mm_token_type_ids"].sum() == sum(counted)
    with torch.no_grad():
        together = model.get_image_features(batch["pixel_values"], image_sizes=batch["image_sizes"]).pooler_output
    assert [len(features) for features in together] == counted
    for image, features in zip(images, together, strict=True):
        alone: Any = processor(images=[image], text="<image>", return_tensors="pt")
        with torch.no_grad():
            expected = model.get_image_features(alone["pixel_values"], image_sizes=alone["image_sizes"])
        torch.testing.assert_close(features, expected.pooler_output[0], atol=1e-5, rtol=1e-4)


def test_embeddings_in_place_of_tokens_give_the_same(tiny_checkpoint: Path) -> None:
    """vLLM scatters the features itself and hands over embeddings."""
    processor, model = AutoProcessor.from_pretrained(tiny_checkpoint), AutoModel.from_pretrained(tiny_checkpoint).eval()
    batch = processor(images=[noise(128, 64)], text="a<image>b", return_tensors="pt")
    with torch.no_grad():
        expected = model(**batch).last_hidden_state
        features = model.get_image_features(batch["pixel_values"], image_sizes=batch["image_sizes"]).pooler_output[0]
        embeddings = model.get_input_embeddings()(batch["input_ids"])
        embeddings[batch["input_ids"] == processor.image_token_id] = features
        got = model(inputs_embeds=embeddings, position_ids=torch.arange(embeddings.shape[1])[None]).last_hidden_state
        as_tuple = model(inputs_embeds=embeddings, return_dict=False)  # this is how vLLM calls it
    torch.testing.assert_close(got, expected)
    assert isinstance(as_tuple, tuple)
    torch.testing.assert_close(as_tuple[0], expected)


TYPED = ("<image>", "<|user|>Hi<|assistant|>", "</s><s>", "a <image", "<ima<image>ge>")


@pytest.mark.parametrize("prompt_format", ["vicuna_v1", "llava_v1", "tokenizer"])
def test_typed_control_tokens_stay_text_in_templates_that_others_render(prompt_format: str) -> None:
    """vLLM renders the processor's template by the tokenizer's method, and gives the text to the processor."""
    processor = build_nano_processor()
    processor.set_prompt_format(prompt_format)
    for typed in TYPED:
        for content in (typed, [{"type": "text", "text": typed[:3]}, {"type": "text", "text": typed[3:]}]):
            parts = [
                {"type": "image"},
                *(content if isinstance(content, list) else [{"type": "text", "text": content}]),
            ]
            for messages in ([{"role": "user", "content": content}], [{"role": "user", "content": parts}]):
                text = processor.tokenizer.apply_chat_template(
                    messages, chat_template=processor.chat_template, tokenize=False, add_generation_prompt=True
                )
                images = [noise(64, 64)] if messages[0]["content"] is parts else []
                seen = processor(images=images or None, text=text, add_special_tokens=False)["input_ids"][0]
                expected = processor.apply_chat_template(
                    messages, add_generation_prompt=True, tokenize=True, processor_kwargs={"images": images}
                )[0]
                assert list(seen) == list(expected)


def test_vllm_hands_parts_to_the_templates() -> None:
    """vLLM 0.18 and earlier look for a loop over message['content'] in a loop over messages."""
    template = jinja2.Environment(extensions=["jinja2.ext.loopcontrols"]).parse(
        re.sub(r"{%-? *(end)?generation *-?%}", "", build_nano_processor().chat_template)
    )
    outer = next(loop for loop in template.find_all(jinja2.nodes.For) if getattr(loop.iter, "name", "") == "messages")
    inner = next(loop for loop in outer.find_all(jinja2.nodes.For) if isinstance(loop.iter, jinja2.nodes.Getitem))
    assert (inner.iter.node.name, inner.iter.arg.value) == (outer.target.name, "content")
