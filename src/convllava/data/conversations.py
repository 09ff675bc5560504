"""Data sets in one file (JSON, JSONL, CSV, TSV) or in a folder of images with texts.

Their layouts are those of ``formats``; see ``records`` for the sample that a record becomes.
"""

import json
import os
from array import array
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..images import ImageError
from .faults import BadSampleError, Fault, RecordError, refusal
from .formats import open_records
from .images import missing, respelled, stored_image, stored_size
from .records import ROLES, read_sample, record_id, stored_images
from .samples import Origin, RecordSource, Sample, text_length

__all__ = ["ROLES", "ConversationDataset", "OnBadSample"]

OnBadSample = Literal["stop", "skip", "list"]

_LOOKUPS_BEFORE_LISTING = 64
"""Look-ups in a folder before it is listed once: one listing is cheaper than a thousand look-ups."""


class ConversationDataset(RecordSource):
    """A data file or a folder of images. All records are read and checked when it is opened; no image is.

    Args:
        path: The ``.json``, ``.jsonl``, ``.csv`` or ``.tsv`` file, or the folder.
        image_folder: Folder of its images; the file's folder by default.
        on_bad_sample: "stop": a record that cannot be used is an error. "skip": it is left out and its fault is
            collected in ``faults``. "list": the same as "skip", and a file without usable records is no error.
        format: Name of the format of its records (``formats.NAMES``); by default it is recognized.

    Attributes:
        format: The format of the records.
        is_verbatim: Whether a record is an item of a JSON list or a line of JSONL.

    Raises:
        ValueError: The file cannot be read, or has no record or an unusable one; the message names file and record.
    """

    def __init__(
        self,
        path: str | Path,
        image_folder: str | Path | None = None,
        *,
        on_bad_sample: OnBadSample = "stop",
        format: str | None = None,
    ) -> None:
        file = open_records(Path(path), None if image_folder is None else Path(image_folder), format)
        self.path, self.format, self.is_verbatim = file.path, file.format, file.is_verbatim
        default = self.path if self.path.is_dir() else self.path.parent
        self.image_folder = Path(image_folder) if image_folder is not None else default
        self.faults: list[Fault] = []
        self._file = str(self.path)
        self._respelled: dict[Path, Path] = {}
        folder = _Folder(self.image_folder)
        self._texts = _Texts()
        good: list[int] = []
        for number, text, record in file.entries:
            try:
                self._check(record, number, folder)
            except BadSampleError as error:
                self.faults.append(error.fault)
            else:
                good.append(number)
                self._texts.append(text)
        self._numbers = np.array(good, dtype=np.int64)
        if self.faults and on_bad_sample == "stop":
            raise ValueError(refusal(self.faults, str(self.path)))
        if not good and on_bad_sample != "list":
            raise ValueError(f"{self.path} holds no records" + " that can be used" * bool(self.faults))

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, index: int) -> Sample:
        return self.sample_of(json.loads(self._texts[index]), int(self._numbers[index]))

    def num_records(self) -> int:
        """Return the number of records in the file, those that cannot be used included."""
        return len(self) + len(self.faults)

    def records(self) -> Iterator[Sample | Fault]:
        """Yield every record in the file's order: a sample, or the fault that makes it unusable."""
        faults = {fault.record: fault for fault in self.faults}
        samples = iter(range(len(self)))
        for number in range(self.num_records()):
            yield faults[number] if number in faults else self[next(samples)]

    def image_sizes(self, index: int) -> list[tuple[int, int]]:
        """Return (height, width) of each image from the files' headers; empty where one cannot be read."""
        try:
            return [stored_size(image) for image in self[index].images]
        except ImageError:  # reported with its name when the sample is read
            return []

    def text_length(self, index: int) -> int:
        """Return the characters of a sample's texts."""
        return text_length(self[index].messages)

    def _check(self, record: Any, number: int, folder: "_Folder") -> None:
        if isinstance(record, RecordError):
            raise BadSampleError(Fault(record.kind, str(self.path), number, str(number), str(record))) from record
        sample = self.sample_of(record, number)
        for image in sample.images:
            if isinstance(image, Path) and not folder.has(image):
                found = respelled(image, self.image_folder)
                if found is None:
                    raise sample.bad("missing_image", missing(image))
                self._respelled[image] = found

    def sample_of(self, record: Any, number: int) -> Sample:
        """Return the sample of a record of this file.

        Raises:
            BadSampleError: The record cannot be used.
        """
        origin = Origin(self._file, number)
        try:
            record = self.format.as_dialogue(record, self.image_folder)
            images = [stored_image(given, self.image_folder, *origin) for given in stored_images(record)]
        except RecordError as error:
            raise BadSampleError(Fault(error.kind, *origin, record_id(record, number), str(error))) from error
        if self._respelled:
            images = [self._respelled.get(image, image) if isinstance(image, Path) else image for image in images]
        return read_sample(record, images, origin)


class _Texts:
    """Texts in one block of bytes: an object for each would take several times the memory, in every worker."""

    def __init__(self) -> None:
        self._block = bytearray()
        self._ends = array("q")

    def append(self, text: str) -> None:
        self._block += text.encode("utf-8")
        self._ends.append(len(self._block))

    def __getitem__(self, index: int) -> str:
        if not -len(self._ends) <= index < len(self._ends):
            raise IndexError(f"record {index} of {len(self._ends)}")
        index %= len(self._ends)
        return self._block[self._ends[index - 1] if index else 0 : self._ends[index]].decode("utf-8")


class _Folder:
    """Looks up which files exist; a folder that many names point into is listed once."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._lookups: Counter[str] = Counter()
        self._listed: dict[str, frozenset[str]] = {}

    def has(self, image: Path) -> bool:
        parent, _, name = str(image).rpartition(os.sep)
        self._lookups[parent] += 1
        if parent not in self._listed and self._lookups[parent] > _LOOKUPS_BEFORE_LISTING:
            self._listed[parent] = _files_of(parent)
        return name in self._listed.get(parent, ()) or os.path.isfile(image)


def _files_of(folder: str) -> frozenset[str]:
    if not os.path.isdir(folder):
        return frozenset()
    with os.scandir(folder) as entries:
        return frozenset(entry.name for entry in entries if entry.is_file())
