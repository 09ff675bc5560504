"""Bodies from JSON: data URLs are cut out, bounds hold, and everything else reaches the parser unchanged."""

import json
from typing import Any

import pytest

from convllava.serve.errors import ApiError
from convllava.serve.parsing import MAX_TEXT_BYTES, parsed, without_images
from convllava.serve.schema import ChatRequest

URL = "data:image/png;base64,AAAA"


@pytest.mark.parametrize(
    "body",
    [
        {"image_url": {"url": URL}},
        {"image_url": URL},
        {"image_url": {"detail": "low", "url": URL}},
    ],
)
@pytest.mark.parametrize("separators", [(", ", ": "), (",", ":"), (" ,\n", "\t:  ")])
def test_data_urls_are_cut_out(body: Any, separators: tuple[str, str]) -> None:
    text, images = without_images(bytearray(json.dumps(body, separators=separators).encode()))
    assert [bytes(image).decode() for image in images.values()] == [URL]
    assert json.loads(text) == json.loads(json.dumps(body).replace(URL, "image 0"))


@pytest.mark.parametrize(
    "body",
    [
        {"text": URL, "content": URL, "urls": URL},
        {"url": "https://example.org/a.png"},
        {"url": [URL]},
        [URL, "url", URL],
        {'"url': URL},
        "data:",
        {},
    ],
)
def test_other_texts_stay(body: Any) -> None:
    data = json.dumps(body).encode()
    assert without_images(data) == (data, {})


@pytest.mark.parametrize("body", [b"", b'"', b'{"url": "data:', b'{"url": "data:image', b"[[[", b'{"url" "data:"}'])
def test_what_is_not_json_is_left_to_the_parser(body: bytes) -> None:
    with pytest.raises(ApiError) as refused:
        parsed(body, ChatRequest)
    assert refused.value.status == 400


def test_text_besides_images_is_bounded() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * (MAX_TEXT_BYTES + 1)}}
    body = json.dumps({"messages": [{"role": "user", "content": [image]}]}).encode()
    chat, images = parsed(body, ChatRequest)
    assert len(chat.messages) == 1 and len(images["image 0"]) > MAX_TEXT_BYTES
    long = json.dumps({"messages": [{"role": "user", "content": "x" * MAX_TEXT_BYTES}]}).encode()
    with pytest.raises(ApiError, match="too many bytes besides data URLs"):
        parsed(long, ChatRequest)


def test_a_long_key_behind_many_blanks() -> None:
    with pytest.raises(ApiError, match="a key that is too long"):
        without_images(b'{"' + b"k" * 200 + b'"' + b" " * 200_000 + b": 1}")
