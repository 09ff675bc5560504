"""Records of dialogues as samples: LLaVA's ``conversations``, or ``messages`` with roles.

A record and the sample that it becomes::

    {"id": "7", "image": "7.png", "conversations": [
        {"from": "human", "value": "<image>\\nWhat is the total?"},
        {"from": "gpt", "value": "12.50"}]}

    user: [image] "What is the total?"    assistant: "12.50"

A single ``<image>`` is moved to the front of its turn, as in LLaVA's code; several stay in place. The newline after
images that open a turn belongs to the prompt format. ``messages`` have ``role`` and ``content``: a text with the same
placeholders, or a list of parts.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from ..constants import IMAGE_TOKEN
from .faults import BadSampleError, Fault
from .images import StoredImage
from .samples import Message, Origin, Sample

ROLES = {"human": "user", "gpt": "assistant", "system": "system"}
_ROLE_NAMES = {**ROLES, "user": "user", "assistant": "assistant"}


class _RecordError(Exception):
    """A fault's kind and message, before file and record are known."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def read_sample(record: Any, images: Sequence[StoredImage], origin: Origin) -> Sample:
    """Return the sample of a record and its images.

    Raises:
        BadSampleError: The record cannot be used; the message names file and record.
    """
    sample_id = record_id(record, origin.record)
    try:
        messages = _messages(record)
        _check_order([message["role"] for message in messages])
        _check_counts(messages, len(images))
        _check_answers(messages)
    except _RecordError as error:
        raise BadSampleError(Fault(error.kind, *origin, sample_id, str(error))) from error
    return Sample(sample_id, tuple(images), messages, origin)


def record_id(record: Any, number: int) -> str:
    """Return a record's id, or its number where it has none."""
    given = record.get("id") if isinstance(record, dict) else None
    return str(number if given is None else given)


def _messages(record: Any) -> list[Message]:
    if not isinstance(record, dict):
        raise _RecordError("malformed", f"expected an object, got {type(record).__name__}")
    key = "messages" if record.get("conversations") is None and "messages" in record else "conversations"
    turns = record.get(key)
    if not isinstance(turns, list) or not turns:
        raise _RecordError("malformed", f"{key!r} must be a list of turns, got {turns!r}")
    return [_message(turn, number) for number, turn in enumerate(turns)]


def _message(turn: Any, number: int) -> Message:
    values = turn if isinstance(turn, dict) else {}
    role = _ROLE_NAMES.get(str(values.get("from", values.get("role"))))
    content = values.get("value", values.get("content"))
    if role is None or not isinstance(content, str | list):
        raise _RecordError(
            "malformed", f"turn {number}: expected 'from' (one of {', '.join(ROLES)}) and 'value' (text), got {turn!r}"
        )
    return {"role": role, "content": list(_content(role, content, number))}


def _content(role: str, content: Any, number: int) -> Iterator[dict[str, str]]:
    if isinstance(content, list):
        yield from (_part(part, number) for part in content)
    elif role == "user":
        yield from _split(content)
    else:
        yield {"type": "text", "text": content}


def _part(part: Any, number: int) -> dict[str, str]:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind == "image":
        return {"type": "image"}
    if kind == "text" and isinstance(part.get("text"), str):
        return {"type": "text", "text": part["text"]}
    raise _RecordError("malformed", f"turn {number}: a part is an image or a text with 'text', got {part!r}")


def _split(value: str) -> Iterator[dict[str, str]]:
    """Split a user's text at its image placeholders."""
    pieces = value.split(IMAGE_TOKEN)
    if len(pieces) == 2:  # LLaVA's code moves a single image to the front, wherever it is
        pieces = ["", (pieces[0] + pieces[1]).strip()]
    opening = True
    for number, piece in enumerate(pieces):
        if number > 0:
            yield {"type": "image"}
            piece = piece.removeprefix("\n") if opening else piece
        opening = opening and not piece
        if piece or len(pieces) == 1:
            yield {"type": "text", "text": piece}


def _check_order(roles: list[str]) -> None:
    dialogue = roles[1:] if roles[0] == "system" else roles
    expected = ["user" if number % 2 == 0 else "assistant" for number in range(len(dialogue))]
    if dialogue != expected or not dialogue or dialogue[-1] != "assistant":
        raise _RecordError(
            "role_order",
            f"roles out of order ({', '.join(roles)}); human and gpt alternate, human first, gpt last",
        )


def _check_counts(messages: list[Message], images: int) -> None:
    placeholders = sum(part["type"] == "image" for message in messages for part in message["content"])
    if placeholders != images:
        raise _RecordError(
            "placeholder_mismatch",
            f"{placeholders} {IMAGE_TOKEN} placeholders but {images} images; give one image for each placeholder",
        )


def answers(messages: Sequence[Message]) -> list[str]:
    """Return the assistant's texts without surrounding white space."""
    said = (message["content"] for message in messages if message["role"] == "assistant")
    return ["".join(part.get("text", "") for part in content).strip() for content in said]


def _check_answers(messages: list[Message]) -> None:
    if not any(answers(messages)):
        raise _RecordError("no_answer", "every answer is empty: there is nothing to learn from")
