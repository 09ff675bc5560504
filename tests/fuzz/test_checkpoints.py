"""Checkpoints with values changed at random: opened, or refused with a ValueError that names the checkpoint.

The long form: ``CONVLLAVA_FUZZ_CASES=5000 pytest -m slow tests/fuzz/test_checkpoints.py``.
"""

import json
import os
import random
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from convllava.inference import Generator, load_pretrained

CASES = int(os.environ.get("CONVLLAVA_FUZZ_CASES", "150"))
SECONDS_PER_CASE = 30

VALUES: list[Any] = [
    *(None, True, False, "", "x", "large", [], [None], ["x"], {}, {"a": 1}, [[1]]),
    *(0, 1, -1, 2, 3, 7, 64, 99_999, 10**6, 10**9, 2**31, 2**63, 10**400, 0.0, 0.5, -1.5, 2.0, 1e-320, 1e308),
    *(float("nan"), float("inf")),
]
FILES = {
    "tiny": ("config.json", "generation_config.json", "processor_config.json", "tokenizer_config.json"),
    "official": ("config.json", "generation_config.json", "tokenizer_config.json", "vision_tower/config.json"),
}


def places(content: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """All places of a JSON value, from the outside to the inside."""
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in items:
        yield (*path, key)
        yield from places(value, (*path, key))


def spoil(content: dict[str, Any], source: random.Random) -> str:
    """Change one value, or remove it; return what was done."""
    *outer, last = source.choice(list(places(content)))
    at: Any = content
    for key in outer:
        at = at[key]
    if source.random() < 0.1:
        del at[last]
        return f"{[*outer, last]} removed"
    at[last] = source.choice(VALUES)
    return f"{[*outer, last]} = {str(at[last])[:40]}"


@pytest.mark.slow
@pytest.mark.parametrize("layout", FILES)
def test_spoiled_values(
    layout: str, tiny_checkpoint: Path, tmp_path: Path, request: pytest.FixtureRequest, capsys: Any
) -> None:
    folder = tmp_path / "checkpoint"
    if layout == "tiny":
        shutil.copytree(tiny_checkpoint, folder)
    else:
        pytest.importorskip("sentencepiece")
        source = request.getfixturevalue("shared_dir") / "reference" / "official-split-tiny"
        shutil.copytree(source, folder, copy_function=shutil.copyfile)
        folder.chmod(0o755)
        (folder / "vision_tower").chmod(0o755)
    found: list[str] = []
    for seed in range(CASES):
        chance = random.Random(seed)
        path = folder / chance.choice(FILES[layout])
        if not path.is_file():
            continue
        before = path.read_text()
        content = json.loads(before)
        changes = [spoil(content, chance) for _ in range(chance.choice((1, 1, 1, 2)))] if content else []
        path.write_text(json.dumps(content))
        started = time.perf_counter()
        case = f"seed {seed}, {path.name}: {', '.join(changes)}"
        try:
            Generator(*load_pretrained(folder, device="cpu"))
        except ValueError as error:
            if str(folder) not in str(error) and "generation_config.json" not in str(error):
                found.append(f"{case}: does not name the checkpoint: {str(error)[:200]}")
        except Exception as error:
            found.append(f"{case}: {type(error).__name__}: {str(error)[:200]}")
        finally:
            path.write_text(before)
        if time.perf_counter() - started > SECONDS_PER_CASE:
            found.append(f"{case}: took {time.perf_counter() - started:.0f} s")
    assert not found, "\n".join(found)
