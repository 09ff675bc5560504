"""The type of all record formats, and the pieces from which their readers make records of dialogue."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...constants import IMAGE_TOKEN
from ..faults import RecordError
from ..images import is_absent, shortened

Record = Mapping[str, Any]

ID_KEYS = ("id", "question_id", "questionId", "index", "qid", "image_id")
IMAGE_KEYS = (
    *("image", "images", "image_path", "image_paths", "img", "img_path", "image_file", "image_files"),
    *("file_name", "file_names", "filename", "image_name"),
)
"""Keys of the images in formats without a fixed one, the preferred first."""


_KEPT = frozenset(("system", "video", "videos", "audio", "audios", "tools", "chosen", "rejected"))
"""Keys that every record of dialogue may have, to be read or refused there."""


@dataclass(frozen=True)
class RecordFormat:
    """One layout of records.

    Attributes:
        name: Value of ``format`` in a recipe.
        title: Name in messages.
        matches: Function from a record to whether it has this layout.
        read: Function from a record and the folder of its images to a record of dialogue (``data.records``); None for
            a layout that is one.
    """

    name: str
    title: str
    matches: Callable[[Record], bool]
    read: Callable[[Record, Path], dict[str, Any]] | None = None

    def as_dialogue(self, record: Any, image_folder: Path) -> Any:
        """Return the record of dialogue of a record; one that is not an object is returned as it is.

        Raises:
            RecordError: The record has another layout, or cannot be read.
        """
        if self.read is None or not isinstance(record, dict):
            return record
        try:
            return self.read(record, image_folder)
        except RecordError as error:
            if self.matches(record):
                raise
            keys = ", ".join(map(str, record)) or "none"
            raise RecordError("malformed", f"expected the format {self.title}, got the keys {keys}") from error


def is_anything(record: Record) -> bool:
    """Return True, for formats that no record shows by itself."""
    return True


def first_value(record: Record, keys: Sequence[str]) -> Any:
    """Return the value of the first key that is set; null and empty values count as absent."""
    for key in keys:
        value = record.get(key)
        if value is not None and value != "" and value != []:
            return value
    return None


def images_of(record: Record) -> list[Any]:
    """Return the images of a record whose key for them is one of the usual ones."""
    given = first_value(record, IMAGE_KEYS)
    return [one for one in (given if isinstance(given, list) else [given]) if not is_absent(one)]


def text_of(value: Any, name: str) -> str:
    """Return a text or number as text.

    Raises:
        RecordError: It is neither.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, int | float):
        return str(value)
    raise RecordError("malformed", f"{name!r} must be a text, got {shortened(value)}")


def question_turn(text: str, num_images: int) -> dict[str, Any]:
    """Return a user turn; images without placeholders in the text come first."""
    if IMAGE_TOKEN in text or not num_images:
        return {"role": "user", "content": text}
    words = [{"type": "text", "text": text}] if text else []
    return {"role": "user", "content": [{"type": "image"}] * num_images + words}


def dialogue(
    record: Record, turns: Sequence[Mapping[str, Any]], images: list[Any], answers: Sequence[str] = ()
) -> dict[str, Any]:
    """Return the record of dialogue of a record in another format.

    Args:
        record: The record, for its id and system message, and for keys that no format reads (``videos``, ``tools``).
        turns: The turns after the system message.
        images: The images.
        answers: All accepted answers to the last question, if there are several.
    """
    found: dict[str, Any] = {"images": images, "messages": list(turns)}
    if not _KEPT.isdisjoint(record):
        found |= {key: record[key] for key in _KEPT.intersection(record) if record[key]}
    number = first_value(record, ID_KEYS)
    if number is not None:
        found["id"] = number
    if len(answers) > 1:
        found["answers"] = list(answers)
    return found
