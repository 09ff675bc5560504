"""Data sets known by name: what they hold, how they lie on disk, and where to get them.

Each is a YAML file beside this one; nothing is ever downloaded. All of them lie under one root, laid out as
ShareGPT4V's and the authors' instructions have it, so that a folder of images that several data sets share is there
once. The root is a recipe's ``data_root`` or the environment variable ``CONVLLAVA_DATA``.
"""

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

from ..conversations import OnBadSample
from ..files import open_file
from ..samples import RecordSource, Sample

logger = logging.getLogger(__name__)

ROOT_VARIABLE = "CONVLLAVA_DATA"
_FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Keep:
    """Which records of a file make up a data set.

    Attributes:
        image: How the names of their images begin.
        asks: One of these, in small letters, is in what the user says.
    """

    image: str
    asks: tuple[str, ...]

    def takes(self, sample: Sample, image_folder: Path) -> bool:
        """Tell whether a sample belongs to the data set."""
        start = str(image_folder / self.image) + (os.sep if self.image.endswith("/") else "")
        if not sample.images or not all(str(image).startswith(start) for image in sample.images):
            return False
        said = " ".join(_texts(sample, "user")).lower()
        return any(phrase in said for phrase in self.asks)


@dataclass(frozen=True)
class Card:
    """What is known of a data set.

    Attributes:
        name: In recipes.
        title: In words.
        samples: Records it has.
        is_exact: Whether ``samples`` is a count or a rounded figure.
        text_only: Those among them without an image.
        annotations: The LLaVA JSON file, under the root.
        image_folder: What the names of images in it are relative to, under the root.
        images: Folders that must be there, under the root, and where to get each.
        source: Where to get the annotations.
        license: In words; of the data set as a whole it is for the user to judge.
        used_in: Tables and training stages of the paper.
        asked, answered: Mean characters of a sample's texts by role, for estimates without the data.
        keep: Only these records of the file.
    """

    name: str
    title: str
    samples: int
    annotations: str
    image_folder: str
    images: dict[str, str]
    source: str
    license: str
    used_in: str
    asked: float
    answered: float
    is_exact: bool = True
    text_only: int = 0
    keep: Keep | None = None

    def missing(self, root: Path) -> list[str]:
        """Return files and folders that are not under the root, each with where to get it."""
        absent = [] if (root / self.annotations).is_file() else [f"{self.annotations} ({self.source})"]
        return absent + [f"{name} ({url})" for name, url in self.images.items() if not (root / name).is_dir()]

    def open(self, root: Path, *, on_bad_sample: OnBadSample = "stop") -> RecordSource:
        """Open the data set.

        Raises:
            ValueError: Something is missing (says where to get it) or cannot be used.
        """
        if absent := self.missing(root):
            raise ValueError(
                f"data set {self.name} is not complete under {root}, missing: {'; '.join(absent)}. "
                f"License: {self.license}"
            )
        folder = root / self.image_folder
        source = open_file(root / self.annotations, folder, on_bad_sample=on_bad_sample)
        opened: RecordSource = source if self.keep is None else _Kept(source, self.keep, folder)
        if self.is_exact and len(opened) != self.samples:
            logger.warning("%s under %s has %d samples, the known one %d", self.name, root, len(opened), self.samples)
        return opened


class _Kept(RecordSource):
    """Some samples of a source, in its order."""

    def __init__(self, source: RecordSource, keep: Keep, image_folder: Path) -> None:
        self.source = source
        self.indices = [index for index in range(len(source)) if keep.takes(source[index], image_folder)]
        if not self.indices:
            raise ValueError(f"no record has an image of {keep.image} and asks one of: {'; '.join(keep.asks)}")

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Sample:
        return self.source[self.indices[index]]

    def image_sizes(self, index: int) -> Sequence[tuple[int, int]]:
        """Return (height, width) of each image of a sample."""
        return self.source.image_sizes(self.indices[index])

    def text_length(self, index: int) -> int:
        """Return the characters of a sample's texts."""
        return self.source.text_length(self.indices[index])


def names() -> list[str]:
    """Return the names of all known data sets."""
    return sorted(path.stem for path in _FOLDER.glob("*.yaml"))


def card(name: str) -> Card:
    """Return what is known of a data set.

    Raises:
        ValueError: There is none of this name; names the nearest.
    """
    if name not in names():
        near = get_close_matches(name, names(), n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"no data set is called {name!r}{hint}; known are synthetic/KIND and {', '.join(names())}")
    values: dict[str, Any] = yaml.safe_load((_FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))
    keep = values.pop("keep", None)
    return Card(
        name=name,
        keep=Keep(keep["image"], tuple(keep["asks"])) if keep else None,
        **values.pop("characters"),
        **values,
    )


def find_root(name: str, given: str | Path | None = None) -> Path:
    """Return the folder of all data sets: the one given, or the environment's.

    Raises:
        ValueError: Nobody says where it is.
    """
    root = given or os.environ.get(ROOT_VARIABLE)
    if not root:
        raise ValueError(
            f"nobody says where data set {name} lies: give the folder of your data sets as data_root in the recipe "
            f"(or data_root=FOLDER), or set {ROOT_VARIABLE}; to be had from {card(name).source}"
        )
    return Path(root)


def _texts(sample: Sample, role: str) -> list[str]:
    return [
        part["text"]
        for message in sample.messages
        if message["role"] == role
        for part in message["content"]
        if part["type"] == "text"
    ]
