"""Pieces of text are whole characters and make up the answer."""

import itertools
import time
from functools import lru_cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders
from tokenizers.models import BPE
from torch import tensor
from transformers import GenerationConfig, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from convllava.inference.sampling import nucleus, suppressed_tokens
from convllava.inference.text_stream import StopText, TextStream
from convllava.model.nano_model import build_character_tokenizer

characters = lru_cache(build_character_tokenizer)


def pieces(text: str, stop: tuple[str, ...] = ()) -> tuple[list[str], TextStream]:
    """What comes out, token by token, and at the end."""
    stream = TextStream(characters(), stop)
    released = []
    for token in characters().encode(text, add_special_tokens=False):
        released.append(stream.push(token))
        if stream.stopped:
            break
    return [*released, stream.finish()], stream


def test_characters_of_several_tokens_come_whole() -> None:
    released, _ = pieces("Grüße, 漢字 🎉!")
    assert "".join(released) == "Grüße, 漢字 🎉!"
    assert not any("\ufffd" in piece for piece in released)
    assert released.count("") > 3


def test_half_a_character_at_the_end_is_shown_as_such() -> None:
    stream = TextStream(characters())
    tokens = characters().encode("a漢", add_special_tokens=False)[:-1]
    assert [stream.push(token) for token in tokens] == ["a", "", ""]
    assert stream.finish() == characters().decode(tokens)[1:] == "\ufffd\ufffd"


ALPHABET = "aab \né漢🎉\ufffd"


@settings(max_examples=60, deadline=None)
@given(text=st.text(ALPHABET, max_size=12), stop=st.text(ALPHABET, min_size=1, max_size=2))
def test_any_text_up_to_the_stop(text: str, stop: str) -> None:
    released, stream = pieces(text, (stop,))
    shown = text.lstrip()
    assert "".join(released) == shown.split(stop)[0]
    assert stream.stopped == (stop in shown)


def test_the_beginning_of_a_stop_text_is_held_back() -> None:
    released, stream = pieces("one END two ENERGY END. more", ("END.",))
    assert "".join(released) == "one END two ENERGY "
    assert stream.stopped
    assert not any(piece.endswith("E") for piece in released)


def test_the_earliest_stop_text_counts() -> None:
    assert "".join(pieces("abcdef", ("ef", "cd"))[0]) == "ab"


def test_control_tokens_are_left_out() -> None:
    tokenizer = characters()
    stream = TextStream(tokenizer)
    a, b = tokenizer.convert_tokens_to_ids(["a", "b"])
    assert [stream.push(token) for token in (a, tokenizer.eos_token_id, b)] == ["a", "", "b"]


@pytest.fixture
def words() -> PreTrainedTokenizerBase:
    """A tokenizer like Llama's: a blank belongs to the word after it and is dropped at the very beginning."""
    pieces = ["<unk>", "</s>", "▁Hello", "▁world", "s", "▁"]
    backend = Tokenizer(BPE(vocab={piece: i for i, piece in enumerate(pieces)}, merges=[], unk_token="<unk>"))
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    backend.decoder = decoders.Sequence(steps)
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>", unk_token="<unk>")


def test_blanks_between_words_survive(words: PreTrainedTokenizerBase) -> None:
    stream = TextStream(words)
    assert [stream.push(token) for token in (2, 3, 4, 1, 3)] == ["Hello", " world", "s", "", " world"]


def test_nucleus_keeps_the_likeliest() -> None:
    probabilities = tensor([0.1, 0.5, 0.15, 0.25])
    assert nucleus(probabilities, 0.7).tolist() == pytest.approx([0, 0.5, 0, 0.25])
    assert nucleus(probabilities, 0.01).tolist() == pytest.approx([0, 0.5, 0, 0])
    assert nucleus(probabilities, 1.0) is probabilities


def test_suppressed_tokens() -> None:
    assert suppressed_tokens(GenerationConfig(), 9) == [9]
    assert suppressed_tokens(GenerationConfig(suppress_tokens=[3, 9]), 9) == [3, 9]


@settings(max_examples=200, deadline=None)
@given(text=st.text("ab", max_size=40), stop=st.text("ab", min_size=1, max_size=8), cuts=st.sets(st.integers(1, 39)))
def test_a_stop_text_is_found_as_by_search(text: str, stop: str, cuts: set[int]) -> None:
    matcher, edges = StopText(stop), [0, *sorted(cut for cut in cuts if cut < len(text)), len(text)]
    for start, end in itertools.pairwise(edges):
        found = matcher.find(text[start:end])
        if found is not None:
            assert start + found - len(stop) == text.find(stop)
            return
        assert text[:end].endswith(stop[: matcher.matched])
    assert stop not in text


def test_long_stop_texts_cost_no_more_than_the_answer() -> None:
    stops = ["a" * 50_000 + str(number) for number in range(4)]
    started = time.process_time()
    stream = TextStream(characters(), stops)
    token = characters().convert_tokens_to_ids("a")
    assert [stream.push(token) for _ in range(300)] == [""] * 300
    assert stream.finish() == "a" * 300
    assert time.process_time() - started < 5  # a quadratic comparison takes minutes


def test_nucleus_keeps_one_token_when_top_p_rounds_to_zero() -> None:
    assert nucleus(tensor([0.25, 0.75]), 1e-320).tolist() == [0, 0.75]
