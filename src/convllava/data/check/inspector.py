"""Inspection of one sample: its images are decoded, its tokens counted, its answers read."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from ...images import DATA_SET_LIMITS, is_thin, num_frames, undecoded
from ..batching import check_characters, check_one_image, check_tokens, open_sample_image, resized_shapes
from ..faults import BadSampleError, Fault, place_of
from ..images import EncodedImage, StoredImage
from ..records import answers
from ..samples import Sample
from .preview import Span, preview_spans

_SAME_FORMAT = {"MPO": "JPEG"}
"""Formats whose files have the ending of another: an MPO is a JPEG that holds further images."""

_MOST_HASHED_BYTES = 1 << 26
"""Largest file that is read to find its duplicates; of larger ones the pixels are compared."""


@dataclass(frozen=True)
class Limits:
    """Limits beyond which the check reports a sample.

    Attributes:
        max_length: Maximum tokens of a sample, visual tokens included.
        large_pixels: Maximum pixels of an image; decoding a larger one takes long and much memory.
        one_image: Whether each sample must have exactly one image.
    """

    max_length: int = 2048
    large_pixels: int = 50_000_000
    one_image: bool = False


@dataclass
class Inspection:
    """The result of inspecting one record.

    Attributes:
        sample_id: The record's id, or its number.
        file: The data file or shard.
        record: The number of the record in the file.
        faults: Everything wrong with the record.
        sizes: (height, width) of each readable image, upright.
        image_digests: A digest of each readable image; equal for equal files.
        digest: A digest of images and dialogue together; None for a record that cannot be used.
        spans: The parts of the text that a model is shown or learns, for the first samples only.
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
    spans: list[Span] = field(default_factory=list)

    @property
    def place(self) -> str:
        """File, record and id, for messages."""
        return place_of(self.file, self.record, self.sample_id)

    @property
    def tokens(self) -> int:
        """Length of the encoded sample."""
        return self.text_tokens + self.visual_tokens

    @property
    def has_errors(self) -> bool:
        """Whether the record cannot be trained on."""
        return any(fault.is_error for fault in self.faults)


class Inspector:
    """Inspects samples as training will read them; a class, so that worker processes can pickle it.

    Args:
        processor: Has ``encode``, ``tokenizer``, ``image_token_id`` and ``image_processor``.
        limits: Limits beyond which a sample is reported.
        previewed: Number of samples of each source whose ``spans`` are kept.
    """

    def __init__(self, processor: Any, limits: Limits, previewed: int = 0) -> None:
        self.processor = processor
        self.limits = limits
        self.previewed = previewed

    def __call__(self, entry: Sample | Fault) -> Inspection:
        """Return the inspection of a sample, or of a record that could not become one."""
        if isinstance(entry, Fault):
            return Inspection(entry.sample_id, entry.file, entry.record, [entry])
        inspection = Inspection(entry.sample_id, *(entry.origin or ("", None)))
        for image in entry.images:
            self._inspect_image(image, entry, inspection)
        self._read_answers(entry, inspection)
        if not inspection.has_errors:
            self._count_tokens(entry, inspection)
        if not inspection.has_errors:
            inspection.digest = _digest(repr(inspection.image_digests).encode(), json.dumps(entry.messages).encode())
        return inspection

    def _inspect_image(self, image: StoredImage, sample: Sample, inspection: Inspection) -> None:
        """Open an image exactly as training does; its format and digest are what training does not need."""
        try:
            opened = open_sample_image(image, sample)
        except BadSampleError as error:
            inspection.faults.append(error.fault)
            return
        size = (opened.height, opened.width)
        inspection.sizes.append(size)
        inspection.image_digests.append(_digest_of(image, opened))
        inspection.faults += (sample.fault(kind, text) for kind, text in self._warnings(image, size))

    def _warnings(self, image: StoredImage, size: tuple[int, int]) -> Iterator[tuple[str, str]]:
        height, width = size
        if height * width > self.limits.large_pixels:
            yield "large_image", f"image {image} has {width}x{height} pixels, more than {self.limits.large_pixels:,}"
        if is_thin(size):
            yield "thin_image", f"image {image} has {width}x{height} pixels; crop or leave out what cannot be read"
        format, frames = _format_of(image)
        if frames > 1:
            yield "further_frames", f"image {image} has {frames} frames; only the first is used, save each as a file"
        expected = _format_by_name(image)
        if expected is not None and _SAME_FORMAT.get(str(format), format) != expected:
            yield "wrong_name", f"image {image} has the name of a {expected} file but is {format}"

    def _read_answers(self, sample: Sample, inspection: Inspection) -> None:
        given = answers(sample.messages)
        empty = sum(not answer for answer in given)
        if empty:
            inspection.faults.append(sample.fault("empty_answer", f"{empty} of {len(given)} answers empty"))

    def _count_tokens(self, sample: Sample, inspection: Inspection) -> None:
        """Count tokens without making pixels: each image is encoded as one position, and its true count is added."""
        stride = self.processor.image_processor.output_stride
        placeholders = [Image.new("RGB", (stride, stride))] * len(inspection.sizes)
        try:
            if self.limits.one_image:
                check_one_image(sample)
            check_characters(sample, self.processor, self.limits.max_length)
            shapes = resized_shapes(sample, inspection.sizes, self.processor)
            encoded = self.processor.encode(
                sample.messages, placeholders, image_aspect_ratio="pad", resolution=stride, max_visual_tokens=None
            )
        except BadSampleError as error:
            inspection.faults.append(error.fault)
            return
        except ValueError as error:
            inspection.faults.append(sample.fault("malformed", str(error)))
            return
        counts = [(height // stride) * (width // stride) for height, width in shapes]
        inspection.text_tokens = len(encoded["input_ids"]) - len(placeholders)
        inspection.visual_tokens = sum(counts)
        inspection.supervised_tokens = int(encoded["labels_mask"].sum())
        try:
            check_tokens(sample, inspection.tokens, inspection.supervised_tokens, self.limits.max_length)
        except BadSampleError as error:
            inspection.faults.append(error.fault)
        if sample.origin is None or sample.origin.record < 4 * self.previewed:  # some of the first may be faulty
            inspection.spans = preview_spans(encoded, counts, self.processor)


def _digest_of(image: StoredImage, opened: Image.Image) -> int:
    """Return a digest of an image's file or, where there is none or it is huge (sparse, for example), of its pixels."""
    if isinstance(image, EncodedImage):
        return _digest(image.data)
    if isinstance(image, Path) and image.stat().st_size <= _MOST_HASHED_BYTES:
        return _digest(image.read_bytes())
    return _digest(repr(opened.size).encode(), opened.tobytes())


def _format_of(image: StoredImage) -> tuple[str | None, int]:
    """Return format and number of frames of an image that was opened before, from its header."""
    source = image.data if isinstance(image, EncodedImage) else image
    if isinstance(source, Image.Image):
        return None, 1
    with undecoded(source, limits=DATA_SET_LIMITS) as opened:
        return opened.format, num_frames(opened)


def _format_by_name(image: StoredImage) -> str | None:
    """Return the format that an image's file name implies; None if it implies none."""
    if isinstance(image, Image.Image):
        return None
    return Image.registered_extensions().get(image.suffix.lower())


def _digest(*parts: bytes) -> int:
    """Return 64 bits of a hash; millions of Python integers take the least memory."""
    made = hashlib.blake2b(digest_size=8)
    for part in parts:
        made.update(len(part).to_bytes(8, "big") + part)
    return int.from_bytes(made.digest(), "big")
