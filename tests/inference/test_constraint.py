"""Answers follow a JSON schema, whatever else is in the batch."""

import json
import time
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from convllava.inference import Event, Failed, Finished, Generator, Request, TextDelta
from convllava.inference.constraint import Grammars
from convllava.json_schema import MAX_SCHEMA_BYTES, SchemaError, schema_text
from convllava.model import ConvLlavaForConditionalGeneration, ConvLlavaProcessor

pytest.importorskip("llguidance")

Loaded = tuple[ConvLlavaForConditionalGeneration, ConvLlavaProcessor]

RECEIPT = {
    "type": "object",
    "properties": {
        "total": {"type": "integer", "minimum": 0, "maximum": 99},
        "paid": {"type": "boolean"},
        "currency": {"enum": ["EUR", "USD"]},
    },
    "required": ["total", "paid", "currency"],
}


@pytest.fixture
def generator(tiny: Loaded) -> Generator:
    return Generator(*tiny)


def asked(question: str = "What is the total?", schema: Any = RECEIPT, **options: Any) -> Request:
    return Request.of_question(question, json_schema=schema, **{"max_new_tokens": 120, **options})


def test_an_answer_follows_the_schema(generator: Generator) -> None:
    answer = generator.answer(asked())
    value = json.loads(answer.text)
    assert list(value) == ["total", "paid", "currency"] and answer.finish_reason == "stop"
    assert 0 <= value["total"] <= 99 and isinstance(value["paid"], bool) and value["currency"] in ("EUR", "USD")
    assert answer.text == json.dumps(value)


def test_sampled_answers_follow_it_too(generator: Generator) -> None:
    requests = [asked(temperature=2.0, seed=seed) for seed in range(8)]
    values = [json.loads(answer.text) for answer in generator.generate(requests)]
    assert len({json.dumps(value) for value in values}) > 1


def test_neighbors_are_as_alone(generator: Generator) -> None:
    free = [Request.of_question(question, max_new_tokens=20) for question in ("Why?", "What is it?")]
    alone = [generator.answer(request) for request in [free[0], asked(), free[1]]]
    together = generator.generate([free[0], asked(), free[1]])
    assert [answer.token_ids for answer in together] == [answer.token_ids for answer in alone]


def test_it_streams(generator: Generator) -> None:
    *pieces, finished = generator.stream(asked())
    assert isinstance(finished, Finished)
    assert "".join(piece.text for piece in pieces if isinstance(piece, TextDelta)) == finished.answer.text


def test_a_cut_answer_says_so(generator: Generator) -> None:
    answer = generator.answer(asked(max_new_tokens=5))
    assert answer.finish_reason == "length" and len(answer.token_ids) == 5


def test_other_rules_cannot_make_an_answer_impossible(generator: Generator) -> None:
    schema = {"type": "array", "items": {"const": "ab"}, "minItems": 3, "maxItems": 3}
    assert json.loads(generator.answer(asked(schema=schema, no_repeat_ngram_size=1)).text) == ["ab"] * 3


def test_a_schema_is_compiled_once(generator: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    generator.answer(asked())
    monkeypatch.setattr(Grammars, "_compile", None)
    started = time.perf_counter()
    assert generator.grammars.constraint(json.loads(json.dumps(RECEIPT))) is not generator.grammars.constraint(RECEIPT)
    assert time.perf_counter() - started < 0.05


def test_listed_properties_are_all_there_are() -> None:
    assert json.loads(schema_text(RECEIPT))["additionalProperties"] is False
    for keep in ({"additionalProperties": {"type": "string"}}, {"anyOf": [{}]}):
        assert json.loads(schema_text(RECEIPT | keep)) == RECEIPT | keep
    both = {"allOf": [RECEIPT, {"properties": {"date": {"type": "string"}}}]}
    assert json.loads(schema_text(both)) == both


def nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(depth):
        schema = {"items": schema}
    return schema


HOSTILE: dict[str, tuple[Any, str]] = {
    "cycle": ({"$ref": "#"}, "allows no answer"),
    "cycle of two": ({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}, "no an"),
    "contradiction": ({"type": "string", "minLength": 5, "maxLength": 2}, "Unsatisfiable"),
    "empty choice": ({"enum": []}, "Unsatisfiable"),
    "required but impossible": ({"type": "object", "properties": {"a": False}, "required": ["a"]}, "Unsatisfiable"),
    "deep": (nested(10_000), "more than 64 levels"),
    "large": ({"enum": ["x" * 100] * 400}, f"at most {MAX_SCHEMA_BYTES} are allowed"),
    "no object": ([1], "must be an object, got list"),
    "nothing": (None, "must be an object"),
    "not a number": ({"const": float("nan")}, "is not JSON"),
    "a set": ({"enum": {1}}, "is not JSON"),
    "unknown type": ({"type": "wrong"}, "Invalid type"),
    "unknown keyword": ({"type": "array", "uniqueItems": True}, "uniqueItems"),
    "unknown format": ({"type": "string", "format": "unheard-of"}, "Unknown format"),
    "look-ahead": ({"type": "string", "pattern": "(?=a)b"}, "look-around"),
    "half a pattern": ({"type": "string", "pattern": "["}, "unclosed character class"),
    "another file": ({"$ref": "file:///etc/passwd"}, "does not fetch"),
    "another server": ({"$ref": "http://127.0.0.1:9/x.json"}, "does not fetch"),
    "many patterns": ({"type": "string", "allOf": [{"pattern": f"a.{{{n},}}b"} for n in range(30)]}, "takes more than"),
    "large multiple": ({"type": "integer", "multipleOf": 7919 * 7907}, "takes more than"),
    "half a character": ({"const": "\ud800"}, "JSON schema cannot be followed"),
    "end of the grammar": ({"const": 'x"}\nstart: "y'}, ""),
    "many digits": ({"type": "integer", "minimum": 0, "maximum": 10**400}, "number out of range"),
    "options of the library": ({"type": "object", "x-guidance": {"whitespace_pattern": "(a+)+"}}, ""),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_schemas(generator: Generator, name: str) -> None:
    schema, message = HOSTILE[name]
    started = time.process_time()
    try:
        request = asked(schema=schema, max_new_tokens=30)
        generator.grammars.constraint(request.json_schema)
    except SchemaError as error:
        assert message in str(error) and "\n" not in str(error) and len(str(error)) < 500
        assert message
    else:
        assert message == "", "it was compiled"
        assert generator.answer(request).finish_reason in ("stop", "length")
    assert time.process_time() - started < 2


PATTERNS = {
    "nested repeats": "^((a{1,1000}){1,1000}){1,1000}$",
    "nested stars": "^(a+)+$",
    "many gaps": "(x.*y.*z){500}",
    "looking back": "^.*a.{200}$",
    "looking back often": "^(.*a.{20}){20}$",
    "choices": "^(" + "|".join(f".*{chr(97 + n % 26)}.{{{n}}}" for n in range(60)) + ")$",
}


@pytest.mark.parametrize("name", PATTERNS)
def test_patterns_end_in_time_and_leave_neighbors_alone(generator: Generator, name: str) -> None:
    free = Request.of_question("Why?", max_new_tokens=60)
    expected = generator.answer(free)
    bad = asked(schema={"type": "string", "pattern": PATTERNS[name]}, max_new_tokens=60, stop_on_repetition=False)
    started = time.perf_counter()
    ids = [generator.submit(bad), generator.submit(free)]
    last: dict[int, Event] = {}
    while generator.is_busy:
        last |= {event.request_id: event for event in generator.step()}
    finished = last[ids[1]]
    assert isinstance(finished, Finished) and finished.answer.token_ids == expected.token_ids
    end = last[ids[0]]
    assert isinstance(end, Finished) or (isinstance(end, Failed) and isinstance(end.error, SchemaError))
    assert time.perf_counter() - started < 20


def llama_like() -> PreTrainedTokenizerFast:
    """A tokenizer with word-boundary pieces and byte fallback."""
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "\u2581", *map(chr, range(33, 127))]
    pieces += ["\u2581{", '{"', '":', '\u2581"', "to", "tal", "EU", "true", "\u2581true"]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>", byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def byte_level() -> PreTrainedTokenizerFast:
    """A tokenizer whose tokens are bytes, as of GPT-2 and Qwen."""
    pieces = [*sorted(pre_tokenizers.ByteLevel.alphabet()), '{"', "\u0120{", '":', "\u0120true", "<end>"]
    tokenizer = Tokenizer(models.BPE({piece: n for n, piece in enumerate(pieces)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>")


@pytest.mark.parametrize("tokenizer", [llama_like(), byte_level()], ids=["llama", "bytes"])
def test_tokenizers_of_other_models(tokenizer: PreTrainedTokenizerFast) -> None:
    import torch

    vocab_size = len(tokenizer) + 5  # models pad their vocabulary
    constraint = Grammars(tokenizer, {tokenizer.eos_token_id}, vocab_size).constraint(RECEIPT)
    random = torch.Generator().manual_seed(0)
    tokens: list[int] = []
    while not constraint.is_complete and len(tokens) < 200:
        logits = torch.randn(vocab_size, generator=random)
        tokens.append(int(constraint(logits, logits).argmax()))
        constraint.push(tokens[-1])
    text = tokenizer.decode(tokens, skip_special_tokens=True)
    assert list(json.loads(text)) == ["total", "paid", "currency"]


@pytest.mark.parametrize("ends", [set(), {10**6}])
def test_a_model_without_end_token(tiny: Loaded, ends: set[int]) -> None:
    model, processor = tiny
    Grammars(processor.tokenizer, ends, model.config.text_config.vocab_size).constraint(RECEIPT)
