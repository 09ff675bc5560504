"""Tokenization in chunks between images, as in LLaVA's ``tokenizer_image_token``, with the span of every token.

One call of the tokenizer on the complete text would differ: with Llama's tokenizer the chunk after an image begins
with the word-boundary piece, as every text does, whereas text after another control token (as in ``</s>USER``) does
not.
"""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Sequence

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase

from .prompts import CONTROL_MARK, Span, control_pattern

Tokens = tuple[list[int], list[Span]]
"""Token ids, and the character span of each token in the text."""


class ChunkTokenizer:
    """Tokenizes rendered prompts.

    The tokenizer itself is passed with every call, so that this object stays small when a processor is copied.

    Args:
        tokenizer: A fast tokenizer that has the image token among its added tokens.
        image_token: The image token.

    Raises:
        ValueError: The tokenizer is not a fast one.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, image_token: str) -> None:
        if not hasattr(tokenizer, "backend_tokenizer"):
            raise ValueError(f"{type(tokenizer).__name__} has no character offsets: use a fast tokenizer")
        special = [token for token in tokenizer.added_tokens_decoder.values() if token.special]
        self.control_tokens = control_pattern([token.content for token in special])
        self._image = re.compile(re.escape(image_token))
        self._image_token_id = tokenizer.convert_tokens_to_ids(image_token)
        self._bos_token = tokenizer.bos_token
        opening = tokenizer.backend_tokenizer.encode("", add_special_tokens=True).ids[:1]
        self._opening = opening if opening == [tokenizer.bos_token_id] else []

    def __call__(
        self,
        backend: Tokenizer,
        text: str,
        counts: Sequence[int] | None = None,
        add_special_tokens: bool = True,
    ) -> Tokens:
        """Tokenize one text.

        Args:
            backend: The tokenizer's ``backend_tokenizer``.
            text: A rendered prompt, in which typed control tokens contain ``CONTROL_MARK``.
            counts: Number of visual tokens of each image token in the text; by default 1 (already expanded).
            add_special_tokens: Whether to begin with BOS if the tokenizer does so and the text does not.

        Raises:
            ValueError: The text has a lone surrogate, which no tokenizer takes.
        """
        _check_surrogates(text)
        _reset(backend)
        opened = self._bos_token is not None and text.startswith(self._bos_token)
        ids = list(self._opening) if add_special_tokens and not opened else []
        spans = [(0, 0)] * len(ids)
        start = 0
        for index, image in enumerate(self._image.finditer(text)):
            self._append(backend, text[start : image.start()], start, ids, spans)
            count = 1 if counts is None else counts[index]
            ids.extend([self._image_token_id] * count)
            spans.extend([image.span()] * count)
            start = image.end()
        self._append(backend, text[start:], start, ids, spans)
        return ids, spans

    def _append(self, backend: Tokenizer, chunk: str, start: int, ids: list[int], spans: list[Span]) -> None:
        if not chunk:
            return
        new_ids, new_spans = self._encode(backend, chunk)
        ids.extend(new_ids)
        spans.extend((start + begin, start + end) for begin, end in new_spans)

    def _encode(self, backend: Tokenizer, chunk: str) -> Tokens:
        if CONTROL_MARK in chunk:
            return self._encode_marked(backend, chunk)
        encoding = backend.encode(chunk, add_special_tokens=False)
        return encoding.ids, encoding.offsets

    def _encode_marked(self, backend: Tokenizer, chunk: str) -> Tokens:
        """Encode the template's control tokens as such and everything between them as plain text."""
        ids: list[int] = []
        spans: list[Span] = []
        start = 0
        for token in self.control_tokens.finditer(chunk):
            self._append_text(backend, chunk[start : token.start()], start, ids, spans)
            token_id = backend.token_to_id(token[0])
            if token_id is None:  # the pattern was built from the tokenizer's tokens
                raise ValueError(f"the control token {token[0]!r} has left the tokenizer's vocabulary: load it again")
            ids.append(token_id)
            spans.append(token.span())
            start = token.end()
        self._append_text(backend, chunk[start:], start, ids, spans)
        return ids, spans

    def _append_text(self, backend: Tokenizer, piece: str, start: int, ids: list[int], spans: list[Span]) -> None:
        if not piece:
            return
        kept = [position for position, char in enumerate(piece) if char != CONTROL_MARK]
        new_ids, new_spans = _encode_text(backend, piece.replace(CONTROL_MARK, ""), opens_chunk=start == 0)
        ids.extend(new_ids)
        spans.extend(
            (start + kept[begin], start + kept[end - 1] + 1) if end > begin else (start, start)
            for begin, end in new_spans
        )


def _check_surrogates(text: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(
            f"the text cannot be encoded: {text[error.start]!a} after {text[max(0, error.start - 20) : error.start]!r} "
            "is half of a character (a lone surrogate): remove it, or give the text in UTF-8"
        ) from error


def _encode_text(backend: Tokenizer, text: str, *, opens_chunk: bool) -> Tokens:
    """Encode text in which control tokens have no meaning.

    Inside a chunk it is encoded after a newline that is then removed; otherwise tokenizers that put a word boundary
    before every text would put one here.
    """
    backend.encode_special_tokens = True
    try:
        newline = [] if opens_chunk else backend.encode("\n", add_special_tokens=False).ids
        encoding = backend.encode("\n" * bool(newline) + text, add_special_tokens=False)
        if encoding.ids[: len(newline)] != newline:  # the newline merged with the text: encode without it
            newline, encoding = [], backend.encode(text, add_special_tokens=False)
    finally:
        backend.encode_special_tokens = False
    shift = bool(newline)
    spans = [(max(begin - shift, 0), max(end - shift, 0)) for begin, end in encoding.offsets[len(newline) :]]
    return encoding.ids[len(newline) :], spans


def _reset(backend: Tokenizer) -> None:
    """Switch off padding, truncation and plain-text mode, which an earlier call may have left on."""
    if backend.padding is not None:
        backend.no_padding()
    if backend.truncation is not None:
        backend.no_truncation()
    backend.encode_special_tokens = False


def overlapping(spans: Sequence[Span], ranges: Sequence[Span]) -> list[bool]:
    """Return for each span whether it is non-empty and shares a character with one of the ranges.

    Args:
        spans: Character spans in the order of the text.
        ranges: Other character spans of the same text.
    """
    starts = [start for start, _ in spans]
    ends = [end for _, end in spans]
    inside = [False] * len(spans)
    for first, stop in ranges:
        for index in range(bisect_right(ends, first), bisect_left(starts, stop)):
            inside[index] = starts[index] < ends[index]
    return inside
