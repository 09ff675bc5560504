"""The nano model's tokenizer: texts survive a round trip, control tokens are single tokens, offsets are exact."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from convllava.model.nano_model import (
    CHARACTERS,
    SPECIAL_TOKENS,
    build_character_tokenizer,
)

TEXTS = st.text(st.characters(exclude_categories=("Cs",)))  # lone surrogates are no text


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return build_character_tokenizer()


def ids_of(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    return tokenizer(text)["input_ids"]


def test_one_token_a_character_and_none_added(tokenizer: PreTrainedTokenizerFast) -> None:
    text = "Total: £12.50\n  naïve?"
    assert tokenizer.convert_ids_to_tokens(ids_of(tokenizer, text)) == list(text)
    assert len(set(CHARACTERS)) == len(CHARACTERS)


def test_vocabulary_is_fixed(tokenizer: PreTrainedTokenizerFast) -> None:
    """The bundled weights depend on it: id 0 is padding, and no character may change its id."""
    assert len(tokenizer) == len(SPECIAL_TOKENS) + 256 + len(CHARACTERS) == 427
    names = ("pad_token_id", "bos_token_id", "eos_token_id", "unk_token_id")
    assert [getattr(tokenizer, name) for name in names] == [0, 1, 2, 3]
    assert ids_of(tokenizer, "<|user|><|assistant|>\n ~£œ") == [4, 5, 262, 263, 357, 358, 426]


def test_rare_characters_are_bytes(tokenizer: PreTrainedTokenizerFast) -> None:
    tokens = tokenizer.convert_ids_to_tokens(ids_of(tokenizer, "a漢\t"))
    assert tokens == ["a", "<0xE6>", "<0xBC>", "<0xA2>", "<0x09>"]


@settings(deadline=None)
@given(text=TEXTS)
def test_any_text_survives_a_round_trip(tokenizer: PreTrainedTokenizerFast, text: str) -> None:
    ids = ids_of(tokenizer, text)
    assert tokenizer.unk_token_id not in ids or "<unk>" in text
    assert tokenizer.decode(ids) == text


@settings(deadline=None)
@given(text=TEXTS)
def test_offsets_cover_the_text(tokenizer: PreTrainedTokenizerFast, text: str) -> None:
    offsets = tokenizer(text, return_offsets_mapping=True)["offset_mapping"]
    assert all(end > start for start, end in offsets)
    assert sorted({index for start, end in offsets for index in range(start, end)}) == list(range(len(text)))
    assert offsets == sorted(offsets)


def test_reloaded_tokenizer_is_the_same(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    text = "<s><|user|>Größe 漢字</s>"
    assert ids_of(loaded, text) == ids_of(tokenizer, text)
    assert loaded.chat_template == tokenizer.chat_template
    assert loaded.padding_side == "left"
