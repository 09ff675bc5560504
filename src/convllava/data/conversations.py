"""LLaVA's JSON and JSONL data sets as samples.

A record and what it becomes::

    {"id": "7", "image": "7.png", "conversations": [
        {"from": "human", "value": "<image>\\nWhat is the total?"},
        {"from": "gpt", "value": "12.50"}]}

    user: [image] "What is the total?"    assistant: "12.50"

``image`` may be a list, or absent for text alone. A lone ``<image>`` is moved to the front of its turn, as LLaVA's own
code does; several stay where they are. The newline after pictures that open a turn belongs to the prompt format.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from ..constants import IMAGE_TOKEN
from .samples import Message, Sample

ROLES = {"human": "user", "gpt": "assistant", "system": "system"}


class ConversationDataset:
    """A LLaVA JSON or JSONL file, read and checked as a whole when it is opened.

    Args:
        path: The ``.json`` or ``.jsonl`` file.
        image_folder: Where its pictures lie; the file's own folder by default.

    Raises:
        ValueError: For a record that cannot be used; names the file and the record.
    """

    def __init__(self, path: str | Path, image_folder: str | Path | None = None) -> None:
        self.path = Path(path)
        self.image_folder = Path(image_folder) if image_folder is not None else self.path.parent
        self._samples = [self._sample(number, record) for number, record in enumerate(_records(self.path))]
        if not self._samples:
            raise ValueError(f"{self.path} holds no records")

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> Sample:
        return self._samples[index]

    def image_sizes(self, index: int) -> list[tuple[int, int]]:
        """Return (height, width) of each picture from the files' headers."""
        return [_header_size(path) for path in self._samples[index].images if isinstance(path, Path)]

    def text_length(self, index: int) -> int:
        """Return the characters of a sample's texts."""
        parts = (part for message in self._samples[index].messages for part in message["content"])
        return sum(len(part["text"]) for part in parts if part["type"] == "text")

    def _sample(self, number: int, record: Any) -> Sample:
        place = f"{self.path}, record {number}"
        if not isinstance(record, dict):
            raise ValueError(f"{place}: expected an object, got {type(record).__name__}")
        sample_id = str(record.get("id", number))
        place = f"{place} (id {sample_id})"
        images = tuple(self._image_path(name, place) for name in _image_names(record, place))
        messages = _messages(record, place)
        placeholders = sum(part["type"] == "image" for message in messages for part in message["content"])
        if placeholders != len(images):
            raise ValueError(
                f"{place}: {placeholders} {IMAGE_TOKEN} placeholders but {len(images)} images; give one image for "
                "each placeholder"
            )
        return Sample(sample_id, images, messages)

    def _image_path(self, name: str, place: str) -> Path:
        path = self.image_folder / name
        if not path.is_file():
            raise ValueError(f"{place}: no image {path}; set image_folder to where the pictures lie")
        return path


def _records(path: Path) -> Iterator[Any]:
    if not path.is_file():
        raise ValueError(f"no data file {path}")
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".jsonl":
        for number, line in enumerate(text.splitlines(), start=1):
            if line.strip():
                yield _parse(line, f"{path}, line {number}")
        return
    records = _parse(text, str(path))
    if not isinstance(records, list):
        raise ValueError(f"{path}: expected a list of records; one object a line belongs in a .jsonl file")
    yield from records


def _parse(text: str, place: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{place}: not valid JSON ({error})") from error


def _image_names(record: dict[str, Any], place: str) -> Sequence[str]:
    names = record.get("image", [])
    names = [names] if isinstance(names, str) else names
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"{place}: 'image' must be a file name or a list of them, got {names!r}")
    return names


def _messages(record: dict[str, Any], place: str) -> list[Message]:
    turns = record.get("conversations")
    if not isinstance(turns, list) or not turns:
        raise ValueError(f"{place}: 'conversations' must be a list of turns, got {turns!r}")
    messages = [_message(turn, f"{place}, turn {number}") for number, turn in enumerate(turns)]
    _check_order([message["role"] for message in messages], place)
    return messages


def _message(turn: Any, place: str) -> Message:
    role = ROLES.get(str(turn.get("from"))) if isinstance(turn, dict) else None
    if role is None or not isinstance(turn.get("value"), str):
        raise ValueError(f"{place}: expected 'from' (one of {', '.join(ROLES)}) and 'value' (text), got {turn!r}")
    value = turn["value"]
    if role != "user":
        return {"role": role, "content": [{"type": "text", "text": value}]}
    return {"role": role, "content": list(_parts(value))}


def _parts(value: str) -> Iterator[dict[str, str]]:
    """Split a user's text at its placeholders."""
    pieces = value.split(IMAGE_TOKEN)
    if len(pieces) == 2:  # LLaVA's own code moves a lone picture to the front, wherever it stands
        pieces = ["", (pieces[0] + pieces[1]).strip()]
    opening = True
    for number, piece in enumerate(pieces):
        if number > 0:
            yield {"type": "image"}
            piece = piece.removeprefix("\n") if opening else piece
        opening = opening and not piece
        if piece or len(pieces) == 1:
            yield {"type": "text", "text": piece}


def _check_order(roles: list[str], place: str) -> None:
    dialogue = roles[1:] if roles[0] == "system" else roles
    expected = ["user" if number % 2 == 0 else "assistant" for number in range(len(dialogue))]
    if dialogue != expected or not dialogue or dialogue[-1] != "assistant":
        raise ValueError(
            f"{place}: roles out of order ({', '.join(roles)}); human and gpt alternate, human first, gpt last"
        )


def _header_size(path: Path) -> tuple[int, int]:
    try:
        with Image.open(path) as image:
            return image.height, image.width
    except OSError as error:
        raise ValueError(f"{path} is not a readable image ({error})") from error
