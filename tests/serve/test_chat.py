"""Chat completions: the answers are the generator's, the format is OpenAI's."""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openai
import pytest
from PIL import Image
from serve.conftest import MODEL, Running, Serve, data_url, encoded, image_part, noise

from convllava.image_options import ImageOptions
from convllava.serve import Settings

Alone = Callable[..., str]


@pytest.fixture(scope="module")
def client(server: Running) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)


def test_openais_client_gets_the_generators_answer(client: openai.OpenAI, alone: Alone) -> None:
    image = noise(192, 130)
    content: Any = [image_part(image), {"type": "text", "text": "What is it?"}]
    messages: Any = [{"role": "user", "content": content}]
    completion = client.chat.completions.create(model=MODEL, messages=messages, max_tokens=6)
    choice = completion.choices[0]
    assert choice.message.content == alone("What is it?", [image])
    assert (choice.message.role, choice.index, choice.finish_reason) == ("assistant", 0, "length")
    assert completion.object == "chat.completion" and completion.model == MODEL and completion.usage is not None
    usage = completion.usage
    assert usage.completion_tokens == 6 and usage.total_tokens == usage.prompt_tokens + 6
    assert usage.prompt_tokens_details is not None
    assert usage.prompt_tokens_details.model_dump()["image_tokens"] == 6
    extension = completion.model_dump()["convllava"]
    assert extension["images"] == [{"grid": [2, 3], "resolution": [128, 192], "visual_tokens": 6}]
    assert 0 < extension["timings"]["first_token_seconds"] < extension["timings"]["total_seconds"]


def test_openais_client_streams(client: openai.OpenAI, alone: Alone) -> None:
    image = noise(64, 130)
    messages: Any = [{"role": "user", "content": [image_part(image), {"type": "text", "text": "And this?"}]}]
    stream = client.chat.completions.create(
        model=MODEL, messages=messages, max_completion_tokens=9, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == alone("And this?", [image], max_new_tokens=9)
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [c.choices[0].finish_reason for c in chunks if c.choices and c.choices[0].finish_reason] == ["length"]
    assert chunks[-1].usage is not None and chunks[-1].usage.completion_tokens == 9 and chunks[-1].choices == []
    assert chunks[-2].model_dump()["convllava"]["images"][0]["grid"] == [2, 1]
    assert len({chunk.id for chunk in chunks}) == 1


def test_a_stream_without_usage(server: Running) -> None:
    reply = server.chat("Why?", stream=True)
    assert reply.headers["content-type"].startswith("text/event-stream")
    assert all(event["choices"] and "usage" not in event for event in reply.events)


def test_openais_client_raises_its_own_errors(client: openai.OpenAI) -> None:
    messages: Any = [{"role": "user", "content": "?"}]
    with pytest.raises(openai.NotFoundError, match="'gpt' does not exist: this server has 'tiny'") as missing:
        client.chat.completions.create(model="gpt", messages=messages)
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError, match="n: Input should be 1") as refused:
        client.chat.completions.create(model=MODEL, messages=messages, n=2)
    assert refused.value.param == "n"
    assert [model.id for model in client.models.list()] == [MODEL]
    assert client.models.retrieve(MODEL).model_dump()["convllava"]["output_stride"] == 64


def test_curl(server: Running, alone: Alone, tmp_path: Any) -> None:
    body = tmp_path / "body.json"
    body.write_text('{"messages": [{"role": "user", "content": "Why?"}], "max_tokens": 6}')
    command = ["curl", "-sS", f"{server.url}/v1/chat/completions", "-H", "Content-Type: application/json"]
    try:
        done = subprocess.run([*command, "-d", f"@{body}"], capture_output=True, text=True, timeout=60)
    except FileNotFoundError:
        pytest.skip("curl is not installed")
    assert json.loads(done.stdout)["choices"][0]["message"]["content"] == alone("Why?")


def test_curl_as_the_readme_says(server: Running, repository: Path, tmp_path: Path) -> None:
    text = (repository / "README.md").read_text(encoding="utf-8")
    command = text[text.index("$ curl http://127.0.0.1:8000") :].partition("```")[0][2:]
    image = tmp_path / "documents" / "images" / "0000000.png"
    image.parent.mkdir(parents=True)
    image.write_bytes(encoded(noise(128, 64)))
    command = command.replace("http://127.0.0.1:8000", server.url).replace("curl ", "curl -sS ", 1)
    if shutil.which("curl") is None or shutil.which("base64") is None:
        pytest.skip("curl or base64 is not installed")
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert json.loads(done.stdout)["usage"]["prompt_tokens_details"]["image_tokens"] == 2, done


def test_several_images_and_turns(server: Running, loaded: Any) -> None:
    from convllava.inference import Generator, Request

    first, second = noise(130, 130, 1), noise(64, 192, 2)
    parts = [
        {"type": "text", "text": "Compare"},
        image_part(first),
        {"type": "text", "text": "and"},
        image_part(second),
    ]
    messages = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": parts},
        {"role": "assistant", "content": [{"type": "text", "text": "Both."}]},
        {"role": "user", "content": "Why?"},
    ]
    reply = server.post("/v1/chat/completions", {"messages": messages, "max_tokens": 8})
    plain = [{"type": "text", "text": "Compare"}, {"type": "image"}, {"type": "text", "text": "and"}, {"type": "image"}]
    asked = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": plain}, *messages[2:]]
    expected = Generator(*loaded).generate([Request(messages=asked, images=[first, second], max_new_tokens=8)])[0]
    assert reply.json["choices"][0]["message"]["content"] == expected.text
    assert reply.json["usage"]["prompt_tokens"] == expected.num_prompt_tokens


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP"])
def test_kinds_of_images(server: Running, kind: str) -> None:
    reply = server.chat("?", [data_url(encoded(noise(128, 64), kind), kind.lower())])
    assert reply.status == 200 and reply.json["convllava"]["images"][0]["grid"] == [1, 2]


@pytest.mark.parametrize(
    ("options", "grid"),
    [
        ({}, [3, 4]),
        ({"max_visual_tokens": 4}, [2, 2]),
        ({"resolution": 64}, [1, 1]),
        ({"image_aspect_ratio": "pad", "resolution": 128}, [2, 2]),
    ],
)
def test_image_options(server: Running, options: dict[str, Any], grid: list[int]) -> None:
    reply = server.chat("?", [noise(256, 192)], **options)
    assert reply.json["convllava"]["images"][0]["grid"] == grid


def test_boxes_are_about_one_image(server: Running) -> None:
    images = [noise(128, 64), noise(64, 128)]
    for question, options, expected in [
        ("Where?", {}, 1),
        ("Where in the first image?", {}, 0),
        ("Where?", {"box_image": 0}, 0),
        ("Where?", {"box_image": None}, 1),
    ]:
        assert server.chat(question, images, **options).json["convllava"]["box_image"] == expected
    assert server.chat("Where?", [], box_image=None).json["convllava"]["box_image"] is None
    refused = server.chat("Where?", images, box_image=2)
    assert refused.status == 400 and "box_image is 2, but the request has 2 images" in refused.error["message"]


def test_detail_is_a_budget(server: Running) -> None:
    large = noise(640, 768)

    def grid(detail: str, **options: Any) -> list[int]:
        content = [image_part(large, detail), {"type": "text", "text": "?"}]
        return server.chat(content, **options).json["convllava"]["images"][0]["grid"]

    assert grid("high") == grid("auto") == [12, 10]
    rows, columns = grid("low")
    assert 48 <= rows * columns <= 64
    assert grid("low", max_visual_tokens=4) == [2, 2] or grid("low", max_visual_tokens=4)[0] <= 4
    mixed = server.chat([image_part(large, "low"), image_part(large, "original"), {"type": "text", "text": "?"}])
    grids = [image["grid"] for image in mixed.json["convllava"]["images"]]
    assert grids[1] == [12, 10] and grids[0] == [rows, columns]


def test_a_image_without_words(server: Running) -> None:
    assert server.chat([image_part(noise(64, 64))]).status == 200


def test_stop_and_seed_and_temperature(server: Running, alone: Alone) -> None:
    text = alone("What is the capital of France?", max_new_tokens=20)
    stop = text[3:6]
    reply = server.chat("What is the capital of France?", max_tokens=20, stop=stop)
    choice = reply.json["choices"][0]
    assert choice["message"]["content"] == text[: text.index(stop)] and choice["finish_reason"] == "stop"
    drawn = [
        server.chat("Say.", temperature=1.5, seed=seed).json["choices"][0]["message"]["content"] for seed in (1, 1, 2)
    ]
    assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.parametrize(
    "options",
    [
        {"no_repeat_ngram_size": 1, "no_repeat_ngram_window": 50},
        {"repetition_penalty": 1.7},
        {"temperature": 1.5, "seed": 3, "top_k": 2},
        {"temperature": 1.5, "seed": 3, "min_p": 0.9},
    ],
)
def test_options_of_sampling_reach_the_generator(server: Running, alone: Alone, options: dict[str, Any]) -> None:
    reply = server.chat("Say it.", max_tokens=20, **options)
    assert reply.json["choices"][0]["message"]["content"] == alone("Say it.", max_new_tokens=20, **options)
    assert reply.json["choices"][0]["message"]["content"] != alone("Say it.", max_new_tokens=20)


def test_an_answer_in_a_loop_says_so(serve: Serve, loaded: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    bias = [[[loaded[1].tokenizer.convert_tokens_to_ids("a")], 1000.0]]
    monkeypatch.setattr(loaded[0].generation_config, "sequence_bias", bias)
    with serve() as server:
        reply = server.chat("What is the capital of France?", max_tokens=200).json
        streamed = server.chat("What is the capital of France?", max_tokens=200, stream=True).events[-1]
    assert reply["choices"][0]["finish_reason"] == "length"  # OpenAI's clients know no other word
    assert reply["convllava"]["finish_reason"] == streamed["convllava"]["finish_reason"] == "repetition"
    assert reply["usage"]["completion_tokens"] == 128


def test_what_clients_send_although_it_says_nothing(server: Running) -> None:
    neutral: dict[str, Any] = {
        "n": 1,
        "frequency_penalty": 0,
        "presence_penalty": 0.0,
        "logprobs": False,
        "tools": [],
        "tool_choice": "none",
        "user": "me",
        "metadata": {"a": "b"},
        "stop": None,
        "top_p": None,
        "store": False,
        "top_logprobs": None,
        "logit_bias": {},
        "parallel_tool_calls": True,
        "service_tier": "auto",
        "modalities": ["text"],
        "prediction": None,
        "audio": None,
        "web_search_options": None,
        "top_k": -1,
        "min_p": 0,
        "no_repeat_ngram_size": 0,
        "no_repeat_ngram_window": None,
        "stop_on_repetition": True,
        "repetition_penalty": 1,
        "chat_template_kwargs": {},
        "stream_options": {"include_usage": None},
        "response_format": {"type": "text", "json_schema": None},
    }
    assert server.post("/v1/estimate", {"sizes": [[64, 64]], "num_text_characters": None}).status == 200
    assert server.chat("?", **neutral).status == 200


def test_a_further_turn_reuses_what_was_computed(server: Running, alone: Alone) -> None:
    image = noise(192, 192, 77)
    question = {"role": "user", "content": [image_part(image), {"type": "text", "text": "What do you see here?"}]}
    body = {"messages": [question], "max_tokens": 6}
    first = server.post("/v1/chat/completions", body).json
    assert first["usage"]["prompt_tokens_details"]["cached_tokens"] == 0
    again = server.post("/v1/chat/completions", body).json
    assert again["usage"]["prompt_tokens_details"]["cached_tokens"] == 0  # only the dialogue itself may continue
    assert again["choices"] == first["choices"]


def test_holders_of_the_key_share_prefixes(serve: Serve) -> None:
    with serve(api_key="right-key") as server:
        used = [
            server.post(
                "/v1/chat/completions",
                {"messages": [{"role": "user", "content": "What is it? " * 9}], "max_tokens": 4},
                Authorization="Bearer right-key",
            ).json["usage"]
            for _ in range(2)
        ]
    assert used[0]["prompt_tokens_details"]["cached_tokens"] == 0
    assert used[1]["prompt_tokens_details"]["cached_tokens"] == used[1]["prompt_tokens"] - 1


def test_a_guess_of_another_prompt_shows_in_no_counter(serve: Serve) -> None:
    secret = "My password is hunter2, keep it to yourself. " * 3
    with serve() as server:
        server.chat(secret)
        for guess in (secret, secret[:-2], secret[:70]):
            assert server.chat(guess).json["usage"]["prompt_tokens_details"]["cached_tokens"] == 0


@pytest.mark.parametrize(
    ("change", "param", "message"),
    [
        ({"n": 2}, "n", "Input should be 1"),
        ({"maxtokens": 3}, "maxtokens", "did you mean max_tokens"),
        ({"temperature": 3}, "temperature", "less than or equal to 2"),
        ({"temperature": "0"}, "temperature", "valid number"),
        ({"top_p": 0}, "top_p", "greater than 0"),
        ({"max_tokens": 0}, "max_tokens", "greater than or equal to 1"),
        ({"max_tokens": 5, "max_completion_tokens": 6}, None, "give one of them"),
        ({"stop": ["a", "b", "c", "d", "e"]}, "stop", "at most 4"),
        ({"stop": ""}, "stop", "at least 1"),
        ({"prediction": {"type": "content", "content": ""}}, "prediction", "unknown parameter prediction"),
        ({"stop": "x" * 1025}, "stop", "at most 1024"),
        ({"metadata": {str(n): "" for n in range(17)}}, "metadata", "17 entries, at most 16"),
        ({f"k{n}": 1 for n in range(80)}, None, "keys, at most 64"),
        ({"messages": [1] * 1001}, "messages", "at most 1000"),
        ({"messages": [{"role": "user", "content": [{"type": "file"}]}]}, "messages[0]", "render the pages of a PDF"),
        ({"top_k": -2}, "top_k", "greater than or equal to -1"),
        ({"top_k": 10**30}, "top_k", "less than"),
        ({"min_p": 1.5}, "min_p", "less than or equal to 1"),
        ({"no_repeat_ngram_size": 10**9}, "no_repeat_ngram_size", "less than or equal to 1000"),
        ({"no_repeat_ngram_window": 0}, "no_repeat_ngram_window", "greater than or equal to 1"),
        ({"stop_on_repetition": "no"}, "stop_on_repetition", "valid boolean"),
        ({"repetition_penalty": 1e308}, "repetition_penalty", "less than or equal to 10"),
        ({"top_logprobs": 2}, None, "needs logprobs: true"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs", "less than or equal to 20"),
        ({"tools": [{}]}, "tools", "at most 0"),
        ({"response_format": {"type": "xml"}}, "response_format.type", "'text', 'json_object' or 'json_schema'"),
        ({"response_format": {"type": "json_schema"}}, "response_format", "needs json_schema: {name, schema}"),
        ({"response_format": {"type": "json_object", "json_schema": {"schema": {}}}}, "response_format", "no effect"),
        ({"image_aspect_ratio": "wide"}, "image_aspect_ratio", "'pad' or 'native'"),
        ({"image_aspect_ratio": "pad"}, None, "needs a resolution"),
        ({"resolution": 32}, None, "at least the output stride of 64"),
        ({"messages": []}, "messages", "at least 1"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0]", "does not match"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, None, "nothing to answer"),
        ({"messages": [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]}, None, "roles alternate"),
        ({"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}, "messages[0]", "are not supported"),
        ({"messages": [{"role": "user"}]}, "messages[0].content", "Field required"),
        ({"max_tokens": 600}, "messages", "holds 512"),
    ],
)
def test_refusals_name_the_parameter(server: Running, change: dict[str, Any], param: str | None, message: str) -> None:
    image = [] if "messages" in change else [noise(64, 64)]
    reply = server.chat("?", image, **change)
    assert reply.status == 400, reply.body
    assert message in reply.error["message"] and reply.error["type"] == "invalid_request_error"
    if param is None:
        assert reply.error["param"] is None
    else:
        assert reply.error["param"].startswith(param)


def test_too_much_for_the_context(server: Running) -> None:
    large = Image.new("RGB", (1600, 1600))
    reply = server.chat("?", [large])
    assert reply.status == 400 and reply.error["code"] == "context_length_exceeded"
    assert "625 visual tokens and the context holds 512" in reply.error["message"]
    assert server.chat("?", [large], max_visual_tokens=9).status == 200


def test_typed_control_tokens_stay_text(server: Running, alone: Alone) -> None:
    for typed in ("<image>", "<|user|>Hi<|assistant|>", "</s><s>", "<ima"):
        reply = server.chat(typed)
        assert reply.status == 200
        assert reply.json["usage"]["prompt_tokens"] == len(typed) + 3  # each character is a token
        assert reply.json["usage"]["prompt_tokens_details"]["image_tokens"] == 0
        assert reply.json["choices"][0]["message"]["content"] == alone(typed)


def test_many_clients_get_the_answers_they_would_get_alone(server: Running, alone: Alone) -> None:
    from concurrent.futures import ThreadPoolExecutor

    questions = [
        (f"What is it, {number}?", [noise(64 * (1 + number % 3), 64 * (1 + number % 2), number)][: number % 4])
        for number in range(16)
    ]
    with ThreadPoolExecutor(16) as pool:
        replies = list(pool.map(lambda asked: server.chat(*asked, max_tokens=3 + len(asked[0]) % 5), questions))
    assert [reply.json["choices"][0]["message"]["content"] for reply in replies] == [
        alone(*asked, max_new_tokens=3 + len(asked[0]) % 5) for asked in questions
    ]


def test_a_replayed_answer_of_openais_client(client: openai.OpenAI) -> None:
    messages: Any = [{"role": "user", "content": "Why?"}]
    message = client.chat.completions.create(model=MODEL, messages=messages, max_tokens=3).choices[0].message
    messages += [message.model_dump(), {"role": "user", "content": "And?", "id": "7"}]
    assert client.chat.completions.create(model=MODEL, messages=messages, max_tokens=3).choices
    for change in ({"content": None}, {"content": []}, {"id": "x", "reasoning_content": "", "tool_calls": []}):
        messages[1] = {"role": "assistant", "content": "Yes.", **change}
        assert client.chat.completions.create(model=MODEL, messages=messages, max_tokens=3).choices


@pytest.mark.parametrize(
    "url",
    [
        lambda text: "data:image/png;base64," + "\r\n".join(text[at : at + 76] for at in range(0, len(text), 76)),
        lambda text: " data:image/png;base64," + text,
        lambda text: "DATA:IMAGE/PNG;charset=utf-8;BASE64," + text,
        lambda text: "data:application/octet-stream;base64," + text,
        lambda text: "data:image/png;base64," + text.replace("+", "-").replace("/", "_").rstrip("="),
    ],
)
def test_forms_of_data_urls(server: Running, url: Callable[[str], str]) -> None:
    text = data_url(encoded(noise(64, 64))).partition(",")[2]
    assert server.chat([{"type": "image_url", "image_url": url(text)}]).status == 200


def test_paths_of_other_apis_are_answered_with_a_hint(server: Running) -> None:
    assert "/v1/chat/completions" in server.post("/v1/completions", {}).error["message"]
    assert "use /v1/chat/completions" in server.post("/chat/completions", {}).error["message"]


def test_models(server: Running) -> None:
    (card,) = server.get("/v1/models").json["data"]
    assert card["id"] == MODEL and card["object"] == "model"
    assert card["convllava"]["context"] == 512 and card["convllava"]["image_aspect_ratio"] == "native"
    limits = card["convllava"]
    assert card["max_model_len"] == 512 and limits["max_visual_tokens"] is None
    assert limits["max_visual_tokens_low_detail"] == 64
    assert limits["trained_visual_tokens"] is None
    assert limits["max_visual_tokens_together"] == 511 and limits["input_modalities"] == ["text", "image"]
    assert server.get(f"/v1/models/{MODEL}").json == card
    assert server.get("/v1/models/other").status == 404


def test_image_options_of_the_server(serve: Serve) -> None:
    with serve(image_options=ImageOptions(max_visual_tokens=4)) as server:
        grids = [
            server.chat("?", [noise(256, 192)], **options).json["convllava"]["images"][0]["grid"]
            for options in ({}, {"max_visual_tokens": 12}, {"image_aspect_ratio": "pad", "resolution": 64})
        ]
        assert grids == [[2, 2], [3, 4], [1, 1]]
        assert server.post("/v1/estimate", {"sizes": [[256, 192]]}).json["visual_tokens"] == 4
        assert server.get("/v1/models").json["data"][0]["convllava"]["max_visual_tokens"] == 4


def test_pages_of_other_origins(serve: Serve) -> None:
    ask = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,content-type"}
    with serve(cors_origins=("https://a.example",), api_key="key") as server:
        allowed = server.request("OPTIONS", "/v1/chat/completions", Origin="https://a.example", **ask)
        assert allowed.status == 200 and allowed.headers["access-control-allow-origin"] == "https://a.example"
        assert "authorization" in allowed.headers["access-control-allow-headers"]
        refused = server.request("OPTIONS", "/v1/chat/completions", Origin="https://b.example", **ask)
        assert refused.status == 400 and "access-control-allow-origin" not in refused.headers
        reply = server.get("/v1/models", Origin="https://a.example", Authorization="Bearer key")
        assert reply.headers["access-control-allow-origin"] == "https://a.example"
    with pytest.raises(ValueError, match=r"'a.example' is not the origin of a page: give http\(s\)://HOST"):
        Settings(model_name="x", cors_origins=("a.example",))


def test_a_server_behind_a_path(serve: Serve) -> None:
    with serve(root_path="/vision/one") as server:
        for prefix in ("", "/vision/one"):  # with and without a proxy that removes it
            assert server.get(f"{prefix}/health").status == 200
            assert server.get(f"{prefix}/v1/models/{MODEL}").status == 200
            assert b"api.js" in server.get(f"{prefix}/static/app.js").body
            assert b'"static/app.js"' in server.get(f"{prefix}/").body
        assert server.get("/vision/one").headers["location"].endswith("/vision/one/")
        assert server.get("/openapi.json").json["servers"] == [{"url": "/vision/one"}]
        assert 'route="/v1/models/{name:path}"' in server.get("/metrics").body.decode()
    with pytest.raises(ValueError, match="root_path 'vision' must be like /vision"):
        Settings(model_name="x", root_path="vision")


def test_unknown_paths_and_methods(server: Running) -> None:
    assert server.get("/v1/embeddings").error["code"] == "not_found"
    assert server.get("/v1/chat/completions").status == 405
    assert server.get("/static/../app.py").status in (400, 404)
    assert server.get("/static/%2e%2e/app.py").status == 404


def test_estimates(server: Running) -> None:
    server.chat("?", [noise(64, 64)])
    asked = {"sizes": [[256, 192], [64, 64]], "max_visual_tokens": 6, "num_text_characters": 100}
    estimate = server.post("/v1/estimate", asked).json
    assert [image["grid"] for image in estimate["images"]] == [[2, 3], [1, 1]] and estimate["visual_tokens"] == 7
    assert estimate["context"] == 512
    assert server.post("/v1/estimate", {"sizes": [[1]]}).error["param"].startswith("sizes")
    wrong = server.post("/v1/estimate", {"sizes": [[1, 1]], "image_aspect_ratio": "pad"})
    assert wrong.status == 400 and "needs a resolution" in wrong.error["message"]


def test_health_and_metrics(serve: Serve) -> None:
    with serve() as server:
        assert server.get("/health").json == {"live": True, "ready": True, "running": 0, "waiting": 0}
        assert server.get("/health/live").json == {"live": True}
        server.chat("?", [noise(128, 64)])
        server.post("/v1/chat/completions", b"{")
        metrics = server.get("/metrics").body.decode()
        server.engine.draining = True
        assert server.get("/health").status == 503
        refused = server.chat("?")
        assert refused.status == 503 and refused.headers["retry-after"] == "5"
    for line in (
        'convllava_requests_total{route="/v1/chat/completions",status="200"} 1.0',
        'convllava_requests_total{route="/v1/chat/completions",status="400"} 1.0',
        "convllava_visual_tokens_total 2.0",
        "convllava_generated_tokens_total 6.0",
        "convllava_time_to_first_token_seconds_count 1.0",
        "convllava_waiting_requests 0.0",
    ):
        assert line in metrics.splitlines(), line
    assert "convllava_process_resident_memory_bytes" in metrics and "convllava_batch_size_bucket" in metrics
