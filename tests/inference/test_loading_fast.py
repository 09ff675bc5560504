"""`load_pretrained(..., fast=...)` sets a backend of the encoder, and answers stay the same."""

from pathlib import Path

import pytest
from PIL import Image

from convllava.inference import ask, load_pretrained
from convllava.model import ConvLlavaForConditionalGeneration, ConvLlavaProcessor

Loaded = tuple[ConvLlavaForConditionalGeneration, ConvLlavaProcessor]


@pytest.mark.parametrize("fast", [True, "cpu-float32", "cpu-int8"])
def test_answers_of_a_fast_encoder(fast: bool | str, tiny_checkpoint: Path, tiny: Loaded) -> None:
    image = Image.effect_noise((192, 128), 80).convert("RGB")
    model, processor = load_pretrained(tiny_checkpoint, device="cpu", fast=fast)
    backend = model.model.vision_tower.backend
    assert backend is not None
    assert fast is True or backend.name == fast
    answer = ask(model, processor, image, "What is it?", max_new_tokens=6)
    if fast == "cpu-float32":
        assert answer.token_ids == ask(*tiny, image, "What is it?", max_new_tokens=6).token_ids


def test_an_unknown_backend_is_named(tiny_checkpoint: Path) -> None:
    with pytest.raises(ValueError, match="backend is 'fp8': choose one of eager, auto, cpu-float32"):
        load_pretrained(tiny_checkpoint, device="cpu", fast="fp8")
