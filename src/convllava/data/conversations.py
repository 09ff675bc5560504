"""LLaVA's JSON and JSONL data sets.

A record has ``id``, ``image`` (a file name, a list of them, or absent for text alone) and ``conversations``; see
``records`` for the sample that it becomes.
"""

import json
import os
import re
from array import array
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, TextIO

import numpy as np

from ..images import ImageError
from ..support import first_line, is_encodable
from .faults import BadSampleError, Fault, refusal
from .images import missing, outside, path_in, stored_size
from .records import ROLES, UnreadableRecord, read_sample, record_id, shortened, stored_images
from .samples import Origin, RecordSource, Sample, text_length

__all__ = ["ROLES", "ConversationDataset", "OnBadSample"]

OnBadSample = Literal["stop", "skip", "list"]

_LOOKUPS_BEFORE_LISTING = 64
"""Look-ups in a folder before it is listed once: one listing is cheaper than a thousand look-ups."""

_CHUNK = 1 << 22
"""Characters of a JSON file read at a time."""

_BLANK = re.compile(r"\s*")
_STRUCTURE = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{},]')


class ConversationDataset(RecordSource):
    """A LLaVA JSON or JSONL file. All records are read and checked when it is opened; no image is.

    Args:
        path: The ``.json`` or ``.jsonl`` file.
        image_folder: Folder of its images; the file's folder by default.
        on_bad_sample: "stop": a record that cannot be used is an error. "skip": it is left out and its fault is
            collected in ``faults``. "list": the same as "skip", and a file without usable records is no error.

    Raises:
        ValueError: The file cannot be read, or has no record or an unusable one; the message names file and record.
    """

    def __init__(
        self, path: str | Path, image_folder: str | Path | None = None, *, on_bad_sample: OnBadSample = "stop"
    ) -> None:
        self.path = Path(path)
        self.image_folder = Path(image_folder) if image_folder is not None else self.path.parent
        self.faults: list[Fault] = []
        folder = _Folder(self.image_folder)
        self._texts = _Texts()
        good: list[int] = []
        for number, text, record in read_records(self.path):
            try:
                self._check(record, number, folder)
            except BadSampleError as error:
                self.faults.append(error.fault)
            else:
                good.append(number)
                self._texts.append(text)
        self._numbers = np.array(good, dtype=np.int64)
        if self.faults and on_bad_sample == "stop":
            raise ValueError(refusal(self.faults, str(self.path)))
        if not good and on_bad_sample != "list":
            raise ValueError(f"{self.path} holds no records" + " that can be used" * bool(self.faults))

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, index: int) -> Sample:
        return self.sample_of(json.loads(self._texts[index]), int(self._numbers[index]))

    def num_records(self) -> int:
        """Return the number of records in the file, those that cannot be used included."""
        return len(self) + len(self.faults)

    def records(self) -> Iterator[Sample | Fault]:
        """Yield every record in the file's order: a sample, or the fault that makes it unusable."""
        faults = {fault.record: fault for fault in self.faults}
        samples = iter(range(len(self)))
        for number in range(self.num_records()):
            yield faults[number] if number in faults else self[next(samples)]

    def image_sizes(self, index: int) -> list[tuple[int, int]]:
        """Return (height, width) of each image from the files' headers; empty where one cannot be read."""
        try:
            return [stored_size(image) for image in self[index].images]
        except ImageError:  # reported with its name when the sample is read
            return []

    def text_length(self, index: int) -> int:
        """Return the characters of a sample's texts."""
        return text_length(self[index].messages)

    def _check(self, record: Any, number: int, folder: "_Folder") -> None:
        sample = self.sample_of(record, number)
        for image in sample.images:
            if not isinstance(image, Path) or not folder.has(image):
                raise sample.bad("missing_image", missing(Path(str(image))))

    def sample_of(self, record: Any, number: int) -> Sample:
        """Return the sample of a record of this file.

        Raises:
            BadSampleError: The record cannot be used.
        """
        origin = Origin(str(self.path), number)
        names = stored_images(record)
        other = next((name for name in names if not isinstance(name, str)), None)
        if other is not None:
            message = f"'image' must be a file name or a list of them, got {shortened(other)}"
            raise BadSampleError(Fault("malformed", *origin, record_id(record, number), message))
        paths = [path_in(self.image_folder, name) for name in names]
        if None in paths:
            message = outside(names[paths.index(None)], self.image_folder)
            raise BadSampleError(Fault("malformed", *origin, record_id(record, number), message))
        return read_sample(record, [path for path in paths if path is not None], origin)


class _Texts:
    """Texts in one block of bytes: an object for each would take several times the memory, in every worker."""

    def __init__(self) -> None:
        self._block = bytearray()
        self._ends = array("q")

    def append(self, text: str) -> None:
        self._block += text.encode("utf-8")
        self._ends.append(len(self._block))

    def __getitem__(self, index: int) -> bytes:
        if not -len(self._ends) <= index < len(self._ends):
            raise IndexError(f"record {index} of {len(self._ends)}")
        index %= len(self._ends)
        return bytes(self._block[self._ends[index - 1] if index else 0 : self._ends[index]])


class _Folder:
    """Looks up which files exist; a folder that many names point into is listed once."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._lookups: Counter[str] = Counter()
        self._listed: dict[str, frozenset[str]] = {}

    def has(self, image: Path) -> bool:
        parent, name = os.path.split(image)
        self._lookups[parent] += 1
        if parent not in self._listed and self._lookups[parent] > _LOOKUPS_BEFORE_LISTING:
            self._listed[parent] = _files_of(parent)
        return name in self._listed.get(parent, ()) or os.path.isfile(image)


def _files_of(folder: str) -> frozenset[str]:
    if not os.path.isdir(folder):
        return frozenset()
    with os.scandir(folder) as entries:
        return frozenset(entry.name for entry in entries if entry.is_file())


def read_records(path: Path) -> Iterator[tuple[int, str, Any]]:
    """Yield number, text and content of each record; an ``UnreadableRecord`` in place of content that cannot be read.

    Bytes that are not UTF-8 are in the text as lone surrogates.

    Raises:
        ValueError: The file is missing or is not a JSON list.
    """
    if not path.is_file():
        raise ValueError(f"no data file {path}")
    for number, text, record in _lines(path) if path.suffix == ".jsonl" else _items(path):
        yield number, text, record if is_encodable(text) else _not_utf8(text)


def _open(path: Path) -> TextIO:
    return path.open(encoding="utf-8-sig", errors="surrogateescape")


def _not_utf8(text: str) -> UnreadableRecord:
    place = next(place for place, character in enumerate(text) if "\udc80" <= character <= "\udcff")
    byte, before = ord(text[place]) - 0xDC00, text[max(place - 20, 0) : place]
    return UnreadableRecord(f"not UTF-8 text: byte 0x{byte:02x} after {before!a}; save the file as UTF-8")


def _lines(path: Path) -> Iterator[tuple[int, str, Any]]:
    with _open(path) as file:
        for number, line in enumerate(line for line in file if line.strip()):
            try:
                yield number, line, json.loads(line)
            except (ValueError, RecursionError) as error:
                yield number, line, _not_json(error)


def _not_json(error: Exception) -> UnreadableRecord:
    """Return what stands for a record that is not JSON, or JSON that Python does not read (nesting, huge numbers)."""
    return UnreadableRecord(f"not valid JSON ({first_line(error)})")


def _items(path: Path) -> Iterator[tuple[int, str, Any]]:
    """Yield the items of a JSON list one by one: all objects of a large file would not fit into memory."""
    with _open(path) as file:
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

        A value that is well formed but cannot be read (too deep, too large a number) becomes an ``UnreadableRecord``.
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
