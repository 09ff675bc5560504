"""Requests join and leave while others are answered, and nobody's answer changes."""

import itertools
import time
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tiny import tiny_model
from transformers.cache_utils import Cache, DynamicLayer

from convllava.inference import Answer, Failed, Finished, Generator, Request, TextDelta, prepare
from convllava.inference.generator import MAX_PIXELS_WHILE_DECODING
from convllava.inference.kv_cache import BatchCache
from convllava.inference.reuse import RecentlyUsed, common_length, signature
from convllava.model import ConvLlavaForConditionalGeneration, ConvLlavaProcessor

Loaded = tuple[ConvLlavaForConditionalGeneration, ConvLlavaProcessor]


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    pixels = torch.randint(0, 256, (height, width, 3), generator=torch.Generator().manual_seed(seed))
    return Image.fromarray(pixels.to(torch.uint8).numpy())


REQUESTS = [
    Request.of_question("Read this.", [noise(192, 70)], max_new_tokens=9),
    Request.of_question("What is the capital of France? " * 6, max_new_tokens=5),
    Request.of_question("Compare.", [noise(130, 130, 1), noise(64, 200, 2)], max_new_tokens=12),
    Request.of_question("Why?", [noise(192, 70, 4)], image_aspect_ratio="pad", resolution=192, max_new_tokens=1),
    Request.of_question("Hm?", [noise(300, 200, 5)], max_visual_tokens=2, max_new_tokens=3),
    Request.of_question("Read this.", [noise(192, 70)], max_new_tokens=7),
]


@pytest.fixture(scope="module")
def alone(tiny: Loaded) -> list[tuple[int, ...]]:
    """The answer of each request in no company."""
    return [Generator(*tiny).generate([request])[0].token_ids for request in REQUESTS]


def finished(events: list[Any]) -> dict[int, Answer]:
    return {event.request_id: event.answer for event in events if isinstance(event, Finished)}


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    arrivals=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 4)), min_size=1, max_size=9),
    canceled=st.sets(st.integers(0, 8), max_size=3),
    max_batch=st.integers(1, 4),
    prefix_cache_bytes=st.sampled_from([0, 100_000, 10_000_000]),
)
def test_whoever_comes_and_goes_answers_stay_the_same(
    tiny: Loaded,
    alone: list[tuple[int, ...]],
    arrivals: list[tuple[int, int]],
    canceled: set[int],
    max_batch: int,
    prefix_cache_bytes: int,
) -> None:
    generator = Generator(*tiny, max_batch=max_batch, prefix_cache_bytes=prefix_cache_bytes)
    requests: dict[int, int] = {}
    events: list[Any] = []
    for number, (which, steps) in enumerate(arrivals):
        identity = generator.submit(REQUESTS[which])
        requests[identity] = which
        for _ in range(steps):
            events += generator.step()
            assert generator.num_running <= max_batch
        if number in canceled:
            generator.cancel(identity)
            if identity not in finished(events):
                del requests[identity]
    while generator.is_busy:
        events += generator.step()
    answers = finished(events)
    assert answers.keys() == requests.keys()
    assert {identity: answer.token_ids for identity, answer in answers.items()} == {
        identity: alone[which] for identity, which in requests.items()
    }


def test_a_request_joins_those_under_way(tiny: Loaded) -> None:
    generator = Generator(*tiny)
    first = generator.submit(REQUESTS[2])
    generator.step()
    generator.step()
    second = generator.submit(REQUESTS[4])
    events = generator.step()
    assert {event.request_id for event in events} <= {first, second} and generator.num_running == 2
    while generator.num_running == 2:
        events += generator.step()
    assert list(finished(events)) == [second]


def test_first_come_first_served(tiny: Loaded) -> None:
    generator = Generator(*tiny, max_batch=2)
    submitted = {
        generator.submit(Request.of_question("?", max_new_tokens=n)): time.perf_counter() for n in (4, 2, 2, 3, 1)
    }
    events: list[Any] = []
    while generator.is_busy:
        events += generator.step()
    answers = finished(events)
    admitted = [moment + answers[identity].timings.queue_seconds for identity, moment in submitted.items()]
    # a moment passes between the generator's own look at the clock and ours
    assert all(later - earlier > -0.01 for earlier, later in itertools.pairwise(admitted)), admitted


def test_canceling_frees_the_slot_for_the_next_step(tiny: Loaded) -> None:
    generator = Generator(*tiny, max_batch=1)
    first, second = generator.submit(REQUESTS[2]), generator.submit(REQUESTS[0])
    generator.step()
    assert (generator.num_running, generator.num_waiting) == (1, 1)
    generator.cancel(first)
    assert {event.request_id for event in generator.step()} == {second}
    assert (generator.num_running, generator.num_waiting) == (1, 0)


def test_large_images_join_one_by_one_beside_others(tiny: Loaded) -> None:
    side = 832
    assert MAX_PIXELS_WHILE_DECODING < 2 * side**2 < 2 * MAX_PIXELS_WHILE_DECODING
    large = [Request.of_question("?", [noise(side, side, seed)], max_new_tokens=9) for seed in range(3)]
    generator = Generator(*tiny)
    for request in large:
        generator.submit(request)
    generator.step()
    assert generator.num_running == 3  # nobody else waits for a token
    generator = Generator(*tiny)
    generator.submit(REQUESTS[2])
    generator.step()
    for request in large:
        generator.submit(request)
    running = [generator.step() and generator.num_running for _ in range(3)]
    assert running == [2, 3, 4]


DIALOGUE: list[dict[str, Any]] = [
    {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is to be seen here?"}]},
]


def continued(answer: str, *further: Any) -> list[dict[str, Any]]:
    parts = [*further, {"type": "text", "text": "And how many?"}]
    return [*DIALOGUE, {"role": "assistant", "content": answer}, {"role": "user", "content": parts}]


@pytest.fixture
def talkative(monkeypatch: pytest.MonkeyPatch) -> Loaded:
    """A model whose answers are text that reads as it was written, so that a further turn begins the same."""
    model, processor = tiny_model()
    letters = processor.tokenizer.encode("abcdefghij ", add_special_tokens=False)
    others = sorted(set(range(model.config.text_config.vocab_size)) - set(letters))
    model.generation_config.suppress_tokens = others
    return model, processor


def test_a_further_turn_reads_only_what_is_new(talkative: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    model, _ = talkative
    generator = Generator(*talkative, prefix_cache_bytes=1 << 24)
    image, another = noise(192, 130), noise(130, 130, 1)
    first = generator.generate([Request(messages=DIALOGUE, images=[image], max_new_tokens=12)])[0]
    assert first.num_cached_tokens == 0
    encoded: list[Any] = []
    read: list[int] = []
    encode, forward = model.get_image_features, model.forward
    monkeypatch.setattr(model, "get_image_features", lambda pixels: encoded.append(pixels) or encode(pixels))
    monkeypatch.setattr(
        model, "forward", lambda **inputs: read.append(inputs["input_ids"].shape[1]) or forward(**inputs)
    )

    second = Request(messages=continued(first.text), images=[image], max_new_tokens=12)
    answer = generator.generate([second])[0]
    assert encoded == []
    assert answer.num_cached_tokens == first.num_prompt_tokens + 11  # the twelfth token was never read
    assert read[0] == answer.num_prompt_tokens - answer.num_cached_tokens

    third = Request(messages=continued(first.text, {"type": "image"}), images=[image, another], max_new_tokens=12)
    with_another = generator.generate([third])[0]
    assert [tuple(pixels.shape) for pixels in encoded] == [(1, 3, 128, 128)]
    monkeypatch.undo()
    plain = Generator(*talkative).generate([second, third])
    assert [answer.token_ids, with_another.token_ids] == [own.token_ids for own in plain]
    assert [own.num_cached_tokens for own in plain] == [0, 0]


def test_the_same_words_about_another_image_share_nothing(talkative: Loaded) -> None:
    generator = Generator(*talkative, prefix_cache_bytes=1 << 24)
    requests = [Request(messages=DIALOGUE, images=[noise(192, 130, seed)], max_new_tokens=6) for seed in (0, 1)]
    answers = [generator.generate([request])[0] for request in requests]
    assert [answer.num_cached_tokens for answer in answers] == [0, 0]
    assert [answer.token_ids for answer in answers] == [
        Generator(*talkative).generate([request])[0].token_ids for request in requests
    ]
    again = generator.generate([requests[0]])[0]
    assert again.num_cached_tokens == again.num_prompt_tokens - 1
    assert again.token_ids == answers[0].token_ids


def test_a_sliding_window_equals_generate() -> None:
    model, processor = tiny_model()
    config = type(model.config).from_dict(model.config.to_dict())
    values = {k: getattr(config.text_config, k) for k in ("vocab_size", "hidden_size", "intermediate_size")}
    text = {"model_type": "mistral", "sliding_window": 12, "num_hidden_layers": 2, "num_attention_heads": 2, **values}
    text |= {"num_key_value_heads": 1, "eos_token_id": 2, "pad_token_id": 0, "initializer_range": 0.2}
    torch.manual_seed(0)
    model = ConvLlavaForConditionalGeneration(
        type(config)(vision_config=config.vision_config, text_config=text, image_aspect_ratio="native")
    ).eval()
    requests = [REQUESTS[0], REQUESTS[2], REQUESTS[1]]
    answers = Generator(model, processor).generate(requests)
    for request, answer in zip(requests, answers, strict=True):
        inputs = processor.apply_chat_template(
            [request.messages],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            processor_kwargs={
                "images": [list(request.images)],
                "return_tensors": "pt",
                **request.image_options.given(),
            },
        )
        output = model.generate(**inputs, max_new_tokens=request.max_new_tokens, do_sample=False)
        assert answer.token_ids == tuple(output[0, inputs["input_ids"].shape[1] :].tolist())


def test_recurrent_language_models_are_refused(tiny: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiny[0].config.text_config, "layer_types", ["linear_attention"], raising=False)
    with pytest.raises(ValueError, match="linear_attention, which cannot be batched"):
        Generator(*tiny)


def test_only_the_image_that_fails_fails(
    tiny: Loaded, alone: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    encode = tiny[0].get_image_features

    def fragile(pixels: torch.Tensor) -> Any:
        if tuple(pixels.shape[-2:]) == (128, 128):
            raise RuntimeError("the device ran out of memory")
        return encode(pixels)

    monkeypatch.setattr(tiny[0], "get_image_features", fragile)
    generator = Generator(*tiny)
    ids = [generator.submit(REQUESTS[which]) for which in (0, 2, 1)]
    events: list[Any] = []
    while generator.is_busy:
        events += generator.step()
    failed = [event for event in events if isinstance(event, Failed)]
    assert [(event.request_id, str(event.error)) for event in failed] == [(ids[1], "the device ran out of memory")]
    answers = finished(events)
    assert [answers[ids[0]].token_ids, answers[ids[2]].token_ids] == [alone[0], alone[1]]
    with pytest.raises(RuntimeError, match="out of memory"):
        generator.generate([REQUESTS[2]])
    assert not generator.is_busy


def test_after_a_failed_step_the_generator_goes_on(
    tiny: Loaded, alone: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = Generator(*tiny)
    ids = [generator.submit(REQUESTS[which]) for which in (0, 2)]
    generator.step()
    with monkeypatch.context() as broken:
        broken.setattr(generator._batch, "decode", lambda tokens: (_ for _ in ()).throw(RuntimeError("gone")))
        events = generator.step()
    assert [(type(event), event.request_id) for event in events] == [(Failed, identity) for identity in ids]
    assert not generator.is_busy
    assert generator.generate([REQUESTS[0]])[0].token_ids == alone[0]


def test_prepared_elsewhere(tiny: Loaded, alone: list[tuple[int, ...]]) -> None:
    generator = Generator(*tiny)
    generator.submit(REQUESTS[0], prepare(REQUESTS[0], tiny[1], generator.context))
    events: list[Any] = []
    while generator.is_busy:
        events += generator.step()
    assert [answer.token_ids for answer in finished(events).values()] == [alone[0]]
    assert any(isinstance(event, TextDelta) for event in events)


def test_timings_tell_waiting_from_work(tiny: Loaded) -> None:
    generator = Generator(*tiny, max_batch=1)
    answers = [generator.submit(request) for request in (REQUESTS[2], REQUESTS[0])]
    events: list[Any] = []
    while generator.is_busy:
        events += generator.step()
    first, second = (finished(events)[identity].timings for identity in answers)
    assert first.queue_seconds < first.first_token_seconds < first.total_seconds
    assert first.total_seconds - first.queue_seconds <= second.queue_seconds < second.first_token_seconds


def filled(lengths: list[int], seed: int) -> tuple[Cache, list[torch.Tensor]]:
    """A cache of two layers as a prefill leaves it, and each row's own keys of the first layer."""
    torch.manual_seed(seed)
    cache = Cache(layer_class_to_replicate=DynamicLayer)
    for layer in range(2):
        states = torch.randn(len(lengths), 2, max(lengths), 4)
        cache.update(states, -states, layer)
    keys = cache.layers[0].keys
    return cache, [keys[row : row + 1, :, keys.shape[-2] - length :] for row, length in enumerate(lengths)]


@settings(max_examples=60, deadline=None)
@given(
    moves=st.lists(
        st.one_of(
            st.tuples(st.just("add"), st.lists(st.integers(1, 9), min_size=1, max_size=3)),
            st.tuples(st.just("grow"), st.integers(1, 200)),
            st.tuples(st.just("drop"), st.integers(0, 5)),
        ),
        max_size=12,
    )
)
def test_sequences_keep_their_keys(moves: list[tuple[str, Any]]) -> None:
    batch, expected = BatchCache(), list[torch.Tensor]()
    for number, (move, argument) in enumerate(moves):
        if move == "add":
            cache, keys = filled(argument, number)
            batch.add(cache, argument)
            expected += keys
        elif move == "drop" and argument < len(expected):
            batch.drop(argument)
            last = expected.pop()
            if argument < len(expected):
                expected[argument] = last
        elif move == "grow" and expected:
            for _ in range(argument):
                positions, mask = batch.grow()
                assert positions[:, 0].tolist() == [own.shape[-2] for own in expected]
                token = torch.randn(len(expected), 2, 1, 4)
                for layer in range(2):
                    seen, _ = batch.cache.update(token, -token, layer)
                assert seen.shape[-2] == mask.shape[1] and mask.sum(dim=1).tolist() == batch.lengths
                expected = [torch.cat([own, new[None]], dim=2) for own, new in zip(expected, token, strict=True)]
        assert batch.lengths == [own.shape[-2] for own in expected]
        for index, own in enumerate(expected):
            keys, values = batch.sequence(index)[0]
            assert torch.equal(keys, own) and torch.equal(values, -own)
            assert torch.isfinite(batch.cache.layers[0].keys).all()


def test_recently_used() -> None:
    kept: RecentlyUsed[str, bytes] = RecentlyUsed(10, len)
    kept.put("a", b"1234")
    kept.put("b", b"1234")
    assert kept.get("a") == b"1234"
    kept.put("c", b"1234")
    assert kept.get("b") is None and kept.get("a") and kept.num_bytes == 8
    kept.put("much", b"12345678901")
    assert kept.get("much") is None and len(kept) == 2
    kept.put("a", b"1")
    assert kept.num_bytes == 5


def test_signatures_tell_images_apart(tiny: Loaded) -> None:
    prompts = [prepare(Request.of_question("Why?", [noise(192, 64, seed)]), tiny[1], context=512) for seed in (0, 0, 1)]
    first, same, other = map(signature, prompts)
    assert torch.equal(first, same) and common_length(first, other) == 2  # <s> and <|user|>
    assert int((first < 0).sum()) == 3


def cached(generator: Generator, question: str, **options: Any) -> int:
    request = Request.of_question(question, max_new_tokens=4, **options)
    return generator.generate([request])[0].num_cached_tokens


def test_prefixes_are_reused_within_one_salt_only(talkative: Loaded) -> None:
    generator = Generator(*talkative, prefix_cache_bytes=1 << 24)
    secret = "My password is hunter2, keep it. " * 4
    assert cached(generator, secret, cache_salt="a") == 0
    assert cached(generator, secret, cache_salt="b") == 0
    assert cached(generator, secret, cache_salt="a") > 0


def test_a_guessed_beginning_reuses_nothing_where_only_dialogues_continue(talkative: Loaded) -> None:
    generator = Generator(*talkative, prefix_cache_bytes=1 << 24)
    secret = "My password is hunter2, keep it. " * 4
    first = Request.of_question(secret, max_new_tokens=4, reuse_dialogue_only=True)
    answer = generator.generate([first])[0]
    for guess in (secret, secret[:60], secret + "x"):
        assert cached(generator, guess, reuse_dialogue_only=True) == 0
    turns = [*first.messages, {"role": "assistant", "content": answer.text}, {"role": "user", "content": "And?"}]
    following = Request(messages=turns, max_new_tokens=4, reuse_dialogue_only=True)
    assert generator.generate([following])[0].num_cached_tokens >= answer.num_prompt_tokens


def test_features_of_images_are_reused_within_one_salt_only(tiny: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded: list[int] = []
    encode = tiny[0].get_image_features
    monkeypatch.setattr(
        tiny[0], "get_image_features", lambda pixels, *rest: encoded.append(len(pixels)) or encode(pixels, *rest)
    )
    generator = Generator(*tiny)
    for salt in ("a", "b", "a"):
        generator.generate([Request.of_question("?", [noise(64, 64)], max_new_tokens=1, cache_salt=salt)])
    assert encoded == [1, 1]
