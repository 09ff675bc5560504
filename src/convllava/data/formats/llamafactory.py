"""LlamaFactory's ``dataset_info.json`` next to a data file: the names of its columns and roles."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from ...support import read_json
from ..faults import RecordError
from .questions import read_alpaca
from .record_format import Record, RecordFormat, dialogue, first_value, is_anything

_INFO = "dataset_info.json"
_COLUMNS_OF_ALPACA = {"prompt": "instruction", "query": "input", "response": "output"}
_TAGS = {
    "role_tag": "from",
    "content_tag": "value",
    "user_tag": "human",
    "assistant_tag": "gpt",
    "system_tag": "system",
    "observation_tag": "observation",
    "function_tag": "function_call",
}
"""LlamaFactory's own values for what an entry does not name."""


def declared_format(path: Path) -> RecordFormat | None:
    """Return the format that a ``dataset_info.json`` in the folder of a data file declares for it; None without one.

    Raises:
        ValueError: The file describes the data twice, or cannot be read.
    """
    info = path.parent / _INFO
    if not info.is_file():
        return None
    entries = {
        name: entry
        for name, entry in read_json(info).items()
        if isinstance(entry, dict) and entry.get("file_name") and Path(str(entry["file_name"])).name == path.name
    }
    layouts = [(entry.get("formatting"), entry.get("columns"), entry.get("tags")) for entry in entries.values()]
    if any(layout != layouts[0] for layout in layouts):
        raise ValueError(f"{info} describes {path.name} in several ways ({', '.join(entries)}): keep one of them")
    return next((_format_of(name, entry) for name, entry in entries.items()), None)


def _format_of(name: str, entry: Mapping[str, Any]) -> RecordFormat:
    columns = {key: column for key, column in (entry.get("columns") or {}).items() if column}
    if entry.get("formatting", "alpaca") == "alpaca":
        read = partial(_read_alpaca, {**_COLUMNS_OF_ALPACA, **columns})
        return RecordFormat("llamafactory", f"LlamaFactory Alpaca ({_INFO}: {name})", is_anything, read)
    tags = {**_TAGS, **(entry.get("tags") or {})}
    reader = partial(_read_sharegpt, {"messages": "conversations", **columns}, tags)
    return RecordFormat("llamafactory", f"LlamaFactory ShareGPT ({_INFO}: {name})", is_anything, reader)


def _renamed(columns: Mapping[str, str], record: Record) -> dict[str, Any]:
    """Return the columns that the file declares, under LlamaFactory's names, and the id."""
    found = {key: record.get(column) for key, column in columns.items()}
    return {**found, "id": record.get("id")}


def _read_alpaca(columns: Mapping[str, str], record: Record, image_folder: Path) -> dict[str, Any]:
    values = _renamed(columns, record)
    if not isinstance(values["prompt"], str):
        raise RecordError("malformed", f"no text under {columns['prompt']!r}, the column of prompts in {_INFO}")
    return read_alpaca({_COLUMNS_OF_ALPACA.get(key, key): value for key, value in values.items()}, image_folder)


def _read_sharegpt(columns: Mapping[str, str], tags: Mapping[str, str], record: Record, _: Path) -> dict[str, Any]:
    values = _renamed(columns, record)
    roles = {tags["user_tag"]: "user", tags["assistant_tag"]: "assistant", tags["system_tag"]: "system"}
    turns = values["messages"]
    if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
        raise RecordError("malformed", f"no list of turns under {columns['messages']!r}, the column of {_INFO}")
    named = [(turn.get(tags["role_tag"]), turn.get(tags["content_tag"])) for turn in turns]
    read = [{"role": roles.get(role, role), "content": content} for role, content in named]
    images = first_value(values, ("images",)) or []
    return dialogue(values, read, images if isinstance(images, list) else [images])
