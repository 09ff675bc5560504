"""What of a sample a model is shown and what it learns, as pieces of text."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Literal


@dataclass(frozen=True)
class Piece:
    """Tokens that follow each other and are treated alike; of an image the number of its tokens is told."""

    kind: Literal["shown", "supervised", "image"]
    text: str


def pieces_of(row: Mapping[str, Any], counts: Sequence[int], processor: Any) -> list[Piece]:
    """Cut an encoded row, in which each image is one token, where images and supervision begin and end.

    Args:
        row: ``input_ids`` and ``labels_mask``, (T,) each.
        counts: Visual tokens of each image.
        processor: Has ``tokenizer`` and ``image_token_id``.
    """
    tokens = zip(row["input_ids"].tolist(), row["labels_mask"].tolist(), strict=True)
    remaining = iter(counts)
    pieces: list[Piece] = []
    for kind, group in groupby(tokens, key=lambda token: _kind(token[0], token[1], processor.image_token_id)):
        pieces += _pieces_of_kind(kind, [token_id for token_id, _ in group], remaining, processor.tokenizer)
    return pieces


def _pieces_of_kind(kind: Any, ids: list[int], counts: Iterator[int], tokenizer: Any) -> list[Piece]:
    if kind == "image":
        return [Piece(kind, f"{next(counts)} visual tokens") for _ in ids]
    return [Piece(kind, tokenizer.decode(ids, skip_special_tokens=False))]


def _kind(token_id: int, supervised: bool, image_token_id: int) -> str:
    if token_id == image_token_id:
        return "image"
    return "supervised" if supervised else "shown"
