"""The authors' tiny checkpoints in both layouts, opened as they are: from an image to the same answer.

Everything comes from ``load_pretrained``: weights, tokenizer, prompt format, padding color, generation defaults.
"""

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from convllava.inference import Generator, Request, load_pretrained
from convllava.model import ConvLlavaForConditionalGeneration, ConvLlavaProcessor

FIXTURES = {"official-split-tiny": None, "official-consolidated-tiny": 256}
"""Only the split layout says at which resolution its images are shown."""

POLICIES = ("pad", "native")
AUTHORS_PLACEHOLDER = -200

Loaded = tuple[Path, ConvLlavaForConditionalGeneration, ConvLlavaProcessor]

pytestmark = pytest.mark.skipif(
    not (importlib.util.find_spec("sentencepiece") and importlib.util.find_spec("google.protobuf")),
    reason="reading the fixtures' tokenizer.model needs sentencepiece and protobuf",
)


@pytest.fixture(scope="module", params=FIXTURES)
def reference(request: pytest.FixtureRequest, shared_dir: Path) -> Loaded:
    folder = shared_dir / "reference" / request.param
    return folder / "golden", *load_pretrained(folder, device="cpu", resolution=FIXTURES[request.param])


def _cases(golden: Path, policy: str) -> Iterator[tuple[dict[str, Any], dict[str, np.ndarray]]]:
    arrays = np.load(golden / f"{policy}.npz")
    for case in json.loads((golden / f"{policy}.json").read_text()):
        prefix = f"{case['index']}_"
        yield case, {key.removeprefix(prefix): arrays[key] for key in arrays.files if key.startswith(prefix)}


def _question(golden: Path, index: int) -> tuple[str, Image.Image]:
    case = json.loads((golden / "case.json").read_text())
    with Image.open(golden / case["images"][index]) as image:
        return case["questions"][index], image.convert("RGB")


def _expanded(case: dict[str, Any], image_token_id: int) -> list[int]:
    ids: list[int] = []
    for token in case["input_ids"]:
        ids += [image_token_id] * case["visual_tokens"] if token == AUTHORS_PLACEHOLDER else [token]
    return ids


def _close(ours: Tensor, expected: np.ndarray) -> bool:
    reference = torch.from_numpy(expected)
    return bool((ours - reference).abs().max() <= 1e-4 * reference.abs().max())


@pytest.mark.parametrize("policy", POLICIES)
@torch.no_grad()
def test_from_image_to_logits(reference: Loaded, policy: str) -> None:
    golden, model, processor = reference
    image_token_id = model.config.image_token_id
    assert image_token_id == 1000  # the next free id of a vocabulary of 1000
    for case, arrays in _cases(golden, policy):
        text, image = _question(golden, case["index"])
        messages = [{"role": "user", "content": [{"type": "image", "image": image}, {"type": "text", "text": text}]}]
        assert processor.render(messages, add_generation_prompt=True) == case["prompt"]
        batch = processor(images=image, text=case["prompt"], image_aspect_ratio=policy, return_tensors="pt")
        assert batch["input_ids"][0].tolist() == _expanded(case, image_token_id)
        np.testing.assert_allclose(batch["pixel_values"][0].numpy(), arrays["pixel_values"], rtol=0, atol=1e-6)
        features = model.get_image_features(batch["pixel_values"], batch["image_sizes"])
        assert _close(features.last_hidden_state, arrays["features"])
        assert _close(features.pooler_output[0], arrays["projected"])
        logits = model(**batch).logits[0, :, :image_token_id]
        assert _close(logits[-8:], arrays["logits_last8"])
        assert _close(logits.double().sum(dim=-1), arrays["logits_sum"])


@pytest.mark.parametrize("policy", POLICIES)
@torch.no_grad()
def test_greedy_answers(reference: Loaded, policy: str) -> None:
    golden, model, processor = reference
    generator = Generator(model, processor)
    for case, arrays in _cases(golden, policy):
        text, image = _question(golden, case["index"])
        expected = case["generated_ids"]
        request = Request.of_question(text, [image], image_aspect_ratio=policy, max_new_tokens=len(expected))
        (answer,) = generator.generate([request])
        pixels = torch.from_numpy(arrays["pixel_values"])[None]
        prompt = torch.tensor([_expanded(case, model.config.image_token_id)])
        _assert_same_or_tied(model, prompt, pixels, list(answer.token_ids), expected)
        # in a run of bytes that is no text, sentencepiece and tokenizers mark different ones as unreadable
        if list(answer.token_ids) == expected and "\ufffd" not in case["text"]:
            assert answer.text.strip() == case["text"].strip()


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


def test_options_are_those_of_the_authors_inference(reference: Loaded) -> None:
    _, model, processor = reference
    config, images = model.config, processor.image_processor
    assert (config.image_aspect_ratio, images.image_aspect_ratio) == ("pad", "pad")
    assert (config.resolution, images.resolution) == (256, 256)
    assert (config.prompt_format, processor.prompt_format) == ("vicuna_v1", "vicuna_v1")
    assert tuple(int(mean * 255) for mean in images.image_mean) == (122, 116, 104)  # the padding color
    answers = model.generation_config
    assert (answers.bos_token_id, answers.eos_token_id, answers.pad_token_id, answers.max_length) == (1, 2, 0, 4096)
    assert not answers.do_sample
    assert answers.suppress_tokens == [1000]


def test_the_shapes_are_read_off_the_tensors(reference: Loaded) -> None:
    golden, model, _ = reference
    case = json.loads((golden / "case.json").read_text())
    assert model.config.vision_config.depths == case["depths"]
    assert model.config.vision_config.hidden_sizes == case["hidden_sizes"]


def test_the_saved_model_gives_the_same_logits(reference: Loaded, tmp_path: Path) -> None:
    golden, model, processor = reference
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    again, same = load_pretrained(tmp_path, device="cpu")
    case, _ = next(_cases(golden, "pad"))
    _, image = _question(golden, 0)
    with torch.no_grad():
        first = model(**processor(images=image, text=case["prompt"], return_tensors="pt")).logits
        second = again(**same(images=image, text=case["prompt"], return_tensors="pt")).logits
    assert torch.equal(first, second)
    assert again.generation_config.to_diff_dict() == model.generation_config.to_diff_dict()
