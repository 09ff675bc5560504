"""What can be wrong with a sample, and how it is said."""

from dataclasses import dataclass

ERRORS: dict[str, str] = {
    "malformed": "record that cannot be read",
    "role_order": "roles out of order",
    "placeholder_mismatch": "placeholders and images disagree",
    "missing_image": "image that is not there",
    "corrupt_image": "image that cannot be decoded",
    "huge_image": "image too large to be opened safely",
    "bad_shape": "image of a shape that cannot be shown",
    "no_answer": "nothing to learn from",
    "too_long": "more tokens than fit",
}
"""Kinds of fault with which a sample cannot be trained on."""

WARNINGS: dict[str, str] = {
    "wrong_name": "file ending that belies the image's format",
    "large_image": "image of very many pixels",
    "empty_answer": "empty answer among others",
    "duplicate": "same images and dialogue as an earlier sample",
    "duplicate_id": "id of an earlier sample",
}
"""Kinds that training takes as they are."""


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong with one sample.

    Attributes:
        kind: A key of ``ERRORS`` or ``WARNINGS``.
        file: The data file or shard.
        record: The sample's place in it, counted from 0; None where it came from no file.
        sample_id: As the record says, or its place.
        message: What is wrong, and where it helps, the way out.
    """

    kind: str
    file: str
    record: int | None
    sample_id: str
    message: str

    def __post_init__(self) -> None:
        assert self.kind in ERRORS or self.kind in WARNINGS, self.kind

    @property
    def is_error(self) -> bool:
        """Whether the sample cannot be trained on."""
        return self.kind in ERRORS

    @property
    def place(self) -> str:
        """Where the sample stands, in words."""
        return place_of(self.file, self.record, self.sample_id)

    def __str__(self) -> str:
        return f"{self.place}: {self.message}"


class BadSampleError(ValueError):
    """A sample that cannot be used; ``fault`` says which and why."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(str(fault))
        self.fault = fault

    def __reduce__(self) -> tuple[type["BadSampleError"], tuple[Fault]]:
        return type(self), (self.fault,)  # or a worker process could not hand it back


def place_of(file: str, record: int | None, sample_id: str) -> str:
    """Return ``train.json, record 3 (id 7)``, or ``sample 7`` where there is no file."""
    return f"sample {sample_id}" if record is None else f"{file}, record {record} (id {sample_id})"


def refusal(faults: list[Fault], file: str) -> str:
    """Return the one line with which faulty data is refused: the first fault, how many more, the ways out."""
    more = f"; {len(faults) - 1} more records of {file} cannot be used" if len(faults) > 1 else ""
    return f"{faults[0]}{more} ('convllava data check' lists all that is wrong, 'on_bad_sample: skip' leaves it out)"
