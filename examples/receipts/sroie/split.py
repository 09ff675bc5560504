"""Which receipts are trained on and which are kept for the test: fixed by their names alone."""

from collections.abc import Sequence
from hashlib import sha256

from .receipt import Receipt

Split = tuple[list[Receipt], list[Receipt], list[Receipt]]
"""Receipts to train on, those to test with, and those left out because their image is in the test."""


def split_receipts(receipts: Sequence[Receipt], train: int | None, test: int, seed: int) -> Split:
    """Choose receipts for the test and, among the others, for training.

    Receipts stand in the order of ``sha256("SEED:NAME")``; the first ``test`` are for the test and the next
    ``train``, or all others, for training. So more training data leave the test as it is. Data that come split keep
    their split, and the numbers are taken from each part. Some images occur under several names (SROIE has such):
    the test takes them last and once, and what is trained on has no image of the test.

    Raises:
        ValueError: There are too few.
    """
    ordered = sorted(receipts, key=lambda receipt: sha256(f"{seed}:{receipt.name}".encode()).digest())
    is_split = any(receipt.part is not None for receipt in receipts)
    candidates = _each_once([own for own in ordered if own.part == "test"] if is_split else ordered)
    tested = _first(candidates, test, "the part 'test'" if is_split else "the test")
    images = {own.fingerprint for own in tested}
    others = [own for own in ordered if own not in tested and (own.part == "train" or not is_split)]
    left_out = [own for own in others if own.fingerprint in images]
    rest = [own for own in others if own.fingerprint not in images]
    what = "the part 'train'" if is_split else "training, beside those of the test,"
    return _first(rest, len(rest) if train is None else train, what), tested, left_out


def _each_once(receipts: Sequence[Receipt]) -> list[Receipt]:
    """Return one receipt of each image, images that occur several times at the end."""
    groups: dict[str, list[Receipt]] = {}
    for receipt in receipts:
        groups.setdefault(receipt.fingerprint, []).append(receipt)
    return [group[0] for group in sorted(groups.values(), key=lambda group: len(group) > 1)]


def _first(receipts: list[Receipt], count: int, what: str) -> list[Receipt]:
    if count > len(receipts):
        raise ValueError(f"{count} receipts are wanted for {what} but there are {len(receipts)}: ask for fewer")
    return receipts[:count]
