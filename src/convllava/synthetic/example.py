"""What every kind of synthetic data makes, and how it makes it."""

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from PIL import Image

from .options import Size

Asked = tuple[str, str]
"""Question and answer."""


@dataclass(frozen=True)
class Example:
    """An image with a question about it; ``facts`` keeps what was drawn, for tests.

    ``more`` holds further questions with their answers, in the order in which they are asked.
    """

    image: Image.Image
    question: str
    answer: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    more: tuple[Asked, ...] = ()


class Kind(Protocol):
    """A generator of one kind of images: a dataclass whose fields, ``split`` apart, are its options."""

    @property
    def sizes(self) -> tuple[Size, ...]: ...

    def example(self, rng: random.Random, size: Size) -> Example:
        """Draw one image of ``size`` (height, width) with its question, from the random stream alone."""
        ...
