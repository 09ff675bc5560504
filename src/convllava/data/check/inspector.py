"""Inspection of one sample: its images are decoded, its tokens counted, its answers read."""

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
from .preview import Span, preview_spans

_SAME_FORMAT = {"MPO": "JPEG"}
"""Formats whose files have the ending of another: an MPO is a JPEG that holds further images."""


@dataclass(frozen=True)
class Limits:
    """Limits beyond which the check reports a sample.

    Attributes:
        max_length: Maximum tokens of a sample, visual tokens included.
        large_pixels: Maximum pixels of an image; decoding a larger one takes long and much memory.
    """

    max_length: int = 2048
    large_pixels: int = 50_000_000


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
        try:
            data = _bytes_of(image)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # reported here as a fault
                with undecoded(data, name=str(image), limits=DATA_SET_LIMITS) as opened:
                    size, format = upright_size(image if isinstance(image, Image.Image) else opened), opened.format
                    to_rgb(opened, str(image))
        except ImageError as error:
            inspection.faults.append(sample.fault(*fault_of(error)))
            return
        inspection.sizes.append(size)
        inspection.image_digests.append(_digest(data))
        inspection.faults += (sample.fault(kind, text) for kind, text in self._warnings(image, size, format))

    def _warnings(self, image: StoredImage, size: tuple[int, int], format: str | None) -> Iterator[tuple[str, str]]:
        height, width = size
        if height * width > self.limits.large_pixels:
            yield "large_image", f"image {image} has {width}x{height} pixels, more than {self.limits.large_pixels:,}"
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
        image_processor = self.processor.image_processor
        stride = image_processor.output_stride
        try:
            shapes = [image_processor.resized_shape(*size) for size in inspection.sizes]
        except ValueError as error:
            inspection.faults.append(sample.fault("bad_shape", str(error)))
            return
        placeholders = [Image.new("RGB", (stride, stride))] * len(shapes)
        try:
            encoded = self.processor.encode(
                sample.messages, placeholders, image_aspect_ratio="pad", resolution=stride, max_visual_tokens=None
            )
        except ValueError as error:
            inspection.faults.append(sample.fault("malformed", str(error)))
            return
        counts = [(height // stride) * (width // stride) for height, width in shapes]
        inspection.text_tokens = len(encoded["input_ids"]) - len(placeholders)
        inspection.visual_tokens = sum(counts)
        inspection.supervised_tokens = int(encoded["labels_mask"].sum())
        if inspection.tokens > self.limits.max_length:
            inspection.faults.append(sample.fault("too_long", self._too_long(inspection)))
        if sample.origin is None or sample.origin.record < 4 * self.previewed:  # some of the first may be faulty
            inspection.spans = preview_spans(encoded, counts, self.processor)

    def _too_long(self, inspection: Inspection) -> str:
        counts = f"{inspection.visual_tokens} visual + {inspection.text_tokens} text"
        return (
            f"{inspection.tokens} tokens ({counts}), more than max_length {self.limits.max_length}; shorten it, lower "
            "the resolution or raise max_length"
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
