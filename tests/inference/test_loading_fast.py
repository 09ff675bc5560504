"""`load_pretrained(..., fast=...)`: the encoder is made ready for inference, and answers stay what they were."""

from pathlib import Path

import pytest
from PIL import Image

from convllava.inference import ask, load_pretrained
from convllava.model import ConvLlavaForConditionalGeneration, ConvLlavaProcessor

Loaded = tuple[ConvLlavaForConditionalGeneration, ConvLlavaProcessor]


@pytest.mark.parametrize(("fast", "precision"), [(True, None), ("float32", "float32"), ("int8", "int8")])
def test_answers_of_a_fast_encoder(
    fast: bool | str, precision: str | None, tiny_checkpoint: Path, tiny: Loaded
) -> None:
    image = Image.effect_noise((192, 128), 80).convert("RGB")
    model, processor = load_pretrained(tiny_checkpoint, device="cpu", fast=fast)
    form = model.model.vision_tower._fast
    assert form is not None
    assert precision is None or form.precision == precision  # type: ignore[attr-defined]
    answer = ask(model, processor, image, "What is it?", max_new_tokens=6)
    if precision == "float32":
        assert answer.token_ids == ask(*tiny, image, "What is it?", max_new_tokens=6).token_ids


def test_an_unknown_precision_is_named(tiny_checkpoint: Path) -> None:
    with pytest.raises(ValueError, match="auto, float32, bfloat16, int8, got 'fp8'"):
        load_pretrained(tiny_checkpoint, device="cpu", fast="fp8")
