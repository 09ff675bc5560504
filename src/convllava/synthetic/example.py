"""The interface of the kinds of synthetic data."""

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
    """An image with a question about it.

    Attributes:
        image: The image in RGB.
        question: The first question.
        answer: Its answer.
        facts: The data that the image was drawn from, for tests.
        more: Further questions with their answers, in order.
    """

    image: Image.Image
    question: str
    answer: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    more: tuple[Asked, ...] = ()


class Kind(Protocol):
    """A generator of one kind of images: a dataclass whose fields, except ``split``, are its options."""

    @property
    def sizes(self) -> tuple[Size, ...]: ...

    def example(self, rng: random.Random, size: Size) -> Example:
        """Draw one image of ``size`` (height, width) with its questions; ``rng`` is the only source of randomness."""
        ...
