"""Fingerprints of the held-out samples, so that no change of the generator changes a benchmark unnoticed.

``held_out.json`` beside this file holds, for each benchmark, two short digests a sample: of its texts and of its
pixels. Texts depend on this package alone; pixels also on the versions of Pillow and FreeType, which are on record.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from PIL import Image, features

from ..data.samples import Sample
from .synthetic import BENCHMARKS

RECORD = Path(__file__).with_name("held_out.json")
DIGEST_BYTES = 4
"""Of each half: one changed sample in four thousand million goes unnoticed."""

Digest = tuple[str, str]
"""Of a sample's texts, and of its pixels."""


@dataclass(frozen=True)
class Difference:
    """A sample that is not the one on record."""

    index: int
    texts: bool
    pixels: bool


def digest_of(sample: Sample) -> Digest:
    """Return the digests of a drawn sample: its dialogue, and its images with their sizes and modes."""
    texts = json.dumps(sample.messages, sort_keys=True, ensure_ascii=False).encode()
    pixels = b"".join(_image_bytes(image) for image in sample.images)
    return _digest(texts), _digest(pixels)


def draw_record(on_progress: Callable[[str], None] | None = None) -> dict[str, Any]:
    """Draw every sample of every benchmark; return what belongs into the file."""
    found: dict[str, Any] = {"drawn_with": versions(), "samples": {}}
    for name, benchmark in BENCHMARKS.items():
        samples = benchmark.samples()
        digests = ("-".join(digest_of(samples[index])) for index in range(len(samples)))
        found["samples"][name] = " ".join(digests)
        if on_progress is not None:
            on_progress(name)
    return found


def differences(name: str, indices: Iterable[int]) -> list[Difference]:
    """Draw some samples of a benchmark again and return those that are not what is on record.

    Raises:
        ValueError: The benchmark is not on record, or has more or fewer samples there.
    """
    known = recorded(name)
    samples = BENCHMARKS[name].samples()
    if len(known) != len(samples):
        raise ValueError(
            f"{RECORD.name} has {len(known)} samples of {name}, which has {len(samples)}: write it again "
            "(python benchmarks/held_out.py)"
        )
    found = []
    for index in indices:
        texts, pixels = digest_of(samples[index])
        if (texts, pixels) != known[index]:
            found.append(Difference(index, texts != known[index][0], pixels != known[index][1]))
    return found


def warnings_about(name: str, indices: Sequence[int]) -> list[str]:
    """Say, for whoever reads a score, whether the samples are those that others measure; draws a few of them."""
    found = differences(name, indices)
    if not found:
        return []
    what = "text" if any(own.texts for own in found) else "pixels"
    return [
        f"{len(found)} of {len(indices)} samples looked at differ in {what} from those on record (drawn here with "
        f"{_said(versions())}, there with {_said(_read()['drawn_with'])}): not comparable with figures of others"
    ]


@lru_cache
def recorded(name: str) -> list[Digest]:
    """Return the digests on record.

    Raises:
        ValueError: There are none of this benchmark.
    """
    samples = _read()["samples"]
    if name not in samples:
        raise ValueError(f"{RECORD.name} has no samples of {name}: write it again (python benchmarks/held_out.py)")
    return [(digest[: 2 * DIGEST_BYTES], digest[2 * DIGEST_BYTES + 1 :]) for digest in samples[name].split()]


def versions() -> dict[str, str]:
    """Return what pixels depend on beside this package."""
    return {"pillow": PIL.__version__, "freetype": str(features.version("freetype2"))}


@lru_cache
def _read() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(RECORD.read_text(encoding="utf-8"))
    return content


def _image_bytes(image: object) -> bytes:
    assert isinstance(image, Image.Image), "synthetic samples are drawn, not read"
    return f"{image.mode} {image.width}x{image.height} ".encode() + np.asarray(image).tobytes()


def _digest(data: bytes) -> str:
    return blake2b(data, digest_size=DIGEST_BYTES).hexdigest()


def _said(names: dict[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in names.items())
