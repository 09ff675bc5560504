"""JSON schemas that answers must follow: bounded in size and depth, and tried in a process that can be ended.

The library that compiles them bounds its own work, but not in every case: 30 patterns for one text take it minutes. It
imports neither torch nor the model, so that the process starts in a moment.
"""

import json
import os
import subprocess
import sys
from contextlib import suppress
from typing import Any

from .support import require

MAX_SCHEMA_BYTES = 32 << 10
MAX_SCHEMA_DEPTH = 64

CPU_SECONDS = 2
"""Time limit of the process that tries a schema; usual ones take it 0.1 s, nearly all of it to start."""

WALL_SECONDS = 60
MAX_ADDRESS_SPACE = 2 << 30

WORKER_COMMAND = [sys.executable, "-m", "convllava.json_schema"]

STYLE = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
"""Answers are written as `json.dumps` does: with free whitespace a model can write blanks up to its length limit."""

_COMBINATIONS = frozenset(
    ["additionalProperties", "unevaluatedProperties", "patternProperties", "$ref", "anyOf", "oneOf", "not"]
)


class SchemaError(ValueError):
    """A JSON schema that answers cannot follow."""


def schema_text(schema: Any) -> str:
    """Return a schema as JSON, with the order of its keys, which is that of the answer.

    An object that lists its properties has no others unless the schema says so, as with most servers of language
    models: a model would go on inventing keys.

    Args:
        schema: The schema as parsed JSON.

    Raises:
        SchemaError: It is no object, too large, too deep, or not JSON.
    """
    if not isinstance(schema, dict):
        raise SchemaError(f"a JSON schema must be an object, got {type(schema).__name__}")
    _check_depth(schema)
    try:
        text = json.dumps(schema, allow_nan=False)
        if '"allOf"' not in text:  # a closed object excludes the keys of the other parts
            text = json.dumps(_closed(schema), allow_nan=False)
    except (ValueError, TypeError) as error:
        raise SchemaError(f"the JSON schema is not JSON: {error}") from error
    if len(text) > MAX_SCHEMA_BYTES:
        raise SchemaError(f"the JSON schema has {len(text)} bytes, at most {MAX_SCHEMA_BYTES} are allowed")
    return text


def _check_depth(schema: Any) -> None:
    level = [schema]
    for _ in range(MAX_SCHEMA_DEPTH):
        inner = [value for value in level if isinstance(value, (dict, list))]
        level = [child for value in inner for child in (value.values() if isinstance(value, dict) else value)]
        if len(level) > MAX_SCHEMA_BYTES:
            raise SchemaError(f"the JSON schema has too many values: at most {MAX_SCHEMA_BYTES} bytes are allowed")
        if not level:
            return
    raise SchemaError(f"the JSON schema has more than {MAX_SCHEMA_DEPTH} levels: use $defs and $ref for nested parts")


def _closed(schema: Any) -> Any:
    if not isinstance(schema, dict):
        return schema
    closed = {key: _closed_part(key, value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and not schema.keys() & _COMBINATIONS:
        closed["additionalProperties"] = False
    return closed


def _closed_part(key: str, value: Any) -> Any:
    if key in ("properties", "$defs", "definitions", "patternProperties") and isinstance(value, dict):
        return {name: _closed(part) for name, part in value.items()}
    if key in ("anyOf", "oneOf", "prefixItems") and isinstance(value, list):
        return list(map(_closed, value))
    return _closed(value) if key in ("items", "additionalProperties") else value


def check_schema(text: str) -> None:
    """Check in a process of its own that a schema can be compiled in time.

    Args:
        text: Result of `schema_text`.

    Raises:
        SchemaError: It contradicts itself, has a keyword that is not supported, or takes too long.
        MissingPackageError: llguidance is not installed.
    """
    require_llguidance()
    too_long = f"the JSON schema takes more than {CPU_SECONDS} s to compile: simplify its patterns and numbers"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, filter(None, sys.path)))}
    try:
        done = subprocess.run(
            WORKER_COMMAND, input=text.encode(), capture_output=True, timeout=WALL_SECONDS, env=environment, check=False
        )
    except subprocess.TimeoutExpired:
        raise SchemaError(too_long) from None
    if done.returncode:  # ended by a limit
        raise SchemaError(too_long)
    if error := done.stdout.decode("utf-8", "backslashreplace"):
        raise SchemaError(error)


def require_llguidance() -> Any:
    """Import llguidance.

    Raises:
        MissingPackageError: It is not installed.
    """
    return require("llguidance", extra="json", purpose="answers in JSON")


def grammar_of(text: str) -> str:
    """Return llguidance's grammar of a schema, after an optional blank, which some prompt formats put before it."""
    schema = json.dumps(json.loads(text) | {"x-guidance": STYLE})
    return f'start: " "? answer\nanswer: %json {schema}\n'


def limits() -> Any:
    """Return the bounds of llguidance's work for a grammar and for each token."""
    return require_llguidance().LLParserLimits(
        initial_lexer_fuel=500_000,
        step_lexer_fuel=50_000,
        step_max_items=10_000,
        max_lexer_states=50_000,
        max_grammar_size=100_000,
        precompute_large_lexemes=False,
        verbose_errors=False,
    )


def compiled(vocabulary: Any, text: str) -> Any:
    """Return llguidance's matcher of a schema, at the beginning of an answer.

    Args:
        vocabulary: llguidance's form of a tokenizer.
        text: Result of `schema_text`.

    Raises:
        SchemaError: The schema contradicts itself, or has a keyword that is not supported.
    """
    matcher = require_llguidance().LLMatcher(vocabulary, grammar_of(text), log_level=0, limits=limits())
    first = matcher.deep_copy()
    first.consume_tokens(vocabulary.greedy_tokenize(" "))  # the optional blank says nothing about the rest
    first.compute_bitmask()
    error = " ".join(first.get_error().split())
    if "NoExtension" in error or (first.is_stopped() and not error):
        raise SchemaError("the JSON schema allows no answer: it refers to itself without end or contradicts itself")
    if error:
        raise SchemaError(f"the JSON schema cannot be followed: {error[:300]}")
    return matcher


class _Bytes:
    """A vocabulary of bytes, in the form that llguidance takes."""

    eos_token_id, bos_token_id, special_token_ids = 256, None, (256,)
    tokens = (*(bytes([byte]) for byte in range(256)), b"<end>")

    def __call__(self, text: bytes) -> list[int]:
        """Return the tokens of a text."""
        return list(text)


def _set_limits() -> None:
    with suppress(ImportError, ValueError, OSError):  # not on every system
        import resource

        resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS + 1))
        resource.setrlimit(resource.RLIMIT_AS, (MAX_ADDRESS_SPACE, MAX_ADDRESS_SPACE))


def main() -> None:
    """Write what is wrong with the schema on standard input, or nothing."""
    _set_limits()
    library = require_llguidance()
    vocabulary = library.LLTokenizer(library.TokenizerWrapper(_Bytes()), n_vocab=len(_Bytes.tokens))
    try:
        compiled(vocabulary, sys.stdin.buffer.read().decode())
    except SchemaError as error:
        sys.stdout.buffer.write(str(error).encode("utf-8", "backslashreplace"))


if __name__ == "__main__":
    main()
