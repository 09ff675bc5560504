"""One sample looked at from all sides: its images decoded, its tokens counted, its answers read."""

import hashlib
import json
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from ...images import DATA_SET_LIMITS, ImageError, open_stream, to_rgb, undecoded, upright_size
from ..faults import Fault, place_of
from ..images import EncodedImage, StoredImage, fault_of
from ..records import answers
from ..samples import Sample
from .preview import Piece, pieces_of

_SAME_FORMAT = {"MPO": "JPEG"}
"""Formats that go by another one's ending: a JPEG that holds further images."""


@dataclass(frozen=True)
class Limits:
    """From where on something is wrong or remarkable.

    Attributes:
        max_length: Longest row in tokens, visual tokens included.
        large_pixels: An image of more is reported; decoding it takes long and much memory.
    """

    max_length: int = 2048
    large_pixels: int = 50_000_000


@dataclass
class Facts:
    """What is known of one record after it was looked at.

    Attributes:
        file, record: Where it stands.
        sizes: (height, width) of each image that can be read, upright.
        image_digests: One for each of them; equal for equal files.
        digest: Of images and dialogue together; None for a record that cannot be used.
        pieces: What a model is shown and what it learns, for the first samples only.
    """

    sample_id: str
    file: str
    record: int | None
    faults: list[Fault] = field(default_factory=list)
    sizes: list[tuple[int, int]] = field(default_factory=list)
    image_digests: list[int] = field(default_factory=list)
    digest: int | None = None
    text_tokens: int = 0
    visual_tokens: int = 0
    supervised_tokens: int = 0
    pieces: list[Piece] = field(default_factory=list)

    @property
    def place(self) -> str:
        """Where it stands, in words."""
        return place_of(self.file, self.record, self.sample_id)

    @property
    def tokens(self) -> int:
        """Length of the row."""
        return self.text_tokens + self.visual_tokens

    @property
    def has_errors(self) -> bool:
        """Whether the record cannot be trained on."""
        return any(fault.is_error for fault in self.faults)


class Inspector:
    """Looks at samples as training will; a class, so that worker processes can take it along.

    Args:
        processor: Has ``encode``, ``tokenizer``, ``image_token_id`` and ``image_processor``, as the model's has.
        limits: From where on something is wrong.
        previewed: Samples of each source that shall be shown: the first ones come with their ``pieces``.
    """

    def __init__(self, processor: Any, limits: Limits, previewed: int = 0) -> None:
        self.processor = processor
        self.limits = limits
        self.previewed = previewed

    def __call__(self, entry: Sample | Fault) -> Facts:
        """Return the facts of a sample, or of a record that was no sample at all."""
        if isinstance(entry, Fault):
            return Facts(entry.sample_id, entry.file, entry.record, [entry])
        facts = Facts(entry.sample_id, *(entry.origin or ("", None)))
        for image in entry.images:
            self._look_at(image, entry, facts)
        self._read_answers(entry, facts)
        if not facts.has_errors:
            self._count_tokens(entry, facts)
        if not facts.has_errors:
            facts.digest = _digest(repr(facts.image_digests).encode(), json.dumps(entry.messages).encode())
        return facts

    def _look_at(self, image: StoredImage, sample: Sample, facts: Facts) -> None:
        try:
            data = _bytes_of(image)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # reported here in our own words
                with undecoded(data, name=str(image), limits=DATA_SET_LIMITS) as opened:
                    size, format = upright_size(opened), opened.format
                    to_rgb(opened)
        except ImageError as error:
            facts.faults.append(sample.fault(*fault_of(error)))
            return
        facts.sizes.append(size)
        facts.image_digests.append(_digest(data))
        facts.faults += (sample.fault(kind, text) for kind, text in self._remarks(image, size, format))

    def _remarks(self, image: StoredImage, size: tuple[int, int], format: str | None) -> Iterator[tuple[str, str]]:
        height, width = size
        if height * width > self.limits.large_pixels:
            yield "large_image", f"image {image} has {width}x{height} pixels, more than {self.limits.large_pixels:,}"
        expected = _format_by_name(image)
        if expected is not None and _SAME_FORMAT.get(str(format), format) != expected:
            yield "wrong_name", f"image {image} is named like {expected} but is {format}"

    def _read_answers(self, sample: Sample, facts: Facts) -> None:
        given = answers(sample.messages)
        empty = sum(not answer for answer in given)
        if empty:
            facts.faults.append(sample.fault("empty_answer", f"{empty} of {len(given)} answers empty"))

    def _count_tokens(self, sample: Sample, facts: Facts) -> None:
        """Count without making pixels: each image stands as one cell, its true tokens are added."""
        image_processor = self.processor.image_processor
        stride = image_processor.output_stride
        try:
            shapes = [image_processor.resized_shape(*size) for size in facts.sizes]
        except ValueError as error:
            facts.faults.append(sample.fault("bad_shape", str(error)))
            return
        cells = [Image.new("RGB", (stride, stride))] * len(shapes)
        try:
            row = self.processor.encode(
                sample.messages, cells, image_aspect_ratio="pad", resolution=stride, max_visual_tokens=None
            )
        except ValueError as error:
            facts.faults.append(sample.fault("malformed", str(error)))
            return
        counts = [(height // stride) * (width // stride) for height, width in shapes]
        facts.text_tokens = len(row["input_ids"]) - len(cells)
        facts.visual_tokens = sum(counts)
        facts.supervised_tokens = int(row["labels_mask"].sum())
        if facts.tokens > self.limits.max_length:
            facts.faults.append(sample.fault("too_long", self._too_long(facts)))
        if sample.origin is None or sample.origin.record < 4 * self.previewed:  # some may turn out to be faulty
            facts.pieces = pieces_of(row, counts, self.processor)

    def _too_long(self, facts: Facts) -> str:
        return (
            f"{facts.tokens} tokens ({facts.visual_tokens} visual + {facts.text_tokens} text), more than max_length "
            f"{self.limits.max_length}; shorten it, lower the resolution or raise max_length"
        )


def _bytes_of(image: StoredImage) -> bytes:
    if isinstance(image, EncodedImage):
        return image.data
    if isinstance(image, Path):
        with open_stream(image) as file:
            return file.read()
    stream = BytesIO()
    image.save(stream, "PPM" if image.mode in ("L", "RGB") else "PNG")
    return stream.getvalue()


def _format_by_name(image: StoredImage) -> str | None:
    """Return the format that an image's name promises; None where it promises nothing."""
    if isinstance(image, Image.Image):
        return None
    return Image.registered_extensions().get(image.suffix.lower())


def _digest(*parts: bytes) -> int:
    """Return 64 bits of a hash: a Python integer is the smallest thing to keep millions of."""
    made = hashlib.blake2b(digest_size=8)
    for part in parts:
        made.update(len(part).to_bytes(8, "big") + part)
    return int.from_bytes(made.digest(), "big")
