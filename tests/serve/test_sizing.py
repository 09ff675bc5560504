"""Sizes that a request leaves open: chosen so that images fit the context, the same ones from turn to turn."""

from typing import Any

from serve.conftest import MODEL, Serve, image_part, noise

from convllava.serve.conversion import text_before_last_image


def _ask(server: Any, messages: list[dict[str, Any]], **options: Any) -> Any:
    return server.post("/v1/chat/completions", {"model": MODEL, "messages": messages, "max_tokens": 4, **options})


def test_a_large_image_is_shown_smaller_and_stays_so(serve: Serve) -> None:
    image = noise(1600, 1472)  # 575 visual tokens of a context of 512
    messages = [{"role": "user", "content": [image_part(image), {"type": "text", "text": "What is it?"}]}]
    with serve(auto_resolution=True) as server:
        first = _ask(server, messages)
        assert first.status == 200, first.body
        estimate = server.post("/v1/estimate", {"sizes": [[1600, 1472]], "num_text_characters": 11}).json
        said = {"role": "assistant", "content": first.json["choices"][0]["message"]["content"]}
        second = _ask(server, [*messages, said, {"role": "user", "content": "And what is beside it?"}])
        own = _ask(server, messages, resolution=1472)
    shown = first.json["convllava"]["images"]
    assert 100 < shown[0]["visual_tokens"] <= 512 - 128
    assert estimate["visual_tokens"] >= shown[0]["visual_tokens"]
    assert second.json["convllava"]["images"] == shown
    assert second.json["usage"]["prompt_tokens_details"]["cached_tokens"] > shown[0]["visual_tokens"]
    assert own.status == 400 and "context" in own.error["message"]  # what a client asks for is not changed


def test_small_images_keep_their_size_and_budgets_hold(serve: Serve) -> None:
    messages = [{"role": "user", "content": [image_part(noise(256, 192)), {"type": "text", "text": "?"}]}]
    with serve(auto_resolution=True) as server:
        assert _ask(server, messages).json["convllava"]["images"][0]["resolution"] == [192, 256]
        assert _ask(server, messages, max_visual_tokens=6).json["convllava"]["images"][0]["visual_tokens"] <= 6


def test_only_what_stands_before_the_last_image_counts() -> None:
    imaged = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "two"}]}
    messages = [{"role": "system", "content": "one"}, imaged, {"role": "user", "content": "three"}]
    assert text_before_last_image(messages) == "one\n two"
    assert text_before_last_image(messages[2:]) == ""
