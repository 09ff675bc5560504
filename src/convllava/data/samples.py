"""A sample: pictures and the dialogue about them, the one form in which data reaches a batch."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from PIL import Image

Message = dict[str, Any]
"""``{"role": "system" | "user" | "assistant", "content": [{"type": "image"} | {"type": "text", "text": str}]}``"""


@dataclass(frozen=True)
class Sample:
    """One training or evaluation item.

    ``images`` stand in the order of the ``{"type": "image"}`` parts of ``messages``; a path is opened when the
    batch is built, so that a data set of any size stays small in memory.
    """

    sample_id: str
    images: tuple[Image.Image | Path, ...]
    messages: list[Message]


class SampleSource(Protocol):
    """A map-style data set of samples that knows its pictures' sizes without decoding them."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...

    def image_sizes(self, index: int) -> Sequence[tuple[int, int]]:
        """Return (height, width) of each picture of one sample, cheaply: batches are grouped by it."""
        ...

    def text_length(self, index: int) -> int:
        """Return roughly how many characters one sample's texts have; 0 where that is as dear as the sample."""
        ...


def user_message(text: str, num_images: int = 0) -> Message:
    """Build a user turn: its pictures first, then the text."""
    return {"role": "user", "content": [*({"type": "image"} for _ in range(num_images)), _text(text)]}


def assistant_message(text: str) -> Message:
    """Build an assistant turn."""
    return {"role": "assistant", "content": [_text(text)]}


def _text(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}
