"""Images that come inside messages: read alike by the processor's chat template and by a request."""

import base64
import io
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from convllava.inference import Request, prepare
from convllava.inference.request import question_message
from convllava.model import build_nano_processor

PROCESSOR = build_nano_processor()


def photograph() -> Image.Image:
    return Image.effect_noise((128, 64), 90).convert("RGB")


IMAGE = photograph()


def encoded() -> bytes:
    stream = io.BytesIO()
    IMAGE.save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture
def forms(tmp_path: Path) -> dict[str, dict[str, Any]]:
    """Every form of an image part that transformers and OpenAI know."""
    path = tmp_path / "p.png"
    path.write_bytes(encoded())
    text = base64.b64encode(encoded()).decode()
    data_url = f"data:image/png;base64,{text}"
    return {
        "image": {"type": "image", "image": IMAGE},
        "path": {"type": "image", "path": str(path)},
        "url": {"type": "image", "url": data_url},
        "base64": {"type": "image", "base64": text},
        "image_url": {"type": "image_url", "image_url": {"url": data_url}},
        "image_url as text": {"type": "image_url", "image_url": data_url},
        "null before path": {"type": "image", "image": None, "path": str(path)},
        "image and path": {"type": "image", "image": IMAGE, "path": "nowhere.png"},
    }


FORMS = ["image", "path", "url", "base64", "image_url", "image_url as text", "null before path", "image and path"]


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_read_alike(form: str, forms: dict[str, dict[str, Any]]) -> None:
    messages = [{"role": "user", "content": [forms[form], {"type": "text", "text": "What?"}]}]
    options: dict[str, Any] = {"add_generation_prompt": True, "tokenize": True, "return_dict": True}
    data = PROCESSOR.apply_chat_template(messages, return_tensors="pt", **options)
    prompt = prepare(Request(messages=messages), PROCESSOR, 4096)
    given = prepare(Request(messages=[question_message("What?", 1)], images=[IMAGE]), PROCESSOR, 4096)
    expected, _ = PROCESSOR.image_processor.prepare([IMAGE])
    assert torch.equal(data["pixel_values"], expected)
    assert len(prompt.images) == 1 and torch.equal(prompt.images[0], expected[0])
    assert torch.equal(data["input_ids"][0], prompt.input_ids) and torch.equal(prompt.input_ids, given.input_ids)


def test_several_images_keep_their_order(forms: dict[str, dict[str, Any]]) -> None:
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [forms["path"], forms["image_url"], {"type": "text", "text": "What?"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "Noise."}]},
        {"role": "user", "content": [{"type": "text", "text": "And?"}, forms["image"]]},
    ]
    sources = Request(messages=messages).sources
    assert sources == [forms["path"]["path"], forms["image_url"]["image_url"]["url"], IMAGE]


def test_a_part_without_an_image_stands_for_one_that_is_given() -> None:
    request = Request(messages=[question_message("What?", 1)], images=[IMAGE])
    assert request.sources == [IMAGE]
    with pytest.raises(ValueError, match="1 <image> placeholder but 0 images"):
        prepare(Request(messages=[question_message("What?", 1)]), PROCESSOR, 4096)
