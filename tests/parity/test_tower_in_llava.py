"""The encoder as ``vision_config`` of transformers' own LLaVA: equal logits, loss and gradients, generate, reload."""

from pathlib import Path

import pytest
import torch
from tiny import tiny_model
from transformers import AutoModelForImageTextToText, LlavaConfig, LlavaForConditionalGeneration

from convllava.model import ConvLlavaForConditionalGeneration


def llava(model: ConvLlavaForConditionalGeneration) -> LlavaForConditionalGeneration:
    """Return transformers' LLaVA with the weights of one of our models, whose tensors have the same names."""
    config = LlavaConfig(
        vision_config={**model.config.vision_config.to_dict(), "flatten_output": True},
        text_config=model.config.text_config,
        image_token_index=model.config.image_token_id,
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
    )
    theirs = LlavaForConditionalGeneration(config).eval()
    theirs.load_state_dict(model.state_dict())
    return theirs


@pytest.mark.parametrize("sizes", [None, [[128, 192], [64, 128]]])
def test_logits_loss_and_gradients_are_equal(sizes: list[list[int]] | None) -> None:
    """Images of one shape; and of several, each without padding, which transformers' LLaVA takes by their sizes."""
    ours, processor = tiny_model()
    theirs = llava(ours)
    pixels = torch.randn(2, 3, 128, 192, generator=torch.Generator().manual_seed(0))
    tokens = [6, 6] if sizes is None else [6, 2]
    image = processor.image_token_id
    ids = torch.tensor([[1, 90, *[image] * tokens[0], 91, *[image] * tokens[1], 92, 93]])
    inputs = {"input_ids": ids, "pixel_values": pixels, "labels": ids.masked_fill(ids == image, -100)}
    if sizes is not None:
        inputs["image_sizes"] = torch.tensor(sizes)
    outputs = [model(**inputs) for model in (ours, theirs)]
    torch.testing.assert_close(outputs[0].logits, outputs[1].logits)
    torch.testing.assert_close(outputs[0].loss, outputs[1].loss)
    for output in outputs:
        output.loss.backward()
    gradients = [dict(model.named_parameters()) for model in (ours, theirs)]
    for name in (
        "model.vision_tower.embeddings.patch_embeddings.weight",
        "model.multi_modal_projector.linear_1.weight",
    ):
        torch.testing.assert_close(gradients[0][name].grad, gradients[1][name].grad)


@torch.no_grad()
def test_generate_and_reload(tmp_path: Path) -> None:
    ours, processor = tiny_model()
    llava(ours).save_pretrained(tmp_path)
    again = AutoModelForImageTextToText.from_pretrained(tmp_path).eval()
    assert isinstance(again, LlavaForConditionalGeneration)
    assert again.config.vision_config.flatten_output
    image = processor.image_token_id
    inputs = {
        "input_ids": torch.tensor([[1, 90, *[image] * 6, 91, 92]]),
        "pixel_values": torch.randn(1, 3, 128, 192, generator=torch.Generator().manual_seed(0)),
    }
    options = {"max_new_tokens": 5, "do_sample": False, "suppress_tokens": [image]}
    assert torch.equal(again.generate(**inputs, **options), ours.generate(**inputs, **options))
    tower = again.model.vision_tower
    tower.set_backend("cpu-float32", size=(128, 192))  # LLaVA asks for the last stage alone, which a backend serves
    assert torch.equal(again.generate(**inputs, **options), ours.generate(**inputs, **options))


@torch.no_grad()
def test_maps_of_every_stage_as_sequences() -> None:
    ours, _ = tiny_model()
    tower = llava(ours).model.vision_tower
    every = tower(torch.zeros(2, 3, 128, 192), output_hidden_states=True).hidden_states
    assert [tuple(tokens.shape) for tokens in every] == [
        (2, 32 * 48, 8), (2, 32 * 48, 8), (2, 16 * 24, 8), (2, 8 * 12, 16), (2, 4 * 6, 16), (2, 6, 32)
    ]  # fmt: skip
