"""Records of dialogues as samples: ``conversations`` of LLaVA and ShareGPT, or ``messages`` with roles.

A record and the sample that it becomes::

    {"id": "7", "image": "7.png", "conversations": [
        {"from": "human", "value": "<image>\\nWhat is the total?"},
        {"from": "gpt", "value": "12.50"}]}

    user: [image] "What is the total?"    assistant: "12.50"

A single ``<image>`` is moved to the front of its turn, as in LLaVA's code; several stay in place. The newline after
images that open a turn belongs to the prompt format. ``messages`` have ``role`` and ``content``: a text with the same
placeholders, or a list of parts (``image``, ``image_url``, ``text``), which may hold the images. ``system`` is a
system message, and ``answers`` lists accepted answers. ``weight: 0`` of an answer keeps it as context that is not
learned. ``null`` and empty values count as absent, and a key that other programs read and that would change the sample
(``videos``, ``tools``, ...) makes the record unusable. Records of other layouts are converted to such a record first
(``formats``).
"""

from collections.abc import Iterator, Sequence
from typing import Any

from ..constants import IMAGE_TOKEN, Message
from ..support import encodable, is_encodable
from .faults import BadSampleError, Fault, RecordError
from .images import StoredImage, is_absent, shortened
from .samples import Origin, Sample

ROLES = {"human": "user", "gpt": "assistant", "system": "system"}
_ROLE_NAMES = {**ROLES, "user": "user", "assistant": "assistant", "developer": "system"}
_TOOL_ROLES = frozenset(("tool", "function", "function_call", "observation", "tool_call", "tool_response"))

_OTHER_IMAGE_KEYS = frozenset("image_path image_paths image_file image_files image_url image_urls img imgs".split())
"""Keys under which other programs look for images; next to ``image`` or ``images`` they are only notes."""

_UNREAD_KEYS = frozenset(("video", "videos", "audio", "audios", "tools", "chosen", "rejected"))
_UNREAD_TURN_KEYS = frozenset(
    "image images video videos audio audios tool_calls function_call reasoning reasoning_content".split()
)
"""Keys of a record and of a turn whose content would be lost."""

_OTHER_WEIGHTS = frozenset(("loss", "train", "loss_weight"))
"""Keys of a turn by which other programs leave an answer out of the loss, unless it is true."""

_NOTED_TURN_KEYS = _UNREAD_TURN_KEYS | _OTHER_WEIGHTS | {"weight"}

IMAGE_PARTS = ("image", "image_url", "input_image")
_TEXT_PARTS = ("text", "input_text", "output_text")
_KEYS_OF_IMAGE = ("image", "image_url", "path", "url")


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
    except RecordError as error:
        raise BadSampleError(Fault(error.kind, *origin, sample_id, str(error))) from error
    except RecursionError as error:
        raise BadSampleError(Fault("malformed", *origin, sample_id, "nested too deeply to be read")) from error
    return Sample(sample_id, tuple(images), messages, origin, _references(record))


def record_id(record: Any, number: int) -> str:
    """Return a record's id, or its number where it has none; lone surrogates are escaped."""
    given = record.get("id") if isinstance(record, dict) else None
    return encodable(str(number if given is None else given))


def stored_images(record: Any) -> list[Any]:
    """Return what a record gives as its images: file names, or structs of a shard; null and empty ones are absent.

    Without ``image`` and ``images``, these are the images of its parts.
    """
    if not isinstance(record, dict):
        return []
    given: Any = record.get("image") or record.get("images") or []
    found = [one for one in (given if isinstance(given, list) else [given]) if not is_absent(one)]
    return found or list(_images_of_parts(record))


def parts_of(record: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the parts of all turns whose content is a list of parts."""
    turns = record.get("conversations") or record.get("messages")
    for turn in turns if isinstance(turns, list) else ():
        if isinstance(turn, dict):
            content = turn.get("content") if turn.get("value") is None else turn["value"]
            if isinstance(content, list):
                yield from (part for part in content if isinstance(part, dict))


def _images_of_parts(record: dict[str, Any]) -> Iterator[Any]:
    for part in parts_of(record):
        if _type_of(part) in IMAGE_PARTS:
            given = next((part[key] for key in _KEYS_OF_IMAGE if part.get(key)), None)
            held = given.get("url") or given if isinstance(given, dict) else given
            if held:
                yield held


def _type_of(part: dict[str, Any]) -> Any:
    return part.get("type") or ("image" if part.get("image") else "text")


def _references(record: dict[str, Any]) -> tuple[str, ...]:
    given = record.get("answers")
    return tuple(one for one in given if isinstance(one, str)) if isinstance(given, list) else ()


def _messages(record: Any, images: int) -> list[Message]:
    if not isinstance(record, dict):
        raise RecordError("malformed", f"expected an object, got {type(record).__name__}")
    _check_keys(record, _UNREAD_KEYS, ": remove it, or leave the record out")
    if not images:
        _check_keys(record, _OTHER_IMAGE_KEYS, "; images belong under 'image'")
        if stored_images(record):
            raise RecordError("missing_image", f"the shard has no image {shortened(stored_images(record)[0])}")
    key = "messages" if not record.get("conversations") and record.get("messages") is not None else "conversations"
    turns = record.get(key)
    if not isinstance(turns, list) or not turns:
        keys = shortened(list(record)) if turns is None else ""
        hint = f"; the record has the keys {keys}, by which no format is known" if keys else ""
        raise RecordError("malformed", f"{key!r} must be a list of turns, got {shortened(turns)}{hint}")
    messages = [_message(turn, number) for number, turn in enumerate(turns)]
    messages = _joined(messages) if key == "messages" else messages
    return [*_system(record, messages), *messages]


def _joined(messages: list[Message]) -> list[Message]:
    """Return messages in which a user's text and image in turns of their own are one turn, as OpenAI takes them."""
    joined: list[Message] = []
    for message in messages:
        if joined and message["role"] == joined[-1]["role"] == "user" and _shows(message) != _shows(joined[-1]):
            joined[-1] = {"role": "user", "content": [*joined[-1]["content"], *message["content"]]}
        else:
            joined.append(message)
    return joined


def _shows(message: Message) -> bool:
    return any(part["type"] == "image" for part in message["content"])


def _check_keys(values: dict[str, Any], unread: frozenset[str], hint: str) -> None:
    """Reject keys that are set and not read: what they hold would be lost."""
    if unread.isdisjoint(values):
        return
    found = next((key for key in values if key in unread and values[key]), None)
    if found is not None:
        raise RecordError("malformed", f"key {found!r} is not read here{hint}")


def _system(record: dict[str, Any], messages: Sequence[Message]) -> list[Message]:
    """Return the system message of a record that has it under a key of its own."""
    system = record.get("system")
    if not system:
        return []
    if not isinstance(system, str) or messages[0]["role"] == "system":
        reason = "a text" if not isinstance(system, str) else "given once, there or as the first turn"
        raise RecordError("malformed", f"'system' must be {reason}, got {shortened(system)}")
    return [{"role": "system", "content": [_text(system, None)]}]


def role_of(turn: dict[str, Any]) -> str | None:
    """Return the role of a turn (``user``, ``assistant`` or ``system``), or None for any other."""
    given = turn.get("from")
    if given is None:
        given = turn.get("role")
    return _ROLE_NAMES.get(given) if isinstance(given, str) else None


def _message(turn: Any, number: int) -> Message:
    values = turn if isinstance(turn, dict) else {}
    role = role_of(values)
    content = values.get("value")
    if content is None:
        content = values.get("content")
    if role is None or not isinstance(content, (str, list)):
        _refuse_tools(values, number)
        raise RecordError(
            "malformed",
            f"turn {number}: expected 'from' (one of {', '.join(ROLES)}) and 'value' (text), got {shortened(turn)}",
        )
    message: Message = {"role": role, "content": _content(role, content, number)}
    if not _NOTED_TURN_KEYS.isdisjoint(values):
        _check_keys(values, _UNREAD_TURN_KEYS, f" (turn {number}): remove it, or leave the record out")
        if role == "assistant" and not _is_learned(values, number):
            message["weight"] = 0
    return message


def _is_learned(turn: dict[str, Any], number: int) -> bool:
    """Return whether an answer is learned: it has no ``weight`` of 0."""
    other = next((key for key in _OTHER_WEIGHTS if turn.get(key) not in (None, True)), None)
    if other is not None:
        raise RecordError("malformed", f"key {other!r} is not read here (turn {number}): write 'weight': 0 or 1")
    weight = turn.get("weight")
    if weight not in (None, 0, 1):
        reason = f"turn {number}: 'weight' must be 0 (not learned) or 1, got {shortened(weight)}"
        raise RecordError("malformed", reason)
    return weight is None or bool(weight)


def _refuse_tools(values: dict[str, Any], number: int) -> None:
    given = values.get("role") if values.get("from") is None else values["from"]
    if str(given) in _TOOL_ROLES:
        raise RecordError("malformed", f"turn {number} is a {given!r} turn: tools are not read, leave the record out")


def _content(role: str, content: Any, number: int) -> list[dict[str, str]]:
    if isinstance(content, list):
        return [_part(part, number) for part in content]
    if role == "user" and IMAGE_TOKEN in content:
        return list(_split(content, number))
    return [_text(content, number)]


def _part(part: Any, number: int) -> dict[str, str]:
    kind = _type_of(part) if isinstance(part, dict) else None
    if kind in IMAGE_PARTS:
        return {"type": "image"}
    if kind in _TEXT_PARTS and isinstance(part.get("text"), str):
        return _text(part["text"], number)
    raise RecordError("malformed", f"turn {number}: a part is an image or a text with 'text', got {shortened(part)}")


def _text(text: str, turn: int | None) -> dict[str, str]:
    """Return a text part; what no tokenizer can encode is rejected here, before training meets it."""
    if not text.isascii() and not is_encodable(text):
        place = "system" if turn is None else f"turn {turn}"
        raise RecordError("malformed", f"{place}: the text has half of a surrogate pair, got {shortened(text)}")
    return {"type": "text", "text": text}


def _split(value: str, turn: int) -> Iterator[dict[str, str]]:
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
            yield _text(piece, turn)


def _check_order(roles: list[str]) -> None:
    dialogue = roles[1:] if roles[0] == "system" else roles
    turns, odd = divmod(len(dialogue), 2)
    if odd or not turns or dialogue != ["user", "assistant"] * turns:
        raise RecordError(
            "role_order",
            f"roles out of order ({', '.join(roles)}); human and gpt alternate, human first, gpt last",
        )


def _check_counts(messages: list[Message], images: int, record: dict[str, Any]) -> None:
    placeholders = 0
    for message in messages:
        for part in message["content"]:
            placeholders += part["type"] == "image"
    if placeholders != images:
        hint = ""
        if placeholders > images and IMAGE_TOKEN in repr(record):
            hint = f'; a text about the word {IMAGE_TOKEN} is written as a part: {{"type": "text", "text": ...}}'
        elif placeholders > images:
            hint = ". Images are read from the record's 'image', in the order of the parts, or else from the parts"
        raise RecordError(
            "placeholder_mismatch",
            f"{placeholders} {IMAGE_TOKEN} placeholders but {images} images; give one image for each placeholder{hint}",
        )


def answers(messages: Sequence[Message]) -> list[str]:
    """Return the assistant's texts without surrounding white space."""
    said = (message["content"] for message in messages if message["role"] == "assistant")
    return ["".join(part.get("text", "") for part in content).strip() for content in said]


def _check_answers(messages: list[Message]) -> None:
    for message in messages:
        if message["role"] == "assistant" and "weight" not in message:
            for part in message["content"]:
                text = part.get("text")
                if text and not text.isspace():
                    return
    empty = "every answer that is not empty has weight 0" if any(answers(messages)) else "every answer is empty"
    raise RecordError("no_answer", f"{empty}: there is nothing to learn from")
