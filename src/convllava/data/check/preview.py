"""A sample's text cut into the spans that a model is shown and those that it learns."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Literal


@dataclass(frozen=True)
class Span:
    """Consecutive tokens that are treated alike.

    Attributes:
        kind: Whether the tokens are only shown, supervised, or visual tokens.
        text: The tokens as text; for an image, the number of its visual tokens.
    """

    kind: Literal["shown", "supervised", "image"]
    text: str


def preview_spans(encoded: Mapping[str, Any], counts: Sequence[int], processor: Any) -> list[Span]:
    """Return the spans of an encoded sample in which each image is one token.

    Args:
        encoded: ``input_ids`` and ``labels_mask``, (T,) each.
        counts: Visual tokens of each image.
        processor: Has ``tokenizer`` and ``image_token_id``.
    """
    tokens = zip(encoded["input_ids"].tolist(), encoded["labels_mask"].tolist(), strict=True)
    remaining = iter(counts)
    spans: list[Span] = []
    for kind, group in groupby(tokens, key=lambda token: _kind(token[0], token[1], processor.image_token_id)):
        spans += _spans_of_kind(kind, [token_id for token_id, _ in group], remaining, processor.tokenizer)
    return spans


def _spans_of_kind(kind: Any, ids: list[int], counts: Iterator[int], tokenizer: Any) -> list[Span]:
    if kind == "image":
        return [Span(kind, f"{next(counts)} visual tokens") for _ in ids]
    return [Span(kind, tokenizer.decode(ids, skip_special_tokens=False))]


def _kind(token_id: int, supervised: bool, image_token_id: int) -> str:
    if token_id == image_token_id:
        return "image"
    return "supervised" if supervised else "shown"
