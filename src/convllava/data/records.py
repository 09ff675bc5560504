"""Records of dialogues as samples: LLaVA's ``conversations``, or ``messages`` with roles.

A record and the sample that it becomes::

    {"id": "7", "image": "7.png", "conversations": [
        {"from": "human", "value": "<image>\\nWhat is the total?"},
        {"from": "gpt", "value": "12.50"}]}

    user: [image] "What is the total?"    assistant: "12.50"

A single ``<image>`` is moved to the front of its turn, as in LLaVA's code; several stay in place. The newline after
images that open a turn belongs to the prompt format. ``messages`` have ``role`` and ``content``: a text with the same
placeholders, or a list of parts. ``system`` is a system message. ``weight: 0`` of an answer keeps it as context that is
not learned. ``null`` and empty values count as absent, and a key that other programs read and that would change the
sample (``videos``, ``tools``, ...) makes the record unusable.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from ..constants import IMAGE_TOKEN, Message
from ..support import encodable, is_encodable
from .faults import BadSampleError, Fault
from .images import StoredImage
from .samples import Origin, Sample

ROLES = {"human": "user", "gpt": "assistant", "system": "system"}
_ROLE_NAMES = {**ROLES, "user": "user", "assistant": "assistant"}

_OTHER_IMAGE_KEYS = frozenset("image_path image_paths image_file image_files image_url image_urls img imgs".split())
"""Keys under which other programs look for images; next to ``image`` or ``images`` they are only notes."""

_UNREAD_KEYS = frozenset(("video", "videos", "audio", "audios", "tools"))
_UNREAD_TURN_KEYS = frozenset(
    "image images video videos audio audios tool_calls function_call reasoning reasoning_content".split()
)
"""Keys of a record and of a turn whose content would be lost."""

_WEIGHT = "weight"
_OTHER_WEIGHTS = frozenset(("loss", "train", "loss_weight"))
"""Keys of a turn by which other programs leave an answer out of the loss, unless it is true."""

_NOTED_TURN_KEYS = _UNREAD_TURN_KEYS | _OTHER_WEIGHTS | {_WEIGHT}


_WAY_OUT = ": remove it, or leave the record out"


class UnreadableRecord(Exception):
    """Takes the place of a record that cannot be decoded; its message is the reason."""


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
        messages = _messages(record, len(images))
        _check_order([message["role"] for message in messages])
        _check_counts(messages, len(images), record)
        _check_answers(messages)
    except _RecordError as error:
        raise BadSampleError(Fault(error.kind, *origin, sample_id, str(error))) from error
    except RecursionError as error:
        raise BadSampleError(Fault("malformed", *origin, sample_id, "nested too deeply to be read")) from error
    return Sample(sample_id, tuple(images), messages, origin)


def record_id(record: Any, number: int) -> str:
    """Return a record's id, or its number where it has none; lone surrogates are escaped."""
    given = record.get("id") if isinstance(record, dict) else None
    return encodable(str(number if given is None else given))


def stored_images(record: Any) -> list[Any]:
    """Return what a record gives as its images: file names, or structs of a shard; null and empty ones are absent."""
    if not isinstance(record, dict):
        return []
    given: Any = record.get("image") or record.get("images") or []
    return [one for one in (given if isinstance(given, list) else [given]) if one is not None and one != ""]


def _messages(record: Any, images: int) -> list[Message]:
    if isinstance(record, UnreadableRecord):
        raise _RecordError("malformed", str(record))
    if not isinstance(record, dict):
        raise _RecordError("malformed", f"expected an object, got {type(record).__name__}")
    _check_keys(record, _UNREAD_KEYS, _WAY_OUT)
    if not images:
        _check_keys(record, _OTHER_IMAGE_KEYS, "; images belong under 'image'")
        if stored_images(record):
            raise _RecordError("missing_image", f"the shard has no image {shortened(stored_images(record)[0])}")
    key = "messages" if not record.get("conversations") and record.get("messages") is not None else "conversations"
    turns = record.get(key)
    if not isinstance(turns, list) or not turns:
        raise _RecordError("malformed", f"{key!r} must be a list of turns, got {shortened(turns)}")
    messages = [_message(turn, number) for number, turn in enumerate(turns)]
    return [*_system(record, messages), *messages]


def _check_keys(values: dict[str, Any], unread: frozenset[str], hint: str) -> None:
    """Reject keys that are set and not read: what they hold would be lost."""
    if unread.isdisjoint(values):
        return
    found = next((key for key in values if key in unread and values[key]), None)
    if found is not None:
        raise _RecordError("malformed", f"key {found!r} is not read here{hint}")


def _system(record: dict[str, Any], messages: Sequence[Message]) -> list[Message]:
    """Return the system message of a record that has it under a key of its own."""
    system = record.get("system")
    if not system:
        return []
    if not isinstance(system, str) or messages[0]["role"] == "system":
        reason = "a text" if not isinstance(system, str) else "given once, there or as the first turn"
        raise _RecordError("malformed", f"'system' must be {reason}, got {shortened(system)}")
    return [{"role": "system", "content": [_text(system, "system")]}]


def role_of(turn: dict[str, Any]) -> str | None:
    """Return the role of a turn (``user``, ``assistant`` or ``system``), or None for any other."""
    given = turn.get("role") if turn.get("from") is None else turn["from"]
    return _ROLE_NAMES.get(str(given))


def _message(turn: Any, number: int) -> Message:
    values = turn if isinstance(turn, dict) else {}
    role = role_of(values)
    content = values.get("content") if values.get("value") is None else values["value"]
    if role is None or not isinstance(content, str | list):
        raise _RecordError(
            "malformed",
            f"turn {number}: expected 'from' (one of {', '.join(ROLES)}) and 'value' (text), got {shortened(turn)}",
        )
    message: Message = {"role": role, "content": list(_content(role, content, number))}
    if not _NOTED_TURN_KEYS.isdisjoint(values):
        _check_keys(values, _UNREAD_TURN_KEYS, f" (turn {number}){_WAY_OUT}")
        if role == "assistant" and not _is_learned(values, number):
            message["weight"] = 0
    return message


def _is_learned(turn: dict[str, Any], number: int) -> bool:
    """Return whether an answer is learned: it has no ``weight`` of 0."""
    other = next((key for key in _OTHER_WEIGHTS if turn.get(key) not in (None, True)), None)
    if other is not None:
        raise _RecordError("malformed", f"key {other!r} is not read here (turn {number}): write 'weight': 0 or 1")
    weight = turn.get(_WEIGHT)
    if weight not in (None, 0, 1):
        reason = f"turn {number}: 'weight' must be 0 (not learned) or 1, got {shortened(weight)}"
        raise _RecordError("malformed", reason)
    return weight is None or bool(weight)


def _content(role: str, content: Any, number: int) -> Iterator[dict[str, str]]:
    if isinstance(content, list):
        yield from (_part(part, number) for part in content)
    elif role == "user":
        yield from _split(content, f"turn {number}")
    else:
        yield _text(content, f"turn {number}")


def _part(part: Any, number: int) -> dict[str, str]:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind == "image":
        return {"type": "image"}
    if kind == "text" and isinstance(part.get("text"), str):
        return _text(part["text"], f"turn {number}")
    raise _RecordError("malformed", f"turn {number}: a part is an image or a text with 'text', got {shortened(part)}")


def _text(text: str, place: str) -> dict[str, str]:
    """Return a text part; what no tokenizer can encode is rejected here, before training meets it."""
    if not is_encodable(text):
        raise _RecordError("malformed", f"{place}: the text has half of a surrogate pair, got {shortened(text)}")
    return {"type": "text", "text": text}


def _split(value: str, place: str) -> Iterator[dict[str, str]]:
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
            yield _text(piece, place)


def shortened(value: Any) -> str:
    """Return a value as it is written in messages, of bounded length."""
    try:
        written = ascii(value) if isinstance(value, str) else encodable(repr(value))
    except RecursionError:
        return "a value of very many levels"
    return written if len(written) <= 200 else f"{written[:150]}...{written[-40:]}"


def _check_order(roles: list[str]) -> None:
    dialogue = roles[1:] if roles[0] == "system" else roles
    expected = ["user" if number % 2 == 0 else "assistant" for number in range(len(dialogue))]
    if dialogue != expected or not dialogue or dialogue[-1] != "assistant":
        raise _RecordError(
            "role_order",
            f"roles out of order ({', '.join(roles)}); human and gpt alternate, human first, gpt last",
        )


def _check_counts(messages: list[Message], images: int, record: dict[str, Any]) -> None:
    placeholders = sum(part["type"] == "image" for message in messages for part in message["content"])
    if placeholders != images:
        hint = ""
        if placeholders > images and IMAGE_TOKEN in repr(record):
            hint = f'; a text about the word {IMAGE_TOKEN} is written as a part: {{"type": "text", "text": ...}}'
        elif placeholders > images:
            hint = ". Images are read from the record's 'image', in the order of the parts, not from the parts"
        raise _RecordError(
            "placeholder_mismatch",
            f"{placeholders} {IMAGE_TOKEN} placeholders but {images} images; give one image for each placeholder{hint}",
        )


def answers(messages: Sequence[Message]) -> list[str]:
    """Return the assistant's texts without surrounding white space."""
    said = (message["content"] for message in messages if message["role"] == "assistant")
    return ["".join(part.get("text", "") for part in content).strip() for content in said]


def _check_answers(messages: list[Message]) -> None:
    if not any(answers(messages)):
        raise _RecordError("no_answer", "every answer is empty: there is nothing to learn from")
    if not any(answers([message for message in messages if message.get("weight", 1)])):
        raise _RecordError("no_answer", "every answer that is not empty has weight 0: there is nothing to learn from")
