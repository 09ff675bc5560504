"""JSON and JSONL files record by record, however large they are."""

import json
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

from ..support import first_line, is_encodable
from .faults import RecordError

_CHUNK = 1 << 22
"""Characters of a JSON file read at a time."""

_BLANK = re.compile(r"\s*")
_STRUCTURE = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{},]')


def read_records(path: Path) -> Iterator[tuple[int, str, Any]]:
    """Yield number, text and content of each record; a ``RecordError`` in place of content that cannot be read.

    Bytes that are not UTF-8 are in the text as lone surrogates.

    Raises:
        ValueError: The file is missing or is not a JSON list.
    """
    if not path.is_file():
        raise ValueError(f"no data file {path}")
    for number, text, record in _lines(path) if is_jsonl(path) else _items(path):
        yield number, text, record if is_encodable(text) else not_utf8(text)


def open_text(path: Path, newline: str | None = None) -> TextIO:
    """Open a file of records; bytes that are not UTF-8 become lone surrogates, for the record that has them."""
    return path.open(encoding="utf-8-sig", errors="surrogateescape", newline=newline)


def not_utf8(text: str) -> RecordError:
    """Return what stands for a record whose text has bytes that are not UTF-8, as lone surrogates."""
    place = next(place for place, character in enumerate(text) if "\ud800" <= character <= "\udfff")
    byte, before = ord(text[place]) & 0xFF, text[max(place - 20, 0) : place]
    return RecordError("malformed", f"not UTF-8 text: byte 0x{byte:02x} after {before!a}; save the file as UTF-8")


def _not_json(error: Exception) -> RecordError:
    """Return what stands for a record that is not JSON, or JSON that Python does not read (nesting, huge numbers)."""
    return RecordError("malformed", f"not valid JSON ({first_line(error)})")


def is_jsonl(path: Path) -> bool:
    """Return whether a file has one JSON object a line, whatever its suffix is."""
    if path.suffix == ".jsonl":
        return True
    lines = _first_lines(path)
    return len(lines) == 2 and _is_object(lines[0])


def read_object(path: Path) -> dict[str, Any] | None:
    """Return the content of a file that is a single JSON object; None for a list or for an object a line.

    Raises:
        ValueError: The file is not UTF-8, not valid JSON, or nested too deeply.
    """
    try:
        lines = _first_lines(path)
        is_one = len(lines) == 1 if path.suffix == ".jsonl" else bool(lines) and not is_jsonl(path)
        if not is_one:
            return None
        return dict(json.loads(path.read_text(encoding="utf-8-sig")))
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text ({error})") from error
    except RecursionError as error:
        raise ValueError(f"{path} is nested too deeply to be read") from error
    except ValueError as error:
        if path.suffix == ".jsonl":
            return None  # one record, which cannot be read
        raise ValueError(f"{path}: not valid JSON ({first_line(error)})") from error


def _first_lines(path: Path) -> list[str]:
    """Return the first two lines that are not blank of a file that begins with an object; none of any other."""
    with open_text(path) as file:
        character = file.read(1)
        while character.isspace():
            character = file.read(1)
        if character != "{":
            return []
        file.seek(0)
        return list(islice((line for line in file if line.strip()), 2))


def _is_object(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _lines(path: Path) -> Iterator[tuple[int, str, Any]]:
    with open_text(path) as file:
        for number, line in enumerate(line for line in file if line.strip()):
            try:
                yield number, line, json.loads(line)
            except (ValueError, RecursionError) as error:
                yield number, line, _not_json(error)


def _items(path: Path) -> Iterator[tuple[int, str, Any]]:
    """Yield the items of a JSON list one by one: all objects of a large file would not fit into memory."""
    with open_text(path) as file:
        text = _GrowingText(file)
        try:
            if not is_encodable(text.next_character()):
                raise ValueError(f"{path} is not UTF-8 text: save it as UTF-8")
            if text.next_character() != "[":
                raise ValueError(f"{path}: expected a list of records; one object a line belongs in a .jsonl file")
            text.skip()
            number = 0
            while text.next_character() != "]":
                record, written = text.decode()
                yield number, written, record
                number += 1
                if text.next_character() == ",":
                    text.skip()
                elif text.next_character() != "]":
                    raise json.JSONDecodeError("Expecting ',' or ']'", text.excerpt(), 0)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}: not valid JSON behind its first {number} records ({error})") from error


class _GrowingText:
    """A window of a JSON file that grows while a value is decoded."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._text = ""
        self._position = 0
        self._decoder = json.JSONDecoder()

    def next_character(self) -> str:
        """Return the next character that is not white space, without consuming it; empty at the end of the file."""
        while True:
            blank = _BLANK.match(self._text, self._position)
            assert blank is not None  # the pattern matches an empty text too
            self._position = blank.end()
            if self._position < len(self._text) or not self._grow(_CHUNK):
                return self._text[self._position : self._position + 1]

    def skip(self) -> None:
        """Consume one character."""
        self._position += 1

    def decode(self) -> tuple[Any, str]:
        """Consume one value and return it with its text; reads twice as much each time the value is cut off.

        A value that is well formed but cannot be read (too deep, too large a number) becomes a ``RecordError``.
        """
        wanted = _CHUNK
        while True:
            try:
                value, end = self._decoder.raw_decode(self._text, self._position)
            except json.JSONDecodeError:
                if not self._grow(wanted):
                    raise
                wanted *= 2
                continue
            except (ValueError, RecursionError) as error:
                value, end = _not_json(error), self._end_of_value()
            written = self._text[self._position : end]
            self._position = end
            return value, written

    def _end_of_value(self) -> int:
        """Return the end of a value from its brackets and strings alone, without recursion."""
        wanted = _CHUNK
        while True:
            depth = 0
            for token in _STRUCTURE.finditer(self._text, self._position):
                depth += (token[0] in "[{") - (token[0] in "]}")
                if depth < 0 or (depth == 0 and token[0] == ","):
                    return token.start()
                if depth == 0 and token[0] in "]}":
                    return token.end()
            if not self._grow(wanted):
                raise json.JSONDecodeError("Unterminated value", self.excerpt(), 0)
            wanted *= 2

    def excerpt(self) -> str:
        """Return the beginning of the remaining text, for messages."""
        return self._text[self._position : self._position + 40]

    def _grow(self, characters: int) -> bool:
        more = self._file.read(characters)
        self._text = self._text[self._position :] + more
        self._position = 0
        return bool(more)
