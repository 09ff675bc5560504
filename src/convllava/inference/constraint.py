"""Answers that follow a JSON schema: a grammar tells before each token which ones may come next."""

import json
import threading
import time
from collections.abc import Set
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from ..json_schema import SchemaError, check_schema, compiled, require_llguidance, schema_text
from .reuse import RecentlyUsed

MAX_GRAMMARS = 64
"""Number of compiled schemas that are kept."""

SECONDS, SECONDS_PER_TOKEN = 1.0, 0.005
"""Time that a schema may take for an answer: so much, and so much more for each token. Usual ones take 0.00005 s a
token; the other sequences of the batch wait meanwhile."""


class Constraint:
    """The state of one answer that follows a schema.

    Args:
        matcher: llguidance's matcher at the beginning of an answer.
        ends: Tokens that end an answer.
    """

    def __init__(self, matcher: Any, ends: Set[int]) -> None:
        self._matcher, self._ends = matcher, ends
        self._seconds, self._num_tokens = 0.0, 0

    @property
    def is_complete(self) -> bool:
        """Whether nothing can follow in the answer."""
        return bool(self._matcher.is_stopped())

    def push(self, token: int) -> None:
        """Take the next token of the answer.

        Raises:
            SchemaError: The grammar exceeds a bound.
        """
        if token not in self._ends:
            self._matcher.consume_token(token)
            self._check()

    def __call__(self, logits: Tensor, unchanged: Tensor) -> Tensor:  # (V,), (V,)
        """Return logits (V,) in which only the tokens that may come next are finite.

        Args:
            logits: Logits (V,) after other rules.
            unchanged: Logits (V,) of the model, used where the other rules forbid all tokens that the schema allows.

        Raises:
            SchemaError: The grammar exceeds a bound.
        """
        started = time.perf_counter()
        bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        self._check()
        self._seconds += time.perf_counter() - started
        self._num_tokens += 1
        if self._seconds > SECONDS + SECONDS_PER_TOKEN * self._num_tokens:
            raise SchemaError("the JSON schema takes too long to follow: simplify it")
        forbidden = torch.from_numpy(np.unpackbits(bits, count=len(logits), bitorder="little") == 0).to(logits.device)
        masked = logits.masked_fill(forbidden, -torch.inf)
        return masked if masked.max() > -torch.inf else unchanged.masked_fill(forbidden, -torch.inf)

    def _check(self) -> None:
        if self._matcher.is_error():
            error = self._matcher.get_error().partition("\n")[0]
            raise SchemaError(f"the JSON schema is too complex to follow: {error[:200]}")


class Grammars:
    """Compiles JSON schemas for one tokenizer and keeps the latest; may be used by several threads.

    Args:
        tokenizer: The tokenizer.
        ends: Tokens that end an answer.
        vocab_size: Number of logits of the model.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, ends: Set[int], vocab_size: int) -> None:
        self._tokenizer, self._ends, self._vocab_size = tokenizer, ends, vocab_size
        self._compiled: RecentlyUsed[str, Any] = RecentlyUsed(MAX_GRAMMARS, lambda _: 1)
        self._vocabulary: Any = None
        self._lock = threading.Lock()

    def constraint(self, schema: Any) -> Constraint:
        """Return the constraint of a new answer; the first one of a schema takes about 0.1 s.

        Args:
            schema: JSON schema as parsed JSON.

        Raises:
            SchemaError: Answers cannot follow it.
            MissingPackageError: llguidance is not installed.
        """
        text = schema_text(schema)
        with self._lock:
            matcher = self._compiled.get(text)
        if matcher is None:
            check_schema(text)
            matcher = self._compile(text)
            with self._lock:
                self._compiled.put(text, matcher)
        return Constraint(matcher.deep_copy(), self._ends)

    def prepare(self) -> None:
        """Read the vocabulary, which takes a second for a large one, unless this was done."""
        llguidance = require_llguidance()
        with self._lock:
            if self._vocabulary is None:
                content = json.loads(self._tokenizer.backend_tokenizer.to_str())
                plain = json.dumps(content | {"padding": None, "truncation": None})
                ends = [token for token in sorted(self._ends) if token < self._vocab_size] or None
                self._vocabulary = llguidance.LLTokenizer(plain, n_vocab=self._vocab_size, eos_token=ends)

    def _compile(self, text: str) -> Any:
        self.prepare()
        return compiled(self._vocabulary, text)
