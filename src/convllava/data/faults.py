"""Everything that can be wrong with a sample, and how it is reported."""

from dataclasses import dataclass

from ..support import encodable

ERRORS: dict[str, str] = {
    "malformed": "record that cannot be read",
    "role_order": "roles out of order",
    "placeholder_mismatch": "placeholders and images disagree",
    "image_count": "more or fewer images than the training stage takes",
    "missing_image": "missing image",
    "corrupt_image": "image that cannot be decoded",
    "huge_image": "image too large to be opened safely",
    "bad_shape": "image of an unsupported shape",
    "no_answer": "nothing to learn from",
    "too_long": "more tokens than max_length",
}
"""Kinds of faults that make a sample unusable for training."""

WARNINGS: dict[str, str] = {
    "wrong_name": "file ending that contradicts the image's format",
    "large_image": "image of very many pixels",
    "thin_image": "image too thin for a letter",
    "further_frames": "image file with further frames, which are not used",
    "empty_answer": "empty answer among others",
    "duplicate": "same images and dialogue as an earlier sample",
    "duplicate_id": "id of an earlier sample",
}
"""Kinds of faults that do not keep a sample from training."""


@dataclass(frozen=True)
class Fault:
    """A fault of one sample.

    Attributes:
        kind: A key of ``ERRORS`` or ``WARNINGS``.
        file: The data file or shard; empty for a drawn sample.
        record: The number of the record in the file, counted from 0; None for a drawn sample.
        sample_id: The record's id, or its number.
        message: The fault, and the way out where there is one.
    """

    kind: str
    file: str
    record: int | None
    sample_id: str
    message: str

    def __post_init__(self) -> None:
        if self.kind not in ERRORS and self.kind not in WARNINGS:
            raise ValueError(f"unknown kind of fault {self.kind!r}")
        for name in ("sample_id", "message"):  # a lone surrogate would end whatever writes the fault
            object.__setattr__(self, name, encodable(getattr(self, name)))

    @property
    def is_error(self) -> bool:
        """Whether the sample cannot be trained on."""
        return self.kind in ERRORS

    @property
    def place(self) -> str:
        """File, record and id, for messages."""
        return place_of(self.file, self.record, self.sample_id)

    def __str__(self) -> str:
        return f"{self.place}: {self.message}"


class BadSampleError(ValueError):
    """A sample that cannot be used.

    Attributes:
        fault: The sample and the reason.
    """

    def __init__(self, fault: Fault) -> None:
        super().__init__(str(fault))
        self.fault = fault

    def __reduce__(self) -> tuple[type["BadSampleError"], tuple[Fault]]:
        return type(self), (self.fault,)  # the default would fail to unpickle what a worker process raised


class RecordError(ValueError):
    """A fault's kind and message, before file and record are known."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def place_of(file: str, record: int | None, sample_id: str) -> str:
    """Return ``train.json, record 3 (id 7)``, or ``sample 7`` where there is no file."""
    return f"sample {sample_id}" if record is None else f"{file}, record {record} (id {sample_id})"


def refusal(faults: list[Fault], file: str) -> str:
    """Return the message that rejects faulty data: the first fault, the number of others, the ways out."""
    more = f"; {len(faults) - 1} more records of {file} cannot be used" if len(faults) > 1 else ""
    return f"{faults[0]}{more} ('convllava data check' lists all faults, 'on_bad_sample: skip' leaves the samples out)"
