"""Answers do not depend on company, and are those of `model.generate`."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from PIL import Image

from convllava.inference import Answer, Event, Failed, Finished, Generator, Request, TextDelta
from convllava.inference.kv_cache import SlabLayer
from convllava.inference.prompt import new_tokens
from convllava.model import ConvLlavaForConditionalGeneration, ConvLlavaProcessor

Loaded = tuple[ConvLlavaForConditionalGeneration, ConvLlavaProcessor]


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    pixels = torch.randint(0, 256, (height, width, 3), generator=torch.Generator().manual_seed(seed))
    return Image.fromarray(pixels.to(torch.uint8).numpy())


DIALOGUE = [
    {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is it?"}]},
    {"role": "assistant", "content": "A box."},
    {"role": "user", "content": "And how big?"},
]

REQUESTS = [
    Request.of_question("Read this.", [noise(192, 70)], max_new_tokens=10),
    Request.of_question("What is the capital of France?", max_new_tokens=8),
    Request.of_question("Compare.", [noise(130, 130, 1), noise(64, 200, 2)], max_new_tokens=12),
    Request(messages=DIALOGUE, images=[noise(70, 192, 3)], max_new_tokens=10),
    Request.of_question("Why?", [noise(192, 70, 4)], image_aspect_ratio="pad", resolution=192, max_new_tokens=10),
    Request.of_question("Hm?", [noise(300, 200, 5)], max_visual_tokens=2, max_new_tokens=3),
]


@pytest.fixture
def generator(tiny: Loaded) -> Generator:
    return Generator(*tiny)


@pytest.fixture
def settings(tiny: Loaded, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Set a value of the model's generation config for one test."""
    return lambda name, value: monkeypatch.setattr(tiny[0].generation_config, name, value)


def by_generate(loaded: Loaded, request: Request) -> tuple[int, ...]:
    model, processor = loaded
    inputs = processor.apply_chat_template(
        [request.messages],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        processor_kwargs={"images": [list(request.images)], "return_tensors": "pt", **request.image_options.given()},
    )
    output = model.generate(**inputs, max_new_tokens=request.max_new_tokens, do_sample=False)
    return tuple(output[0, inputs["input_ids"].shape[1] :].tolist())


def run(generator: Generator, requests: list[Request]) -> dict[int, list[Event]]:
    events: dict[int, list[Event]] = {generator.submit(request): [] for request in requests}
    while generator.is_busy:
        for event in generator.step():
            events[event.request_id].append(event)
    return events


def test_batched_equals_one_by_one_equals_generate(tiny: Loaded, generator: Generator) -> None:
    batched = generator.generate(REQUESTS)
    alone = [generator.generate([request])[0] for request in REQUESTS]
    assert [answer.token_ids for answer in batched] == [answer.token_ids for answer in alone]
    assert [answer.text for answer in batched] == [answer.text for answer in alone]
    assert [answer.token_ids for answer in batched] == [by_generate(tiny, request) for request in REQUESTS]


def test_a_static_cache_gives_the_same_answers_and_is_allocated_once(
    tiny: Loaded, generator: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    allocated: list[int] = []
    reallocate = SlabLayer._reallocate

    def counted(layer: SlabLayer, sequences: int, positions: int) -> None:
        reallocate(layer, sequences, positions)
        allocated.append(layer.allocated[0])

    monkeypatch.setattr(SlabLayer, "_reallocate", counted)
    static = Generator(*tiny, max_batch=len(REQUESTS), static_cache=True)
    answers = [static.generate([request])[0] for request in REQUESTS]
    assert [answer.token_ids for answer in answers] == [answer.token_ids for answer in generator.generate(REQUESTS)]
    layers = tiny[0].config.text_config.num_hidden_layers
    assert allocated[:layers] == [len(REQUESTS)] * layers
    assert len(allocated) <= layers * len(REQUESTS)


def test_images_make_a_difference(generator: Generator) -> None:
    answers = [
        generator.generate([Request.of_question("What?", [noise(128, 128, seed)], max_new_tokens=6)])[0]
        for seed in (0, 1)
    ]
    assert answers[0].token_ids != answers[1].token_ids


def test_counts_and_grids(generator: Generator) -> None:
    answers = generator.generate(REQUESTS)
    assert [answer.grids for answer in answers] == [
        ((1, 3),),
        (),
        ((2, 2), (3, 1)),
        ((3, 1),),
        ((3, 3),),
        ((1, 2),),
    ]
    assert [answer.num_image_tokens for answer in answers] == [3, 0, 7, 3, 9, 2]
    assert answers[2].image_sizes == ((128, 128), (192, 64))
    assert all(answer.num_prompt_tokens > answer.num_image_tokens for answer in answers)
    assert answers[1].boxes == () and answers[1].timings.encode_seconds == 0.0
    timings = answers[0].timings
    assert 0 < timings.encode_seconds < timings.first_token_seconds < timings.total_seconds


def test_deltas_make_up_the_answer(tiny: Loaded, generator: Generator) -> None:
    for events in run(generator, REQUESTS).values():
        *deltas, finished = events
        assert isinstance(finished, Finished)
        assert all(isinstance(delta, TextDelta) and delta.text for delta in deltas)
        assert "".join(delta.text for delta in deltas) == finished.answer.text
        ended = finished.answer.token_ids[-1] == tiny[1].tokenizer.eos_token_id
        assert finished.answer.finish_reason == ("stop" if ended else "length")


def test_more_requests_than_a_batch_holds(tiny: Loaded) -> None:
    expected = Generator(*tiny).generate(REQUESTS)
    generator = Generator(*tiny, max_batch=2)
    answers = [events[-1] for events in run(generator, REQUESTS).values()]
    assert [event.answer.token_ids for event in answers if isinstance(event, Finished)] == [
        answer.token_ids for answer in expected
    ]


def test_requests_are_read_when_needed(tiny: Loaded) -> None:
    taken: list[int] = []

    def requests() -> Iterator[Request]:
        for number in range(4):
            taken.append(number)
            yield Request.of_question(f"{number}?", max_new_tokens=1)

    generator = Generator(*tiny, max_batch=2)
    ahead: list[int] = []
    submit = generator.submit

    def counted(request: Request) -> int:
        ahead.append(len(taken) - sum(1 for _ in finished))
        return submit(request)

    finished: list[int] = []
    step = generator.step

    def watched() -> list[Event]:
        events = step()
        finished.extend(event.request_id for event in events if isinstance(event, Finished))
        return events

    generator.submit, generator.step = counted, watched  # type: ignore[method-assign, assignment]
    assert len(generator.generate(requests())) == 4
    assert max(ahead) == 2


def test_end_token(generator: Generator, tiny: Loaded, settings: Any) -> None:
    whole = generator.generate(REQUESTS)
    third = whole[0].token_ids[2]
    settings("eos_token_id", [third, 2])
    cut = Generator(*tiny).generate(REQUESTS)
    assert cut[0].token_ids == whole[0].token_ids[: whole[0].token_ids.index(third) + 1]
    assert cut[0].finish_reason == "stop"
    assert whole[0].text.startswith(cut[0].text)
    for before, after in zip(whole, cut, strict=True):  # nobody else is disturbed by a row that leaves
        assert before.token_ids[: len(after.token_ids)] == after.token_ids


def test_suppressed_tokens(generator: Generator, tiny: Loaded, settings: Any) -> None:
    first = generator.generate(REQUESTS[:1])[0].token_ids[0]
    settings("suppress_tokens", [first, tiny[0].config.image_token_id])
    answer = Generator(*tiny).generate(REQUESTS[:1])[0]
    assert first not in answer.token_ids
    assert answer.token_ids == by_generate(tiny, REQUESTS[0])


def test_the_image_token_is_never_written(tiny: Loaded, settings: Any) -> None:
    settings("suppress_tokens", None)
    generator = Generator(*tiny)
    logits = torch.zeros(1, tiny[0].config.text_config.vocab_size)
    logits[0, tiny[0].config.image_token_id] = 9.0
    generator.submit(REQUESTS[1])
    generator.step()
    generator._append_tokens(list(generator._running), logits)
    assert generator._running[0].token_ids[-1] == 0


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("repetition_penalty", 1.5),
        ("no_repeat_ngram_size", 1),
        ("no_repeat_ngram_size", 2),
        ("bad_words_ids", [[5], [40, 41]]),
        ("sequence_bias", [[[45], 9.0]]),
        ("min_new_tokens", 6),
        ("min_length", 20),
        ("begin_suppress_tokens", [2, 60]),
        ("exponential_decay_length_penalty", (2, 1.5)),
    ],
)
def test_settings_of_the_checkpoint(tiny: Loaded, settings: Any, name: str, value: Any) -> None:
    settings(name, value)
    answers = Generator(*tiny).generate(REQUESTS[:3])
    assert [answer.token_ids for answer in answers] == [by_generate(tiny, r) for r in REQUESTS[:3]]


def test_stop_texts(generator: Generator, tiny: Loaded) -> None:
    question = "What is the capital of France?"
    text = generator.generate([Request.of_question(question, max_new_tokens=20)])[0].text
    stop = text[3:6]
    assert stop.strip()
    request = Request.of_question(question, max_new_tokens=20, stop=[stop, "no such text"])
    *deltas, finished = run(generator, [request])[1]
    assert isinstance(finished, Finished)
    assert finished.answer.text == text[: text.index(stop)] == "".join(d.text for d in deltas)
    assert finished.answer.finish_reason == "stop"


def test_cancel(generator: Generator) -> None:
    alone = [generator.generate([request])[0] for request in REQUESTS[:3]]
    ids = [generator.submit(request) for request in REQUESTS[:4]]
    generator.cancel(ids[3])  # still waiting
    events = generator.step() + generator.step()
    generator.cancel(ids[1])  # under way
    generator.cancel(ids[1])
    generator.cancel(999)
    late: list[Event] = []
    while generator.is_busy:
        late += generator.step()
    assert not {ids[1], ids[3]} & {event.request_id for event in late}
    answers = {event.request_id: event.answer for event in events + late if isinstance(event, Finished)}
    assert answers.keys() == {ids[0], ids[2]}
    assert [answers[ids[0]].token_ids, answers[ids[2]].token_ids] == [alone[0].token_ids, alone[2].token_ids]


def test_canceling_all_leaves_nothing(generator: Generator) -> None:
    identity = generator.submit(REQUESTS[0])
    generator.step()
    generator.cancel(identity)
    assert not generator.is_busy and generator.step() == []


def test_leaving_a_stream_cancels_it(generator: Generator) -> None:
    stream = generator.stream(REQUESTS[0])
    next(stream)
    with pytest.raises(ValueError, match="busy with 1 requests"):
        generator.generate(REQUESTS)
    stream.close()  # type: ignore[attr-defined]
    assert not generator.is_busy


def test_images_are_encoded_once(generator: Generator, tiny: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    shapes: list[tuple[int, ...]] = []
    encode = tiny[0].get_image_features

    def counted(pixel_values: torch.Tensor) -> Any:
        shapes.append(tuple(pixel_values.shape))
        return encode(pixel_values)

    monkeypatch.setattr(tiny[0], "get_image_features", counted)
    generator.generate([REQUESTS[0], REQUESTS[0], REQUESTS[2]])
    assert sorted(shapes) == [(1, 3, 64, 192), (1, 3, 128, 128), (1, 3, 192, 64)]
    generator.generate([REQUESTS[2], REQUESTS[0]])
    assert len(shapes) == 3


def test_images_of_one_shape_are_encoded_together(
    generator: Generator, tiny: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes: list[tuple[int, ...]] = []
    encode = tiny[0].get_image_features
    monkeypatch.setattr(
        tiny[0], "get_image_features", lambda pixels: shapes.append(tuple(pixels.shape)) or encode(pixels)
    )
    generator.generate([Request.of_question("?", [noise(130, 70, seed)], max_new_tokens=1) for seed in range(4)])
    assert shapes == [(4, 3, 64, 128)]


def test_sampling_is_repeatable_in_any_company(generator: Generator) -> None:
    drawn = Request.of_question("Say something.", max_new_tokens=8, temperature=1.5, top_p=0.9, seed=7)
    other = Request.of_question("Say something.", max_new_tokens=8, temperature=1.5, seed=8)
    alone = generator.generate([drawn])[0]
    together = generator.generate([REQUESTS[0], other, drawn])
    assert together[2].token_ids == alone.token_ids
    assert together[1].token_ids != alone.token_ids
    unseeded = Request.of_question("Say something.", max_new_tokens=8, temperature=3.0)
    first, second = generator.generate([unseeded, unseeded])
    assert first.token_ids != second.token_ids


def test_context_overflow_has_both_numbers(generator: Generator) -> None:
    with pytest.raises(ValueError, match="context holds 512") as excinfo:
        generator.submit(Request.of_question("x" * 600))
    assert "604 tokens" in str(excinfo.value)  # bos, user, assistant, and room for one
    with pytest.raises(ValueError, match=r"103 tokens and max_new_tokens is 410.*513.*holds 512.*to 409 or less"):
        generator.submit(Request.of_question("x" * 100, max_new_tokens=410))
    assert not generator.is_busy


def test_answers_are_as_long_as_fits() -> None:
    assert new_tokens(100, None, 2048) == 512
    assert new_tokens(2000, None, 2048) == 48
    assert new_tokens(2000, 48, 2048) == 48


def test_a_bad_request_leaves_the_generator_idle(generator: Generator) -> None:
    with pytest.raises(ValueError, match="does not exist"):
        generator.generate([REQUESTS[0], Request.of_question("What?", ["nowhere.png"])])
    assert not generator.is_busy


def test_images_within_messages(generator: Generator, tmp_path: Any) -> None:
    image = noise(192, 70)
    image.save(tmp_path / "p.png")
    content = [{"type": "image", "path": tmp_path / "p.png"}, {"type": "text", "text": "Read this."}]
    own = Request(messages=[{"role": "user", "content": content}], max_new_tokens=10)
    assert own.sources == [tmp_path / "p.png"]
    assert generator.generate([own])[0].token_ids == generator.generate(REQUESTS[:1])[0].token_ids


def test_placeholders_and_images_disagree(generator: Generator) -> None:
    with pytest.raises(ValueError, match="1 <image> placeholder but 2 images"):
        generator.submit(Request(messages=DIALOGUE, images=[noise(64, 64), noise(64, 64)]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens must be at least 1, got 0"),
        ({"temperature": -1.0}, "temperature must be from 0"),
        ({"temperature": float("nan")}, "temperature must be from 0"),
        ({"top_p": 0.0}, "top_p must be above 0"),
        ({"top_p": float("nan")}, "top_p must be above 0"),
        ({"top_k": -1}, "top_k must be at least 0, got -1"),
        ({"top_k": None}, "top_k must be a whole number at least 0, got None"),
        ({"top_k": 1.5}, "top_k must be a whole number at least 0, got 1.5"),
        ({"min_p": float("nan")}, "min_p must be from 0 to 1"),
        ({"min_p": True}, "min_p must be from 0 to 1"),
        ({"repetition_penalty": float("inf")}, "repetition_penalty must be from 0.1 to 10, got inf"),
        ({"no_repeat_ngram_size": 10**30}, "no_repeat_ngram_size must be from 0 to 1000"),
        ({"no_repeat_ngram_window": 0}, "no_repeat_ngram_window must be at least 1"),
        ({"seed": 2**64}, "seed must be from -9223372036854775808 to 18446744073709551615"),
        ({"seed": "7"}, "seed must be a whole number from"),
        ({"system": "\ud800"}, "has half of a character"),
        ({"stop": "text"}, "stop must be a list"),
        ({"stop": [""]}, "stop must be a list"),
    ],
)
def test_wrong_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Request.of_question("What?", **options)


@pytest.mark.parametrize("messages", [[], [{"role": "assistant", "content": "Hello."}]])
def test_nothing_to_answer(messages: list[dict[str, Any]]) -> None:
    with pytest.raises(ValueError, match="nothing to answer"):
        Request(messages=messages)


def test_an_empty_question() -> None:
    with pytest.raises(ValueError, match="question is empty"):
        Request.of_question(" \n")


def test_max_batch(tiny: Loaded) -> None:
    with pytest.raises(ValueError, match="at least 1, got 0"):
        Generator(*tiny, max_batch=0)


def test_answers_are_values(generator: Generator) -> None:
    answer = generator.generate(REQUESTS[:1])[0]
    assert isinstance(answer, Answer) and isinstance(hash(answer), int)


@pytest.mark.parametrize("options", [{"temperature": 1e-320}, {"temperature": 1e-30}, {"top_p": 1e-320}])
def test_tiny_sampling_options_take_the_most_likely_token(tiny: Loaded, options: dict[str, float]) -> None:
    greedy = Generator(*tiny).answer(Request.of_question("Why?", max_new_tokens=5))
    sampled = Request.of_question("Why?", max_new_tokens=5, **{"temperature": 1.0, **options})
    assert Generator(*tiny).answer(sampled).token_ids == greedy.token_ids


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0, 1e9])
def test_impossible_temperatures_are_refused(value: float) -> None:
    with pytest.raises(ValueError, match="temperature must be from 0"):
        Request.of_question("Why?", temperature=value)


@pytest.mark.parametrize("part", ["sampler", "append"])
def test_an_error_while_a_token_is_chosen_or_read_fails_one_request(
    tiny: Loaded, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = Generator(*tiny).answer(REQUESTS[0])
    generator = Generator(*tiny)
    good, bad = generator.submit(REQUESTS[0]), generator.submit(Request.of_question("Why?", max_new_tokens=9))
    broken = generator._waiting[1]
    monkeypatch.setattr(broken, part, lambda *_: (_ for _ in ()).throw(RuntimeError("broken")))
    last: dict[int, Event] = {}
    while generator.is_busy:
        last |= {event.request_id: event for event in generator.step()}
    assert isinstance(last[bad], Failed)
    finished = last[good]
    assert isinstance(finished, Finished) and finished.answer.token_ids == expected.token_ids


def test_the_repetition_penalty_of_a_request(tiny: Loaded, settings: Any) -> None:
    own = Generator(*tiny).answer(Request.of_question("Why?", max_new_tokens=8, repetition_penalty=1.7))
    settings("repetition_penalty", 1.7)
    assert own.token_ids == Generator(*tiny).answer(Request.of_question("Why?", max_new_tokens=8)).token_ids
    with pytest.raises(ValueError, match="repetition_penalty must be from"):
        Request.of_question("Why?", repetition_penalty=0)


@pytest.mark.parametrize("name", ["no_repeat_ngram_size", "repetition_penalty"])
def test_a_request_goes_before_the_checkpoint(tiny: Loaded, settings: Any, name: str) -> None:
    value = {"no_repeat_ngram_size": 2, "repetition_penalty": 1.7}[name]
    plain = Generator(*tiny).answer(Request.of_question("Why?", max_new_tokens=8))
    settings(name, value)
    neutral = {"no_repeat_ngram_size": 0, "repetition_penalty": 1.0}[name]
    changed = Generator(*tiny).answer(Request.of_question("Why?", max_new_tokens=8, **{name: neutral}))
    assert changed.token_ids == plain.token_ids


def test_a_system_message_of_one_question() -> None:
    request = Request.of_question("Why?", system="Be brief.")
    assert [message["role"] for message in request.messages] == ["system", "user"]


def test_an_answer_that_loops_ends(tiny: Loaded, settings: Any) -> None:
    settings("sequence_bias", [[[tiny[1].tokenizer.convert_tokens_to_ids("a")], 1000.0]])  # "aaaa..."
    question = "What is the capital of France?"
    generator = Generator(*tiny)
    cut, whole, other = generator.generate(
        [
            Request.of_question(question, max_new_tokens=200),
            Request.of_question(question, max_new_tokens=200, stop_on_repetition=False),
            Request.of_question("Why?", max_new_tokens=20),
        ]
    )
    assert (cut.finish_reason, whole.finish_reason, other.finish_reason) == ("repetition", "length", "length")
    assert len(cut.token_ids) == 128 and cut.token_ids == whole.token_ids[: len(cut.token_ids)]
    assert whole.text.startswith(cut.text)
