"""Data sets known by name: their size, their layout on disk, and where to get them.

Each is a card, a YAML file in ``cards/``; nothing is downloaded. All data sets share one root, laid out as in
ShareGPT4V's and the authors' instructions, so that a folder of images that several data sets use exists once. The root
is a recipe's ``data_root`` or the environment variable ``CONVLLAVA_DATA``.
"""

import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ..support import did_you_mean
from .conversations import OnBadSample
from .files import open_file
from .samples import RecordSource, Sample
from .splitting import Part

logger = logging.getLogger(__name__)

ROOT_VARIABLE = "CONVLLAVA_DATA"
_CARDS = Path(__file__).parent / "cards"


@dataclass(frozen=True)
class Filter:
    """The records of a file that make up a data set.

    Attributes:
        image: Prefix of the names of their images.
        asks: Phrases in lower case; a user's turn holds at least one.
    """

    image: str
    asks: tuple[str, ...]

    def accepts(self, sample: Sample, image_folder: Path) -> bool:
        """Return whether a sample belongs to the data set."""
        start = str(image_folder / self.image) + (os.sep if self.image.endswith("/") else "")
        if not sample.images or not all(str(image).startswith(start) for image in sample.images):
            return False
        said = " ".join(_texts(sample, "user")).lower()
        return any(phrase in said for phrase in self.asks)


@dataclass(frozen=True)
class Card:
    """The description of a data set.

    Attributes:
        name: The name in recipes.
        title: The name in prose.
        samples: Number of records.
        is_exact: Whether ``samples`` is a count rather than a rounded figure.
        text_only: Number of records without an image.
        annotations: Path of the LLaVA JSON file under the root.
        image_folder: Folder under the root that names of images in the file are relative to.
        images: Folders under the root that must exist, each with its download page.
        source: Download page of the annotations.
        license: The licenses, in prose; the license of the complete data set is for the user to judge.
        used_in: Tables and training stages of the paper.
        asked, answered: Mean characters of a sample's user and assistant texts, for estimates without the data.
        keep: Filter of the file's records; None for all of them.
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
    keep: Filter | None = None

    def missing(self, root: Path) -> list[str]:
        """Return files and folders that are not under the root, each with its download page."""
        absent = [] if (root / self.annotations).is_file() else [f"{self.annotations} ({self.source})"]
        return absent + [f"{name} ({url})" for name, url in self.images.items() if not (root / name).is_dir()]

    def open(self, root: Path, *, on_bad_sample: OnBadSample = "stop") -> RecordSource:
        """Open the data set.

        Raises:
            ValueError: A file is missing (the message has its download page) or cannot be used.
        """
        if absent := self.missing(root):
            raise ValueError(
                f"data set {self.name} is not complete under {root}, missing: {'; '.join(absent)}. "
                f"License: {self.license}"
            )
        folder = root / self.image_folder
        source = open_file(root / self.annotations, folder, on_bad_sample=on_bad_sample)
        opened: RecordSource = source if self.keep is None else _filtered(source, self.keep, folder)
        if self.is_exact and len(opened) != self.samples:
            logger.warning("%s under %s has %d samples, the known one %d", self.name, root, len(opened), self.samples)
        return opened


def _filtered(source: RecordSource, keep: Filter, image_folder: Path) -> RecordSource:
    """Return the samples of a source that a filter accepts, in the source's order."""
    indices = [index for index in range(len(source)) if keep.accepts(source[index], image_folder)]
    if not indices:
        raise ValueError(f"no record has an image of {keep.image} and asks one of: {'; '.join(keep.asks)}")
    return Part(source, indices)


def names() -> list[str]:
    """Return the names of all known data sets."""
    return sorted(path.stem for path in _CARDS.glob("*.yaml"))


def card(name: str) -> Card:
    """Return the card of a data set.

    Raises:
        ValueError: The name is unknown; the message suggests the nearest.
    """
    if name not in names():
        hint = did_you_mean(name, names())
        raise ValueError(f"no data set is called {name!r}{hint}; known are synthetic/KIND and {', '.join(names())}")
    values: dict[str, Any] = yaml.safe_load((_CARDS / f"{name}.yaml").read_text(encoding="utf-8"))
    keep = values.pop("keep", None)
    return Card(
        name=name,
        keep=Filter(keep["image"], tuple(keep["asks"])) if keep else None,
        **values.pop("characters"),
        **values,
    )


def find_root(name: str, given: str | Path | None = None) -> Path:
    """Return the folder of all data sets: ``given``, or the value of the environment variable.

    Raises:
        ValueError: Neither is set.
    """
    root = given or os.environ.get(ROOT_VARIABLE)
    if not root:
        raise ValueError(
            f"data_root is not set, which data set {name} needs: give the folder of your data sets as data_root in the "
            f"recipe (or data_root=FOLDER), or set {ROOT_VARIABLE}; download page: {card(name).source}"
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
