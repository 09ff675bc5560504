"""A sample: images and the dialogue about them, the one form in which data reaches a batch."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

from ..constants import Message
from ..images import ImageError
from .faults import BadSampleError, Fault, place_of
from .images import StoredImage, stored_size


class Origin(NamedTuple):
    """The file or shard of a sample, and its record there, counted from 0."""

    file: str
    record: int


@dataclass(frozen=True)
class Sample:
    """One training or evaluation item.

    Attributes:
        sample_id: The record's id, or its number.
        images: Images in the order of the ``{"type": "image"}`` parts of ``messages``; a path is opened when the batch
            is built, so that a data set of any size stays small in memory.
        messages: The dialogue; each content is a list of ``{"type": "image"}`` and ``{"type": "text", "text": str}``.
        origin: The record that the sample was read from; None for a drawn sample.
        references: All accepted answers to the last question, where a record lists them.
    """

    sample_id: str
    images: tuple[StoredImage, ...]
    messages: list[Message]
    origin: Origin | None = None
    references: tuple[str, ...] = ()

    @property
    def place(self) -> str:
        """File, record and id, for messages."""
        return place_of(*self._where())

    def fault(self, kind: str, message: str) -> Fault:
        """Return a fault of this sample."""
        file, record, sample_id = self._where()
        return Fault(kind, file, record, sample_id, message)

    def bad(self, kind: str, message: str) -> BadSampleError:
        """Return the error that rejects this sample."""
        return BadSampleError(self.fault(kind, message))

    def _where(self) -> tuple[str, int | None, str]:
        return (*(self.origin or ("", None)), self.sample_id)


class SampleSource(Protocol):
    """A map-style data set of samples that knows its images' sizes without decoding them.

    A sample that cannot be used may raise ``BadSampleError`` when it is read; its image sizes are then empty and its
    text length is 0.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...

    def image_sizes(self, index: int) -> Sequence[tuple[int, int]]:
        """Return (height, width) of each image of one sample, cheaply: batches are grouped by it."""
        ...

    def text_length(self, index: int) -> int:
        """Return the approximate characters of one sample's texts; 0 if only making the sample would tell."""
        ...


class RecordSource(SampleSource, Protocol):
    """A source whose records can be listed in order, for checks and statistics.

    The defaults fit a source without unusable records; classes that inherit from this protocol get them.
    """

    def num_records(self) -> int | None:
        """Return the number of records that ``records`` yields; None for streams of unknown length."""
        return len(self)

    def records(self) -> Iterator[Sample | Fault]:
        """Yield every record in order: a sample, or the fault that makes it unusable."""
        yield from (self[index] for index in range(self.num_records() or 0))


@dataclass(frozen=True)
class NamedSource:
    """A source to check or measure.

    Attributes:
        name: The name or path in the recipe or on the command line.
        source: The opened source.
        drawn: Samples that a training run takes from it; None outside a recipe.
    """

    name: str
    source: RecordSource
    drawn: int | None = None

    @property
    def format(self) -> str:
        """Title of the format of its records; empty for sources without one."""
        return getattr(getattr(self.source, "format", None), "title", "")


@runtime_checkable
class SequentialSource(SampleSource, Protocol):
    """A source that is read roughly in sequence, such as shards and streams, and therefore shuffles itself."""

    def shuffled(self, seed: Sequence[int]) -> SampleSource:
        """Return the samples in the random order of ``seed``, pass after pass without end."""
        ...


@runtime_checkable
class CheckedSource(Protocol):
    """A source whose records were checked when it was opened.

    Attributes:
        faults: Faults that were found.
    """

    faults: list[Fault]


class _Indexed(Protocol):
    def __getitem__(self, index: int) -> Sample: ...


def measure(source: _Indexed, index: int) -> tuple[list[tuple[int, int]], int]:
    """Return the (height, width) of a sample's images and the characters of its texts.

    Both are empty for a sample that cannot be used: its fault is reported when the sample itself is read.
    """
    try:
        sample = source[index]
        return [stored_size(image) for image in sample.images], text_length(sample.messages)
    except (BadSampleError, ImageError):
        return [], 0


def user_message(text: str, num_images: int = 0) -> Message:
    """Return a user turn: its images first, then the text."""
    return {"role": "user", "content": [*({"type": "image"} for _ in range(num_images)), _text(text)]}


def assistant_message(text: str) -> Message:
    """Return an assistant turn."""
    return {"role": "assistant", "content": [_text(text)]}


def text_length(messages: Sequence[Message]) -> int:
    """Return the characters of a dialogue's texts."""
    parts = (part for message in messages for part in message["content"])
    return sum(len(part["text"]) for part in parts if part["type"] == "text")


def _text(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}
