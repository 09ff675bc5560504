"""Log probabilities are those of a forward pass over prompt and answer, and tokens have the right bytes."""

from typing import Any

import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from convllava.inference import Finished, Generator, Request, TextDelta, prepare
from convllava.inference.vocabulary import Vocabulary
from convllava.model import ConvLlavaForConditionalGeneration, ConvLlavaProcessor

Loaded = tuple[ConvLlavaForConditionalGeneration, ConvLlavaProcessor]

IMAGE = Image.new("RGB", (130, 70), "red")

OPTIONS: list[dict[str, Any]] = [
    {},
    {"temperature": 1.5, "seed": 1},
    {"repetition_penalty": 2.0},
    {"no_repeat_ngram_size": 1},
]


@pytest.mark.parametrize("options", OPTIONS)
def test_they_equal_a_full_forward(tiny: Loaded, options: dict[str, Any]) -> None:
    model, processor = tiny
    generator = Generator(model, processor)
    requests = [
        Request.of_question("What is it?", [IMAGE], max_new_tokens=12, top_logprobs=4, **options),
        Request.of_question("Why?", max_new_tokens=7, top_logprobs=0, **options),
    ]
    for request, answer in zip(requests, generator.generate(requests), strict=True):
        prompt = prepare(request, processor, generator.context)
        ids = torch.cat([prompt.input_ids, torch.tensor(answer.token_ids)])[None]
        images = processor.image_processor(list(request.images), return_tensors="pt") if request.images else {}
        with torch.no_grad():
            logits = model(input_ids=ids, **images).logits[0, len(prompt.input_ids) - 1 : -1]
        expected = logits.log_softmax(dim=-1)
        assert answer.logprobs is not None
        ends = answer.token_ids[-1] == processor.tokenizer.eos_token_id
        assert [each.token_id for each in answer.logprobs] == list(answer.token_ids[: -1 if ends else None])
        for row, each in zip(expected, answer.logprobs, strict=False):
            assert each.logprob == pytest.approx(float(row[each.token_id]), abs=1e-4)
            best = row.topk(request.top_logprobs or 0)
            assert [value for _, value in each.top] == pytest.approx(best.values.tolist(), abs=1e-4)


def test_pieces_have_those_of_their_tokens(tiny: Loaded) -> None:
    request = Request.of_question("What is it?", [IMAGE], max_new_tokens=20, top_logprobs=1)
    *pieces, finished = Generator(*tiny).stream(request)
    assert isinstance(finished, Finished)
    assert sum((piece.logprobs for piece in pieces if isinstance(piece, TextDelta)), ()) == finished.answer.logprobs


def test_there_are_none_unless_asked(tiny: Loaded) -> None:
    assert Generator(*tiny).answer(Request.of_question("Why?", max_new_tokens=2)).logprobs is None


def test_bytes_of_nanos_tokens(tiny: Loaded) -> None:
    tokenizer = tiny[1].tokenizer
    vocabulary = Vocabulary(tokenizer)
    for text in ("a b", "£5", "\U0001f600", "\u2581 x"):
        ids = tokenizer.encode(text, add_special_tokens=False)
        assert b"".join(map(vocabulary.token_bytes, ids)).decode() == text
    assert vocabulary.token_bytes(tokenizer.eos_token_id) == b"</s>"


def test_bytes_of_byte_level_tokens() -> None:
    pieces = {piece: number for number, piece in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(pieces, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer)
    text = "a b\n\u00e9\U0001f600"
    assert b"".join(map(Vocabulary(fast).token_bytes, fast.encode(text))).decode() == text


def test_bytes_of_word_boundary_pieces() -> None:
    pieces = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), "\u2581", "a", "\u2581a"]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>", byte_fallback=True))
    tokenizer.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()])
    read = Vocabulary(PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>"))
    assert read.token_bytes(vocabulary["\u2581a"]) == b" a" and read.token_bytes(vocabulary["<0xE9>"]) == b"\xe9"
    assert read.token_bytes(10_000) == b""
