"""Tokens to text, piece by piece: never half a character, never the beginning of a stop text."""

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

_UNFINISHED = "\ufffd"
"""Tokenizers decode an incomplete character to this."""


class TextStream:
    """Decodes one answer as its tokens arrive.

    The pieces that `push` and `finish` return make up the answer. A piece is held back while its last
    character is incomplete (bytes of one character come in several tokens) or while it may be the beginning
    of a stop text.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, stop: Sequence[str] = ()) -> None:
        self.stopped = False
        self._tokenizer = tokenizer
        self._stop = tuple(stop)
        self._tokens: list[int] = []
        # What a token reads depends on its neighbors (the blank before a word), so each piece is decoded
        # together with the tokens of the piece before it.
        self._before = 0
        self._read = 0
        self._held = ""
        self._started = False

    def push(self, token: int) -> str:
        """Take one token and return the text that is certain by now, often empty."""
        self._tokens.append(token)
        piece = self._decode_new()
        if not piece or piece.endswith(_UNFINISHED):
            return ""
        self._advance()
        return self._release(piece, final=False)

    def finish(self) -> str:
        """Return what was held back."""
        piece = self._decode_new()
        self._advance()
        return "" if self.stopped else self._release(piece, final=True)

    def _decode_new(self) -> str:
        known = self._decode(self._tokens[self._before : self._read])
        return self._decode(self._tokens[self._before :])[len(known) :]

    def _advance(self) -> None:
        self._before, self._read = self._read, len(self._tokens)

    def _decode(self, tokens: list[int]) -> str:
        return self._tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)

    def _release(self, piece: str, *, final: bool) -> str:
        """Return what may be shown of the text held so far and a new piece."""
        text = self._held + piece
        if not self._started:  # prompt formats have a blank between "ASSISTANT:" and the answer
            text = text.lstrip()
            self._started = bool(text)
        ends = [found for stop in self._stop if (found := text.find(stop)) >= 0]
        if ends:
            self.stopped, self._held = True, ""
            return text[: min(ends)]
        keep = 0 if final else self._open_stop(text)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def _open_stop(self, text: str) -> int:
        """Return how many characters at the end may be the beginning of a stop text."""
        lengths = (n for stop in self._stop for n in range(len(stop) - 1, 0, -1) if text.endswith(stop[:n]))
        return max(lengths, default=0)
