"""JSON files of a checkpoint, and the keys in them that mean nothing to anybody."""

import json
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Any


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file.

    Raises:
        ValueError: It is not there, not valid JSON, or not an object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ValueError(f"{path} is missing: copy or download it again") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not valid JSON ({error}): copy or download it again") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold a JSON object, got {type(content).__name__}")
    return content


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON object as transformers does."""
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def check_keys(given: Iterable[str], known: Iterable[str], where: str) -> None:
    """Check that every key of a configuration is known; otherwise a misspelled one would silently do nothing.

    Raises:
        ValueError: Names the unknown keys and, for the first, the nearest known one.
    """
    names = sorted(set(known))
    unknown = sorted(set(given) - set(names))
    if not unknown:
        return
    near = get_close_matches(unknown[0], names, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    keys = ", ".join(map(repr, unknown))
    raise ValueError(
        f"{where} describes no model: unknown key{'s' * (len(unknown) > 1)} {keys}{hint} Remove what changes nothing"
    )
