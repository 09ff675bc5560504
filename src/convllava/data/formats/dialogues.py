"""Formats whose records are dialogues: LLaVA, ShareGPT, LlamaFactory, OpenAI, TRL, Qwen, the Cauldron.

All but the last two are records of dialogue as they are (``data.records``) and are told apart for messages only.
"""

from pathlib import Path
from typing import Any

from ..faults import RecordError
from ..images import shortened
from ..records import parts_of
from .record_format import Record, RecordFormat, dialogue, images_of, question_turn, text_of


def _turns(record: Record) -> Any:
    return record.get("conversations") or record.get("messages")


def _is_dialogue(record: Record) -> bool:
    return isinstance(_turns(record), list)


def _types_of_parts(record: Record) -> set[Any]:
    return {part.get("type") for part in parts_of(dict(record))}


def _is_openai(record: Record) -> bool:
    return _is_dialogue(record) and not {"image_url", "input_image"}.isdisjoint(_types_of_parts(record))


def _is_trl(record: Record) -> bool:
    return _is_dialogue(record) and "image" in _types_of_parts(record)


def _is_llamafactory(record: Record) -> bool:
    return _is_dialogue(record) and not record.get("image") and bool(record.get("images"))


def _is_llava(record: Record) -> bool:
    return isinstance(record.get("conversations"), list) and bool(record.get("image"))


def _is_sharegpt(record: Record) -> bool:
    return isinstance(record.get("conversations"), list) and bool(record["conversations"])


def _is_prompt_completion(record: Record) -> bool:
    return isinstance(record.get("prompt"), list) and isinstance(record.get("completion"), list)


def _read_prompt_completion(record: Record, _: Path) -> dict[str, Any]:
    return dialogue(record, [*record["prompt"], *record["completion"]], images_of(record))


def _is_cauldron(record: Record) -> bool:
    texts = record.get("texts")
    return isinstance(texts, list) and bool(texts) and isinstance(texts[0], dict) and "user" in texts[0]


def _read_cauldron(record: Record, _: Path) -> dict[str, Any]:
    images = images_of(record)
    turns: list[dict[str, Any]] = []
    for number, text in enumerate(record["texts"]):
        if not isinstance(text, dict):
            raise RecordError("malformed", f"text {number}: expected 'user' and 'assistant', got {shortened(text)}")
        user = text_of(text.get("user"), "user")
        turns.append(question_turn(user, len(images) if number == 0 else 0))
        turns.append({"role": "assistant", "content": text_of(text.get("assistant"), "assistant")})
    return dialogue(record, turns, images)


DIALOGUES = (
    RecordFormat("openai", "OpenAI messages", _is_openai),
    RecordFormat("trl", "messages with parts (TRL, Qwen)", _is_trl),
    RecordFormat("llamafactory", "LlamaFactory ShareGPT", _is_llamafactory),
    RecordFormat("llava", "LLaVA", _is_llava),
    RecordFormat("sharegpt", "ShareGPT", _is_sharegpt),
    RecordFormat("messages", "messages with roles", _is_dialogue),
    RecordFormat("prompt-completion", "TRL prompt and completion", _is_prompt_completion, _read_prompt_completion),
    RecordFormat("cauldron", "texts of the Cauldron", _is_cauldron, _read_cauldron),
)
"""Formats of dialogues, the most specific first."""
