"""Tokens to text, piece by piece: never half a character, never the beginning of a stop text."""

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

_UNFINISHED = "\ufffd"
"""Tokenizers decode an incomplete character to this."""


class StopText:
    """Finds a stop text in a text that comes character by character, in time linear in both.

    Attributes:
        matched: Number of characters at the end of the text that begin the stop text.
    """

    def __init__(self, stop: str) -> None:
        self.matched = 0
        self._stop = stop
        self._fallback = [0] * len(stop)  # length of the longest proper prefix that ends at each character
        for index in range(1, len(stop)):
            self._fallback[index] = self._next(self._fallback[index - 1], stop[index])

    def find(self, text: str) -> int | None:
        """Return the place in ``text``, the next piece, at which the stop text ends, or None."""
        for index, character in enumerate(text):
            self.matched = self._next(self.matched, character)
            if self.matched == len(self._stop):
                return index + 1
        return None

    def __len__(self) -> int:
        return len(self._stop)

    def _next(self, matched: int, character: str) -> int:
        while matched and self._stop[matched] != character:
            matched = self._fallback[matched - 1]
        return matched + (self._stop[matched] == character)


class TextStream:
    """Decodes one answer as its tokens arrive.

    The pieces that `push` and `finish` return make up the answer. A piece is held back while its last
    character is incomplete (bytes of one character come in several tokens) or while it may be the beginning
    of a stop text.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, stop: Sequence[str] = ()) -> None:
        self.stopped = False
        self._tokenizer = tokenizer
        self._stops = [StopText(text) for text in stop]
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
        if not self._started:  # prompt formats have a blank between "ASSISTANT:" and the answer
            piece = piece.lstrip()
            self._started = bool(piece)
        known, text = len(self._held), self._held + piece
        ends = [known + end - len(stop) for stop in self._stops if (end := stop.find(piece)) is not None]
        if ends:
            self.stopped, self._held = True, ""
            return text[: min(ends)]
        keep = 0 if final else max((stop.matched for stop in self._stops), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]
