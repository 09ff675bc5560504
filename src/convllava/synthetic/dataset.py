"""A data set that draws its samples on access."""

from dataclasses import fields
from typing import Any

from ..data.samples import RecordSource, Sample, assistant_message, user_message
from .documents import DocumentKind
from .example import Example, Kind
from .lines import LineKind
from .options import Size, check_name
from .price_tags import PriceTagKind
from .printed import BlocksKind, LinesKind, PagesKind, PrintedKind
from .scenery import BoxesKind, ScenesKind
from .scenes import GroundingKind, SceneKind
from .seeding import SPLITS, stable_hash, stream

KINDS: dict[str, type[Any]] = {
    "line": LineKind,
    "document": DocumentKind,
    "scene": SceneKind,
    "grounding": GroundingKind,
    "price_tag": PriceTagKind,
    "lines": LinesKind,
    "blocks": BlocksKind,
    "documents": PrintedKind,
    "pages": PagesKind,
    "scenes": ScenesKind,
    "boxes": BoxesKind,
}
"""Every kind by name; see ``Kind`` for the interface."""

CHECKED_SAMPLES = 256
"""Samples that checks and statistics read: all are drawn alike, and a recipe's source has millions."""

ENDLESS = 10_000_000
"""Samples of a source without a count in its recipe: more than a run draws."""


class SyntheticDataset(RecordSource):
    """``count`` images of one kind, each with a question and its answer, or several.

    Sample ``i`` depends on kind, seed, split, ``i`` and the options alone, so it is the same in every run, on every
    machine and for any order of access. The two splits share no words and no type faces.

    Args:
        kind: A key of ``KINDS``.
        count: Number of samples.
        seed: Number of the series of samples.
        split: ``"train"`` or ``"heldout"``.
        **options: Fields of the kind's class; every kind has ``sizes``, a list of [height, width].

    Raises:
        ValueError: A kind, split or option is unknown or has an impossible value.
    """

    def __init__(self, kind: str, *, count: int, seed: int = 0, split: str = "train", **options: Any) -> None:
        check_name("kind", kind, KINDS)
        check_name("split", split, SPLITS)
        if not isinstance(count, int) or count < 0:
            raise ValueError(f"count must be a whole number of at least 0, got {count!r}")
        self.kind, self.count, self.seed, self.split = kind, count, seed, split
        self._generator = _build(kind, split, options)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Sample:
        index = self._check_index(index)
        example = self.example(index)
        messages = [user_message(example.question, num_images=1), assistant_message(example.answer)]
        for question, answer in example.more:
            messages += [user_message(question), assistant_message(answer)]
        return Sample(f"synthetic/{self.kind}/{self.split}/{self.seed}/{index}", (example.image,), messages)

    def example(self, index: int) -> Example:
        """Draw sample ``index`` with the facts that it was drawn from."""
        index = self._check_index(index)
        return self._generator.example(self._stream(index), self._size(index))

    def num_records(self) -> int:
        """Return the number of samples that a check or statistics read."""
        return min(self.count, CHECKED_SAMPLES)

    def image_sizes(self, index: int) -> list[Size]:
        """Return (height, width) of the one image, without drawing it."""
        return [self._size(self._check_index(index))]

    def text_length(self, index: int) -> int:
        """Return 0: only drawing the image would tell."""
        return 0

    def _size(self, index: int) -> Size:
        sizes = self._generator.sizes
        if len(sizes) == 1:
            return sizes[0]
        return sizes[stable_hash("size", self.kind, self.seed, self.split, index) % len(sizes)]

    def _stream(self, index: int) -> Any:
        return stream("content", self.kind, self.seed, self.split, index)

    def _check_index(self, index: int) -> int:
        if not -self.count <= index < self.count:
            raise IndexError(f"sample {index} of {self.count}")
        return index % self.count


def _build(kind: str, split: str, options: dict[str, Any]) -> Kind:
    cls = KINDS[kind]
    known = [option.name for option in fields(cls) if option.name != "split"]
    for name in options:
        check_name(f"option of synthetic kind {kind!r}", name, known)
    generator: Kind = cls(split=split, **options)
    return generator
