"""The token that is learned as the end of an answer ends generation, or its absence is told."""

import copy
from pathlib import Path

import pytest
from transformers import GenerationConfig

from convllava.convert import end_token_fault, inspect_checkpoint
from convllava.convert.end_tokens import learned_end
from convllava.inference import load_pretrained
from convllava.model import ConvLlavaProcessor

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% if m['role'] == 'assistant' %}{% generation %}{{ m['content'] }}<|im_end|>\n{% endgeneration %}"
    "{% else %}{{ m['content'] }}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
WITHOUT_END = (
    "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


@pytest.fixture
def loaded(tiny_checkpoint: Path) -> tuple[ConvLlavaProcessor, GenerationConfig]:
    model, processor = load_pretrained(tiny_checkpoint)
    return processor, model.generation_config


def with_template(processor: ConvLlavaProcessor, template: str) -> ConvLlavaProcessor:
    tokenizer = copy.deepcopy(processor.tokenizer)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.chat_template = template
    return ConvLlavaProcessor(processor.image_processor, tokenizer, prompt_format="tokenizer")


@pytest.mark.parametrize("name", ["vicuna_v1", "llava_v1", "plain", "tokenizer"])
def test_our_formats_end(loaded: tuple[ConvLlavaProcessor, GenerationConfig], name: str) -> None:
    processor, generation = loaded
    if name != "tokenizer" or processor.tokenizer.chat_template:
        processor.set_prompt_format(name)
    assert end_token_fault(processor, generation) == ""


def test_another_end_token_than_generation_waits_for(loaded: tuple[ConvLlavaProcessor, GenerationConfig]) -> None:
    processor, generation = with_template(loaded[0], CHATML), loaded[1]
    learned = processor.tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert learned_end(processor) == learned
    fault = end_token_fault(processor, generation)
    assert f"learned to end with <|im_end|> ({learned})" in fault and f"add {learned} to eos_token_id" in fault
    generation.eos_token_id = [generation.eos_token_id, learned]
    assert end_token_fault(processor, generation) == ""


def test_a_template_without_an_end_token(
    loaded: tuple[ConvLlavaProcessor, GenerationConfig], tiny_checkpoint: Path, tmp_path: Path
) -> None:
    processor = with_template(loaded[0], WITHOUT_END)
    assert "writes no end token after an answer" in end_token_fault(processor, loaded[1])


def test_a_sound_checkpoint_has_no_such_finding(tiny_checkpoint: Path) -> None:
    assert not [finding for finding in inspect_checkpoint(tiny_checkpoint)["findings"] if "end token" in finding]
