"""The split into training and test receipts, which depends on their names alone."""

from collections.abc import Sequence
from hashlib import sha256

from .receipt import Receipt

Split = tuple[list[Receipt], list[Receipt], list[Receipt]]
"""Training receipts, test receipts, and those left out because their image is in the test."""


def split_receipts(receipts: Sequence[Receipt], train: int | None, test: int, seed: int) -> Split:
    """Choose receipts for the test and, among the others, for training.

    Receipts are sorted by ``sha256("SEED:NAME")``; the first ``test`` are for the test and the next ``train``, or all
    others, for training. More training data therefore do not change the test. Data that come split keep their split,
    and the numbers apply to each part. Some images occur under several names (SROIE has such): the test takes those
    last and once, and no training receipt has an image of the test.

    Raises:
        ValueError: There are too few receipts.
    """
    ordered = sorted(receipts, key=lambda receipt: sha256(f"{seed}:{receipt.name}".encode()).digest())
    is_split = any(receipt.part is not None for receipt in receipts)
    candidates = _unique_first([receipt for receipt in ordered if receipt.part == "test"] if is_split else ordered)
    test_receipts = _first(candidates, test, "the part 'test'" if is_split else "the test")
    images = {receipt.fingerprint for receipt in test_receipts}
    others = [
        receipt for receipt in ordered if receipt not in test_receipts and (receipt.part == "train" or not is_split)
    ]
    left_out = [receipt for receipt in others if receipt.fingerprint in images]
    rest = [receipt for receipt in others if receipt.fingerprint not in images]
    purpose = "the part 'train'" if is_split else "training, in addition to those of the test,"
    return _first(rest, len(rest) if train is None else train, purpose), test_receipts, left_out


def _unique_first(receipts: Sequence[Receipt]) -> list[Receipt]:
    """Return one receipt of each image, with images that occur several times at the end."""
    groups: dict[str, list[Receipt]] = {}
    for receipt in receipts:
        groups.setdefault(receipt.fingerprint, []).append(receipt)
    return [group[0] for group in sorted(groups.values(), key=lambda group: len(group) > 1)]


def _first(receipts: list[Receipt], count: int, purpose: str) -> list[Receipt]:
    if count > len(receipts):
        raise ValueError(f"{count} receipts are requested for {purpose} but there are {len(receipts)}: ask for fewer")
    return receipts[:count]
