"""The bytes of each token, for programs that read log probabilities."""

import json
import re

from transformers import PreTrainedTokenizerBase

_BYTE = re.compile(r"<0x([0-9A-F]{2})>")


class Vocabulary:
    """The bytes of the tokens of a fast tokenizer: of byte-level ones, or of those with byte fallback."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        decoder = json.dumps(json.loads(tokenizer.backend_tokenizer.to_str()).get("decoder"), ensure_ascii=False)
        self._marks_blanks = "\u2581" in decoder or "Metaspace" in decoder
        self._special = set(tokenizer.all_special_ids)
        self._bytes_of = _byte_characters() if "ByteLevel" in decoder else {}

    def token_bytes(self, token_id: int) -> bytes:
        """Return the bytes that a token stands for; of a control token its name."""
        token = self._tokenizer.convert_ids_to_tokens(token_id)
        if token is None:  # an unused place of the vocabulary
            return b""
        if token_id in self._special:
            return token.encode()
        if self._bytes_of:
            return b"".join(bytes([self._bytes_of[c]]) if c in self._bytes_of else c.encode() for c in token)
        if found := _BYTE.fullmatch(token):
            return bytes([int(found[1], 16)])
        return (token.replace("\u2581", " ") if self._marks_blanks else token).encode()


def _byte_characters() -> dict[str, int]:
    """Return the byte of each character that byte-level tokenizers (GPT-2's and later ones) write it as."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + place): byte for place, byte in enumerate(others)}
