"""Division of sources into a part for training and a held-out part that share no image.

Samples that are connected by images belong to the same part. Samples of text alone are connected by equal texts. Which
images are held out follows from their digests and a seed, not from the order of the records.
"""

from collections.abc import Sequence
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import Literal

from PIL import Image

from .faults import BadSampleError, Fault
from .images import EncodedImage, StoredImage
from .samples import CheckedSource, RecordSource, Sample, SampleSource

Identity = Literal["content", "path"]
"""Property by which two images are the same: the bytes of their files, or their paths."""


class Part(RecordSource):
    """Some samples of a source, in their order.

    Args:
        source: The source.
        indices: Numbers of the samples.
    """

    def __init__(self, source: SampleSource, indices: Sequence[int]) -> None:
        self.source, self.indices = source, list(indices)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Sample:
        return self.source[self.indices[index]]

    def image_sizes(self, index: int) -> Sequence[tuple[int, int]]:
        """Return (height, width) of each image of a sample."""
        return self.source.image_sizes(self.indices[index])

    def text_length(self, index: int) -> int:
        """Return the characters of a sample's texts, as its source counts them."""
        return self.source.text_length(self.indices[index])

    @property
    def faults(self) -> list[Fault]:
        """Faults that were found when the source was opened."""
        return list(self.source.faults) if isinstance(self.source, CheckedSource) else []


def split_sources(
    sources: Sequence[SampleSource],
    *,
    fraction: float | None = None,
    images: int | None = None,
    by: Identity = "content",
    seed: int = 0,
) -> list[tuple[Part, Part]]:
    """Divide sources into training and held-out samples; no image of one part is in the other, in whatever source.

    Args:
        sources: The sources.
        fraction: Share of the images of each source that is held out, at least one image.
        images: Number of images of each source that is held out instead.
        by: Identity of an image.
        seed: Seed of the choice.

    Returns:
        Training part and held-out part of each source.

    Raises:
        ValueError: A source has no sample left for training, or none to hold out.
    """
    groups = _Groups()
    members = [[groups.add(keys) for keys in _keys_of(source, by)] for source in sources]
    held_out: set[str] = set()
    for source_members in members:
        ordered = sorted(
            {groups.root(key) for key in source_members}, key=lambda key: _digest(f"{seed} {key}".encode())
        )
        count = images if images is not None else max(1, round((fraction or 0) * len(ordered)))
        held_out |= set(ordered[:count])
    parts = []
    for source, source_members in zip(sources, members, strict=True):
        is_held_out = [groups.root(key) in held_out for key in source_members]
        chosen = [index for index, flag in enumerate(is_held_out) if flag]
        rest = [index for index, flag in enumerate(is_held_out) if not flag]
        if not rest or not chosen:
            raise ValueError(
                f"of {len(source_members)} samples with {len({groups.root(key) for key in source_members})} different "
                f"images, {len(chosen)} would be held out and {len(rest)} left for training: give more data, a smaller "
                "share, or a file of its own as validation data"
            )
        parts.append((Part(source, rest), Part(source, chosen)))
    return parts


class _Groups:
    """Groups of images that samples connect (union-find); a group is named by its smallest key."""

    def __init__(self) -> None:
        self._parents: dict[str, str] = {}

    def add(self, keys: Sequence[str]) -> str:
        """Join the groups of the keys of one sample and return one of the keys."""
        for key in keys:
            self._parents.setdefault(key, key)
        roots = sorted({self.root(key) for key in keys})
        for root in roots[1:]:
            self._parents[root] = roots[0]
        return keys[0]

    def root(self, key: str) -> str:
        """Return the name of a key's group."""
        while (parent := self._parents[key]) != key:
            self._parents[key] = self._parents[parent]
            key = parent
        return key


def _keys_of(source: SampleSource, by: Identity) -> list[list[str]]:
    """Return the identities of the images of each sample; those of its texts where there are none."""
    found = []
    for index in range(len(source)):
        try:
            sample = source[index]
        except BadSampleError:  # reported when the sample is drawn
            found.append([f"unusable {index}"])
            continue
        keys = [_identity(image, by) for image in sample.images]
        found.append(keys or [_digest(repr(sample.messages).encode("utf-8", "surrogatepass"))])
    return found


def _identity(image: StoredImage, by: Identity) -> str:
    if isinstance(image, Image.Image):
        return _digest(repr((image.mode, image.size)).encode() + image.tobytes())
    if isinstance(image, EncodedImage):
        return _digest(image.data) if by == "content" else f"{image.shard}/{image.name}"
    if by == "path":
        return str(image)
    try:
        state = image.stat()
        return _file_digest(image, state.st_mtime_ns, state.st_size)
    except OSError:  # reported when the sample is drawn
        return str(image)


@lru_cache(maxsize=1 << 20)
def _file_digest(path: Path, modified: int, size: int) -> str:
    """Return the digest of a file that was last modified at a time; a plan and its run read it once."""
    return _digest(path.read_bytes())


def _digest(data: bytes) -> str:
    return blake2b(data, digest_size=16).hexdigest()
