"""Size of a sample, as far as batches of like samples need it."""

from typing import Protocol

from ...images import ImageError
from ..faults import BadSampleError
from ..images import stored_size
from ..samples import Sample, text_length


class Indexed(Protocol):
    """Samples by number."""

    def __getitem__(self, index: int) -> Sample: ...


def measure(source: Indexed, index: int) -> tuple[list[tuple[int, int]], int]:
    """Return sizes of the images and characters of the texts; nothing of a sample that cannot be used."""
    try:
        sample = source[index]
        return [stored_size(image) for image in sample.images], text_length(sample.messages)
    except (BadSampleError, ImageError):  # said when the sample is read
        return [], 0
