"""Digests of the held-out synthetic samples, so that a change of the generator does not change a benchmark unnoticed.

``held_out.json`` has two short digests of each sample, of its texts and of its pixels. Texts depend on this package
alone. Pixels also depend on the versions of Pillow and FreeType, which are recorded.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from PIL import Image, features

from ..data.samples import Sample
from ..synthetic import SyntheticDataset

RECORD = Path(__file__).with_name("held_out.json")
DIGEST_BYTES = 4
"""Length of each digest; a changed sample goes unnoticed with probability 2**-32."""

Digest = tuple[str, str]
"""Digests of a sample's texts and of its pixels."""


@dataclass(frozen=True)
class Difference:
    """A sample that differs from the recorded one.

    Attributes:
        texts: Whether the texts differ.
        pixels: Whether the pixels differ.
    """

    index: int
    texts: bool
    pixels: bool


def digest_of(sample: Sample) -> Digest:
    """Return the digests of a drawn sample: of its messages, and of its images with their sizes and modes."""
    texts = json.dumps(sample.messages, sort_keys=True, ensure_ascii=False).encode()
    pixels = b"".join(_image_bytes(image) for image in sample.images)
    return _digest(texts), _digest(pixels)


def draw_record(
    datasets: Mapping[str, SyntheticDataset], on_progress: Callable[[str], None] | None = None
) -> dict[str, Any]:
    """Draw all samples and return the content of ``held_out.json``.

    Args:
        datasets: Samples of each benchmark by name.
        on_progress: Function that is called with the name of each finished benchmark.
    """
    record: dict[str, Any] = {"drawn_with": versions(), "samples": {}}
    for name, dataset in datasets.items():
        digests = ("-".join(digest_of(dataset[index])) for index in range(len(dataset)))
        record["samples"][name] = " ".join(digests)
        if on_progress is not None:
            on_progress(name)
    return record


def differences(name: str, dataset: SyntheticDataset, indices: Iterable[int]) -> list[Difference]:
    """Draw some samples of a benchmark and return those that differ from the recorded ones.

    Raises:
        ValueError: The benchmark is not recorded, or with another number of samples.
    """
    known = recorded(name)
    if len(known) != len(dataset):
        raise ValueError(
            f"{RECORD.name} has {len(known)} samples of {name}, which has {len(dataset)}: write it again "
            "(python benchmarks/held_out.py --write)"
        )
    found = []
    for index in indices:
        texts, pixels = digest_of(dataset[index])
        if (texts, pixels) != known[index]:
            found.append(Difference(index, texts != known[index][0], pixels != known[index][1]))
    return found


def warnings_about(name: str, dataset: SyntheticDataset, indices: Sequence[int]) -> list[str]:
    """Return a warning for the score if some of these samples differ from the recorded ones."""
    found = differences(name, dataset, indices)
    if not found:
        return []
    aspect = "text" if any(difference.texts for difference in found) else "pixels"
    return [
        f"{len(found)} of {len(indices)} checked samples differ in {aspect} from the recorded ones (drawn here with "
        f"{_format(versions())}, recorded with {_format(_read(RECORD)['drawn_with'])}): figures are not comparable "
        "with published ones"
    ]


def recorded(name: str) -> list[Digest]:
    """Return the recorded digests of a benchmark.

    Raises:
        ValueError: The benchmark is not recorded.
    """
    samples = _read(RECORD)["samples"]
    if name not in samples:
        raise ValueError(
            f"{RECORD.name} has no samples of {name}: write it again (python benchmarks/held_out.py --write)"
        )
    return [(digest[: 2 * DIGEST_BYTES], digest[2 * DIGEST_BYTES + 1 :]) for digest in samples[name].split()]


def versions() -> dict[str, str]:
    """Return the versions of the libraries that pixels depend on."""
    return {"pillow": PIL.__version__, "freetype": str(features.version("freetype2"))}


@lru_cache
def _read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def _image_bytes(image: object) -> bytes:
    if not isinstance(image, Image.Image):
        raise TypeError(f"a drawn sample has PIL images, got {type(image).__name__}")
    return f"{image.mode} {image.width}x{image.height} ".encode() + np.asarray(image).tobytes()


def _digest(data: bytes) -> str:
    return blake2b(data, digest_size=DIGEST_BYTES).hexdigest()


def _format(names: dict[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in names.items())
